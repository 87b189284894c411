"""The store: boxes, ties, files."""

import subprocess
import sys

import numpy as np
import pytest

from tjls_mm.errors import InputError, TrainingDiverged
from tjls_mm.image_ids import write_image_ids
from tjls_mm.outputs import VOCABULARY, Boxes, Needs, Outputs, check_finite
from tjls_mm.outputs.shards import ShardedStore
from tjls_mm.outputs.vocabulary import BOX_FIELDS
from tjls_mm.query import write_selection
from tjls_mm.randomness import tie_break


def make_boxes(counts, width=3, seed=0) -> Boxes:
    rng = np.random.default_rng(seed)
    m = int(sum(counts))
    return Boxes(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rng.random((m, 4), np.float32),
        rng.random(m, np.float32),
        rng.integers(0, width, m).astype(np.int32),
        rng.random((m, width), np.float32),
        rng.random((m, 5)).astype(np.float16),
        rng.integers(0, 3, m).astype(np.int32),
    )


@pytest.mark.parametrize('module', ['tjls_mm.query', 'tjls_mm.outputs.outputs'])
def test_strategies_and_store_need_no_torch(module):
    code = f'import sys, {module}; print("torch" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == 'False', done.stderr


@pytest.mark.parametrize(
    'counts', [[0, 2, 0, 0, 3, 1, 0], [0, 0], [4], [1, 1, 1], [0, 5], [5, 0]]
)
@pytest.mark.parametrize('block', [1, 1 << 24])
def test_boxes_are_reduced_per_image(counts, block, monkeypatch):
    monkeypatch.setattr('tjls_mm.outputs.outputs._BLOCK', block)
    boxes = make_boxes(counts)
    assert len(boxes) == len(counts) and boxes.count.tolist() == counts
    functions = {'sum': np.sum, 'mean': np.mean, 'max': np.max}
    for values in (boxes.score, boxes.probability, boxes.feature, boxes.label):
        parts = np.split(values, boxes.offsets[1:-1])
        for how, function in functions.items():
            expected = [
                function(part.astype(np.float64), axis=0)
                if len(part)
                else np.full(values.shape[1:], -1.0)
                for part in parts
            ]
            found = boxes.reduce(values, how, empty=-1.0)
            np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5)
    first = boxes[0]
    assert len(first.score) == counts[0] and first.feature.shape == (counts[0], 5)
    assert np.array_equal(boxes[-1].xyxy, boxes.xyxy[boxes.offsets[-2] :])
    with pytest.raises(IndexError):
        boxes[len(counts)]


@pytest.mark.parametrize('counts', [[0, 2, 0, 9, 1, 0], [0, 0], [4]])
def test_one_per_prior_is_the_first_box_of_each(counts):
    boxes = make_boxes(counts)
    found = boxes.one_per_prior()
    assert len(found) == len(counts)
    for i in range(len(counts)):
        one, own = boxes[i], found[i]
        first = [
            row for row, prior in enumerate(one.prior) if prior not in one.prior[:row]
        ]
        for field in one._fields:
            assert np.array_equal(getattr(own, field), getattr(one, field)[first])
    again = found.one_per_prior()
    assert np.array_equal(again.offsets, found.offsets)
    plain = Boxes(np.array([0, 2]), *[np.zeros((2, 1))] * 4)
    assert plain.one_per_prior() is plain


def test_boxes_refuse_what_is_not_one_row_each():
    boxes = make_boxes([2, 1])
    with pytest.raises(ValueError, match='2 rows for 3 boxes'):
        boxes.reduce(boxes.score[:2])
    with pytest.raises(ValueError, match='median'):
        boxes.reduce(boxes.score, 'median')


@pytest.mark.parametrize('seed', range(6))
def test_smallest_is_a_sort_by_key_hash_and_id(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    ids = sorted({f'{"abc"[i % 3]}/{rng.integers(10**6)}' for i in range(n)})
    key = rng.integers(-3, 3, len(ids)) * [1.0, 0.5][seed % 2]
    key[key == 0] *= rng.choice([-1, 1], (key == 0).sum())  # -0.0 ties with 0.0
    pool = Outputs.from_arrays(ids, {})
    ranked = sorted(
        range(len(ids)), key=lambda i: (key[i], tie_break(ids[i], seed), ids[i])
    )
    for budget in {1, len(ids) // 3 or 1, len(ids)}:
        assert pool.smallest(key, budget, seed).tolist() == ranked[:budget]


def test_only_ties_that_decide_are_hashed(monkeypatch):
    hashed = []

    def counting(image_id, seed):
        hashed.append(image_id)
        return tie_break(image_id, seed)

    monkeypatch.setattr('tjls_mm.outputs.outputs.tie_break', counting)
    ids = [f'{i:04d}' for i in range(1000)]
    key = np.arange(1000.0)
    key[[3, 4]] = 3
    key[500:] = 7777
    Outputs.from_arrays(ids, {}).smallest(key, 10, 0)
    assert hashed == ['0003', '0004']


def test_smallest_refuses_bad_input():
    pool = Outputs.from_arrays(['a', 'b'], {})
    for budget in (0, 3):
        with pytest.raises(ValueError, match='budget must be 1 to 2'):
            pool.smallest(np.zeros(2), budget, 0)
    with pytest.raises(ValueError, match="key of 'b' is nan"):
        pool.smallest(np.array([0, np.nan]), 1, 0)
    with pytest.raises(ValueError, match='shape'):
        pool.smallest(np.zeros(3), 1, 0)


def test_outputs_are_refused_unless_sorted_and_complete():
    for ids in (['b', 'a'], ['a', 'a']):
        with pytest.raises(ValueError, match='sorted'):
            Outputs.from_arrays(ids, {})
    with pytest.raises(ValueError, match='logit: 1 rows'):
        Outputs.from_arrays(['a', 'b'], {'logit': np.zeros(1)})
    with pytest.raises(KeyError, match='not gathered'):
        Outputs.from_arrays(['a'], {})['logit']
    assert 'logit' not in Outputs.from_arrays(['a'], {})


def test_no_images_have_no_outputs(tmp_path):
    nothing = Outputs.from_arrays([], {})
    assert nothing.image_ids == [] and list(nothing) == [] and not nothing
    check_finite(nothing, 'pool images')
    logit = Outputs.from_arrays([], {'logit': np.zeros(0, np.float32)})
    check_finite(logit, 'pool images')
    write_selection(tmp_path / 's.csv', logit, [], {})
    assert (tmp_path / 's.csv').read_text() == 'image_id,rank,logit\n'
    with pytest.raises(ValueError, match='budget'):
        nothing.smallest(np.zeros(0), 1, 0)


def batches(ids, boxes, rows, size=2):
    """What a reader would give of some rows."""
    for start in range(rows.start, rows.stop, size):
        part = range(start, min(start + size, rows.stop))
        found = [boxes[i] for i in part]
        yield {
            'logit': np.float32([len(ids[i]) * i for i in part]),
            'feature': np.float32([[i, -i] for i in part]),
            **{
                f'{name}.count': np.int32([len(b.score) for b in found])
                for name in ('boxes', 'flip_boxes')
            },
            **{
                f'{name}.{field}': np.concatenate([getattr(b, field) for b in found])
                for name in ('boxes', 'flip_boxes')
                for field in BOX_FIELDS
            },
            'box_feature': np.concatenate([b.feature for b in found]),
        }


NAMES = ['logit', 'feature', 'boxes', 'box_feature', 'flip_boxes']


def write_store(folder, counts=(0, 2, 0, 3, 1, 0, 4), shards=2):
    ids = [f'x/{i}' for i in range(len(counts))]
    boxes = make_boxes(counts)
    store = ShardedStore(folder, ids, shards)
    assert store.prepare({'list_sha256': 'x'}) == []
    edges = np.linspace(0, len(ids), shards + 1).astype(int)
    for rank in range(shards):
        rows = range(edges[rank], edges[rank + 1])
        store.write_shard(rank, batches(ids, boxes, rows))
    store.join(NAMES)
    return ids, boxes


@pytest.mark.parametrize('shards', [1, 2, 3])
def test_what_is_written_is_read(tmp_path, shards):
    ids, boxes = write_store(tmp_path, shards=shards)
    outputs = Outputs.open(tmp_path)
    assert outputs.image_ids == ids and list(outputs) == NAMES
    assert np.array_equal(outputs['feature'], [[i, -i] for i in range(7)])
    assert isinstance(outputs['logit'], np.memmap)
    assert not outputs['logit'].flags.writeable
    for name in ('offsets', *BOX_FIELDS, 'feature'):
        assert np.array_equal(getattr(outputs['boxes'], name), getattr(boxes, name))
    for name in ('offsets', *BOX_FIELDS):
        assert np.array_equal(
            getattr(outputs['flip_boxes'], name), getattr(boxes, name)
        )
    assert outputs['flip_boxes'].feature is None
    assert np.array_equal(outputs['box_feature'], boxes.feature)
    assert not (tmp_path / 'parts').exists()


def test_a_store_without_any_box(tmp_path):
    write_store(tmp_path, counts=(0, 0, 0))
    boxes = Outputs.open(tmp_path)['boxes']
    assert boxes.reduce(boxes.score, 'max', empty=0.5).tolist() == [0.5] * 3
    check_finite(Outputs.open(tmp_path), 'images')


@pytest.mark.parametrize(
    'name',
    ['index.json', 'image_ids.txt', 'logit.npy', 'boxes.score.npy', 'boxes.count.npy'],
)
@pytest.mark.parametrize('how', ['missing', 'short', 'empty', 'other'])
def test_a_spoiled_file_is_named_with_what_to_do(tmp_path, name, how):
    write_store(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if how == 'short':
        path.write_bytes(content[:-3])
    elif how == 'empty':
        path.write_bytes(b'')
    elif how == 'other' and path.suffix == '.npy':
        np.save(path, np.zeros(3))
    elif how == 'other':
        path.write_bytes(b'[]')
    with pytest.raises(InputError, match=rf'{name}(.|\n)*Remove that folder'):
        Outputs.open(tmp_path)


def test_outputs_of_other_images_are_refused(tmp_path):
    write_store(tmp_path / 'outputs')
    write_image_ids(tmp_path / 'pool.txt', ['a'])
    with pytest.raises(InputError, match='other images than'):
        Outputs.open(tmp_path / 'outputs', tmp_path / 'pool.txt')


def test_a_kill_in_joining_loses_nothing(tmp_path, monkeypatch):
    write_store(tmp_path / 'whole')
    real = ShardedStore._join_file

    for killed_at in (0, 1, 5, 14):
        folder = tmp_path / f'{killed_at}'
        left = [killed_at]

        def killed(self, *args, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            real(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(ShardedStore, '_join_file', killed)
            with pytest.raises(KeyboardInterrupt):
                write_store(folder)
        with pytest.raises(InputError, match='lack index.json'):
            Outputs.open(folder)
        (folder / '.logit.npy.abcd_123.npy').write_bytes(b'left by a kill')
        store = ShardedStore(folder, [f'x/{i}' for i in range(7)], 2)
        assert store.prepare({'list_sha256': 'x'}) == [0, 1]
        store.join(NAMES)
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        assert files == {p.name: p.read_bytes() for p in (tmp_path / 'whole').iterdir()}


def test_shards_of_something_else_are_not_used(tmp_path):
    ids = ['a', 'b']
    store = ShardedStore(tmp_path, ids, 2)
    store.prepare({'list_sha256': 'x'})
    store.write_shard(0, [{'logit': np.float32([1])}])
    assert ShardedStore(tmp_path, ids, 2).prepare({'list_sha256': 'x'}) == [0]
    with pytest.raises(InputError, match='file system that all processes share'):
        store.join(['logit'])
    assert ShardedStore(tmp_path, ids, 3).prepare({'list_sha256': 'x'}) == []
    store = ShardedStore(tmp_path, ids, 2)
    assert store.prepare({'list_sha256': 'y'}) == []


def test_a_full_disk_is_one_error_that_names_a_file(tmp_path):
    code = f"""
import resource, signal
import numpy as np
from tjls_mm.outputs.shards import ShardedStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = ShardedStore(__import__('pathlib').Path({str(tmp_path)!r}), ['a'], 1)
store.prepare({{'list_sha256': ''}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
rows = {{'logit': np.zeros(1000, 'f4'), 'feature': np.zeros((1000, 9), 'f4')}}
store.write_shard(0, [rows] * 9)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'InputError' in done.stderr and 'cannot be written (File too' in done.stderr
    left = [path.name for path in tmp_path.rglob('*') if path.is_file()]
    assert left == ['plan.json']


@pytest.mark.parametrize(
    'name', ['feature', 'boxes.probability', 'flip_boxes.score', 'box_feature']
)
def test_values_that_are_not_finite_are_named(name):
    boxes, flipped = make_boxes([0, 2, 1]), make_boxes([0, 4, 0])
    arrays = {
        'feature': np.zeros((3, 2)),
        'boxes': boxes,
        'flip_boxes': flipped,
        'box_feature': boxes.feature,
    }
    outputs = Outputs.from_arrays(['a', 'b', 'c'], arrays)
    check_finite(outputs, 'pool images')
    name_of, _, field = name.partition('.')
    spoiled = getattr(arrays[name_of], field) if field else arrays[name]
    spoiled[1] = np.nan
    with pytest.raises(TrainingDiverged, match=rf"'{name}' of 1 of 3 .*\(b\)"):
        check_finite(outputs, 'pool images')


def test_needs_are_checked():
    needs = Needs(pool=['logit', 'my_own'], labelled=['feature'])
    assert needs.pool == ('logit', 'my_own') and set(VOCABULARY) > {'logit', 'boxes'}
    for wrong in (
        dict(pool='logit'),
        dict(pool=['a/b']),
        dict(pool=['mutual_information']),
        dict(pool=['logit'], passes=3),
    ):
        with pytest.raises(InputError):
            Needs(**wrong)
