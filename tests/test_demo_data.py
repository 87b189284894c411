"""The demo set: reproducible, well-formed, imbalanced and redundant as promised."""

import importlib.util
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

TOOL = Path(__file__).parents[1] / 'tools' / 'make_demo_data.py'
N_POOL, N_TEST = 40, 10
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('make_demo_data', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def demo(tool, tmp_path_factory):
    """The folder of a small set."""
    out = tmp_path_factory.mktemp('demo')
    tool.make_demo_data(out, seed=0, n_pool=N_POOL, n_test=N_TEST)
    return out / 'VOCdemo'


def contents(folder):
    """Relative path to bytes of every file."""
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def listed(folder, split):
    return (folder / f'ImageSets/Main/{split}.txt').read_text().split()


def read_image(folder, name):
    return cv2.imread(str(folder / 'JPEGImages' / f'{name}.jpg'))


def read_objects(folder, name):
    """(class, [xmin, ymin, xmax, ymax]) of every object, coordinates from 1."""
    root = ElementTree.parse(folder / 'Annotations' / f'{name}.xml').getroot()
    return [
        (
            node.findtext('name'),
            [int(node.findtext(f'bndbox/{key}')) for key in CORNERS],
        )
        for node in root.findall('object')
    ]


def count_classes(folder, names):
    return Counter(kind for name in names for kind, _ in read_objects(folder, name))


def test_same_seed_gives_same_bytes_and_another_seed_other_ones(tool, tmp_path):
    for out, seed in (('a', 3), ('b', 3), ('c', 4)):
        tool.make_demo_data(tmp_path / out, seed=seed, n_pool=16, n_test=4)
    first, again, other = (contents(tmp_path / out / 'VOCdemo') for out in 'abc')
    assert first == again
    assert first.keys() == other.keys()
    images = [name for name in first if name.endswith('.jpg')]
    assert len(images) == 20
    assert all(first[name] != other[name] for name in images)


def test_pool_and_test_are_disjoint_and_complete(demo):
    pool, test = listed(demo, 'trainval'), listed(demo, 'test')
    assert (len(pool), len(test)) == (N_POOL, N_TEST)
    assert not set(pool) & set(test)
    for folder in ('JPEGImages', 'Annotations'):
        names = [path.stem for path in (demo / folder).iterdir()]
        assert sorted(names) == sorted(pool + test)


def test_boxes_lie_inside_their_images(demo):
    for name in listed(demo, 'trainval') + listed(demo, 'test'):
        height, width = read_image(demo, name).shape[:2]
        objects = read_objects(demo, name)
        assert 1 <= len(objects) <= 4
        for _, (xmin, ymin, xmax, ymax) in objects:
            assert 1 <= xmin < xmax <= width
            assert 1 <= ymin < ymax <= height
            assert min(xmax - xmin, ymax - ymin) >= 8
        size = ElementTree.parse(demo / 'Annotations' / f'{name}.xml').find('size')
        assert [size.findtext(key) for key in ('width', 'height', 'depth')] == [
            str(width),
            str(height),
            '3',
        ]


@pytest.mark.parametrize('kind', ['ball', 'crate', 'cone', 'star', 'ring'])
def test_box_is_tight_around_the_drawn_shape(tool, kind):
    def scene(*things):
        return tool.Scene(
            size=(160, 120),
            background=np.zeros((152, 192, 3), np.float32),
            things=things,
            camera=(0.0, 0.0),
            light=(1.0, 0.0, 0.0),
            exposure=np.ones(3, np.float32),
            gamma=1.0,
            blur=0.0,
            noise=0.0,
        )

    # Half of the shape is beyond the right border; drawn on black, what is seen of
    # it is what is not black.
    thing = tool.Thing(kind, seed=1, x=158.0, y=60.0, radius=30.0, angle=0.2)
    rng = np.random.default_rng(0)
    assert tool.draw_frame(scene(replace(thing, x=175.0)), 0, rng) is None
    image, [(name, box)] = tool.draw_frame(scene(replace(thing, x=140.0)), 0, rng)
    rows, columns = np.nonzero(image.max(2) > 12)
    drawn = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert name == kind
    assert np.abs(np.subtract(box, drawn)).max() <= 1
    if kind in ('ball', 'ring'):
        assert box[2] == 159


def test_every_class_occurs_and_the_pool_is_imbalanced(tool, demo):
    pool = count_classes(demo, listed(demo, 'trainval'))
    test = count_classes(demo, listed(demo, 'test'))
    assert set(pool) == set(test) == set(tool.CLASSES)
    # Few clips: the plan's factor of 8 is a matter of luck at this size.
    assert pool['ball'] >= 4 * pool['ring']
    assert max(test.values()) <= 2 * min(test.values())
    stamp = json.loads((demo / 'demo.json').read_text())
    assert stamp['objects'] == {'trainval': dict(pool), 'test': dict(test)}


@pytest.mark.parametrize('seed', range(5))
def test_the_plan_is_imbalanced_at_full_size_for_any_seed(tool, seed):
    rng = np.random.default_rng(seed)
    lengths = tool.clip_lengths(rng, 400)
    assert 0.55 <= sum(lengths) / 400 <= 0.6
    plans = tool.plan_clips(rng, lengths, tool.CLIP_SHARES)
    plans += tool.plan_clips(rng, [1] * (400 - sum(lengths)), tool.SINGLE_SHARES)
    counts = Counter(kind for n, kinds in plans for kind in kinds for _ in range(n))
    assert counts['ball'] >= 8 * counts['ring'] > 0


def test_clips_are_near_duplicates_inside_the_pool(demo):
    clips = json.loads((demo / 'demo.json').read_text())['clips']
    pool = listed(demo, 'trainval')
    frames = [name for clip in clips for name in clip]
    assert len(set(frames)) == len(frames)
    assert set(frames) <= set(pool)
    assert 0.5 <= len(frames) / len(pool) <= 0.6
    assert all(4 <= len(clip) <= 8 for clip in clips)

    def thumbnail(name):
        return cv2.resize(read_image(demo, name), (16, 16)).astype(float)

    def distance(a, b):
        return np.abs(thumbnail(a) - thumbnail(b)).mean()

    inside = [distance(a, b) for clip in clips for a, b in pairwise(clip)]
    firsts = [clip[0] for clip in clips] + listed(demo, 'test')
    across = [distance(a, b) for i, a in enumerate(firsts) for b in firsts[:i]]
    assert max(inside) < min(across)
    images = contents(demo / 'JPEGImages')
    assert len(set(images.values())) == len(images)


def test_second_call_does_nothing(tool, demo, capsys):
    before = {path: path.stat().st_mtime_ns for path in demo.parent.rglob('*')}
    tool.make_demo_data(demo.parent, seed=0, n_pool=N_POOL, n_test=N_TEST)
    assert 'nothing to do' in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in demo.parent.rglob('*')}
    assert after == before


def test_other_parameters_in_the_same_folder_are_refused(tool, demo):
    before = contents(demo)
    with pytest.raises(FileExistsError, match='seed is 0, asked for 1.*--out'):
        tool.make_demo_data(demo.parent, seed=1, n_pool=N_POOL, n_test=N_TEST)
    with pytest.raises(SystemExit, match='pool is 40, asked for 400.*--out'):
        tool.main(['--out', str(demo.parent)])
    assert contents(demo) == before


def test_a_folder_of_something_else_is_left_alone(tool, tmp_path):
    (tmp_path / 'VOCdemo').mkdir()
    (tmp_path / 'VOCdemo' / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='is not a demo set'):
        tool.make_demo_data(tmp_path, n_pool=16, n_test=4)
    assert contents(tmp_path) == {'VOCdemo/mine.txt': b'mine'}


def test_a_failure_leaves_no_half_written_set(tool, tmp_path, monkeypatch):
    def full_disk(*arguments):
        raise OSError('no space left')

    monkeypatch.setattr(tool.cv2, 'imwrite', full_disk)
    with pytest.raises(OSError, match='no space left'):
        tool.make_demo_data(tmp_path / 'data', n_pool=16, n_test=4)
    assert list((tmp_path / 'data').iterdir()) == []


def test_too_few_images_are_refused(tool, tmp_path):
    with pytest.raises(ValueError, match='--pool must be 16 or more, got 3'):
        tool.make_demo_data(tmp_path, n_pool=3, n_test=4)
