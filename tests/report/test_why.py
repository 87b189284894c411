"""Why images were chosen: by hand, and against the plain way to compute it."""

import csv

import numpy as np
import pytest
from PIL import Image, ImageOps

from tjls_mm.outputs import Boxes, Outputs
from tjls_mm.query.selection import check_selection, read_picked, write_selection
from tjls_mm.query.strategy import Selection
from tjls_mm.report import nearest as nearest_module
from tjls_mm.report.classes import (
    classes_in_words,
    draw_classes,
    expect_classes,
    gained_class,
)
from tjls_mm.report.control import (
    add_labels,
    class_entropy,
    control_in_words,
    control_warning,
    describe_groups,
    mean_loss,
    no_better,
)
from tjls_mm.report.gallery import draw_gallery
from tjls_mm.report.nearest import (
    hash_duplicates,
    image_feature,
    measure_nearness,
    near_distance,
    nearest,
    thumbnail,
)
from tjls_mm.report.picks import Explanation, explain_picks
from tjls_mm.report.stage_line import stage_line, stage_warnings


def cosine_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (a.astype(np.float64) for a in (x, y))
    lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    return 1 - x @ y.T / lengths


@pytest.mark.parametrize('block', [3, 4096])
def test_the_nearest_is_that_of_all_pairs(block, monkeypatch):
    monkeypatch.setattr(nearest_module, 'BLOCK', block)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 5)), rng.normal(size=(11, 5)).astype(np.float16)
    y[4] = y[9] = np.float16([1, 2, 3, 4, 5])
    x[2] = 7 * y[4].astype(float)
    every = cosine_distances(x, y)
    rows, distance = nearest(x, y)
    assert rows.tolist() == every.round(6).argmin(1).tolist()
    assert rows[2] == 4 and distance[2] == 0  # the first of equals, whatever its size
    assert distance == pytest.approx(every.min(1), abs=2e-6)
    among = cosine_distances(x, x)
    np.fill_diagonal(among, np.inf)
    rows, distance = nearest(x, x, same=True)
    assert rows.tolist() == among.argmin(1).tolist()
    assert distance == pytest.approx(among.min(1), abs=2e-6)


def test_there_may_be_nothing_to_be_near_to():
    x = np.ones((1, 3), np.float32)
    for y, same in ((np.zeros((0, 3), np.float32), False), (x, True)):
        rows, distance = nearest(x, y, same)
        assert rows.tolist() == [-1] and np.isnan(distance).all()
    assert near_distance(x) == 0
    # Right angles throughout: every pair is at 1.
    assert near_distance(np.eye(4)) == pytest.approx(0.15)


def outputs(ids, **arrays) -> Outputs:
    return Outputs.from_arrays(ids, arrays)


def test_features_are_the_ones_that_there_are_of_both():
    two, flat = np.ones((1, 2)), np.ones(1)
    both = dict(feature=two, pretrained_feature=two)
    assert image_feature(outputs(['a'], **both), outputs(['b'], **both)) == (
        'pretrained_feature'
    )
    own = outputs(['b'], feature=two)
    assert image_feature(outputs(['a'], **both), own) == 'feature'
    assert image_feature(outputs(['a']), own) is None
    assert image_feature(outputs(['a'], feature=flat), own) is None


@pytest.mark.parametrize('name', ['feature', 'pretrained_feature'])
def test_copies_of_labelled_images_and_of_picks_are_near_duplicates(name):
    rng = np.random.default_rng(1)
    pool, known = rng.normal(size=(40, 16)), rng.normal(size=(5, 16))
    pool[3], pool[7] = 2 * known[4], 3 * pool[1]
    pool[9] = pool[8] + 0.1 * rng.normal(size=16)
    ids = [f'p{i:02d}' for i in range(40)], [f'l{i}' for i in range(5)]
    arrays = (outputs(i, **{name: f}) for i, f in zip(ids, (pool, known), strict=True))
    found = measure_nearness(*arrays, np.array([3, 1, 7, 8, 9, 20]), seed=0)
    assert found.labelled[0] == 4 and found.distance[0] == 0
    # Features of a learner that tells little apart: only what is usually not so near.
    alike = name == 'pretrained_feature'
    assert found.duplicates.tolist() == [True, True, True, alike, alike, False]
    assert found.near == pytest.approx(0.15 if alike else 0, abs=0.05)
    assert found.usual == (5 if alike else 3) / 40


def photo(seed: int, size=(120, 80)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def test_thumbnails_tell_copies_from_others_and_plain_ones_are_no_copies():
    first = photo(0)
    smaller = first.resize((60, 40))
    shades = [Image.new('RGB', (9, 8), (grey,) * 3) for grey in (0, 100, 102)]
    images = [first, photo(1), smaller, ImageOps.mirror(first), *shades]
    found = hash_duplicates([thumbnail(image) for image in images])
    # Without any edge all bits are equal; only two of the three are alike.
    assert found.tolist() == [True, False, True, False, False, True, True]
    assert hash_duplicates([]).shape == (0,)
    assert hash_duplicates([thumbnail(first)]).tolist() == [False]


def some_boxes() -> Boxes:
    """Of three images: cat .9, dog .5; nothing; dog .8 and a cat that hardly counts."""
    score = np.float32([0.9, 0.5, 0.8, 0.01])
    label = np.int32([0, 1, 1, 0])
    sides = np.zeros((4, 4), np.float32)
    return Boxes(
        np.array([0, 2, 2, 4]), sides, score, label, np.zeros((4, 3), np.float32)
    )


def test_boxes_and_probabilities_say_what_is_expected():
    pool = outputs(['a', 'b', 'c'], boxes=some_boxes())
    found = expect_classes(pool, np.array([2, 1]), 3)
    assert found.picks == pytest.approx(np.array([[0, 0.8, 0], [0, 0, 0]]))
    assert found.mean == pytest.approx(np.array([0.9, 1.3, 0]) / 3)
    assert found.boxes == pytest.approx([1.4, 0, 0.8])
    nothing = replaced(np.array([0, 0]))
    found = expect_classes(outputs(['a'], boxes=nothing), np.array([0]), 3)
    assert not found.picks.any() and not found.mean.any()
    probability = np.float32([[0.7, 0.3], [0.2, 0.8]])
    found = expect_classes(outputs(['a', 'b'], probability=probability), [1], 2)
    assert found.picks == pytest.approx(np.array([[0.2, 0.8]]))
    assert found.mean == pytest.approx([0.45, 0.55]) and found.boxes is None
    assert expect_classes(outputs(['a'], feature=np.ones((1, 2))), [0], 2) is None


def replaced(offsets: np.ndarray) -> Boxes:
    none = np.zeros(0, np.float32)
    return Boxes(
        offsets, none.reshape(0, 4), none, none.astype(int), none.reshape(0, 3)
    )


def test_the_class_that_gained_is_said_in_few_words():
    assert gained_class({'a': 3, 'b': 1}, {'a': 1, 'b': 1}) == ('a', 0.75, 0.5)
    assert gained_class({'a': 0}, {'a': 1}) is None
    assert gained_class({'a': 1}, {}) is None
    expected = dict(expected={'a': 3.0, 'b': 1.0}, pool_expectation={'a': 2.0, 'b': 2})
    # Counted in one way: what is expected is not held against what is labelled.
    record = dict(picks=dict(expected, images={'b': 4}), labelled_images={'a': 4})
    assert classes_in_words(record) == "picks gain 'a': 75%, pool 50%"
    record['picks'] = dict(images={'a': 1, 'b': 1})
    record['labelled_images'] = {'a': 3, 'b': 1}
    assert classes_in_words(record) == "picks gain 'b': 50%, labelled 25%"
    record['labelled_images'] = {'a': 1, 'b': 1}
    assert classes_in_words(record) == ''
    assert classes_in_words({}) == ''


def test_a_picture_of_classes_is_drawn_where_something_is_known(tmp_path):
    path = tmp_path / 'picks.png'
    assert not draw_classes(path, {}, 'boxes') and not path.exists()
    picks = dict(expected={'a': 1.5}, pool_expectation={'a': 2.5})
    assert draw_classes(path, picks, 'boxes')
    before = Image.open(path).convert('RGB').tobytes()
    assert draw_classes(path, picks, 'boxes')
    assert Image.open(path).convert('RGB').tobytes() == before
    assert draw_classes(path, dict(picks, boxes={'a': 9}), 'boxes')
    assert Image.open(path).convert('RGB').tobytes() != before
    many = {f'class $_$ {i}': i for i in range(200)}
    assert draw_classes(path, dict(images=many), 'images')
    assert Image.open(path).width < 1500


def test_entropies_are_compared_at_equal_numbers_of_labels():
    assert class_entropy([4, 4], 8) == 1 and class_entropy([8, 0], 8) == 0
    # Two of {a, a, b, b}: another class in 4 of 6 cases, which is one bit.
    assert class_entropy([2, 2], 2) == pytest.approx(2 / 3, abs=1e-6)
    rng, counts = np.random.default_rng(0), [9, 5, 1, 0]
    labels, drawn = np.repeat(np.arange(4), counts), []
    for _ in range(4000):
        p = np.bincount(rng.choice(labels, 6, replace=False), minlength=4) / 6
        drawn.append(-(p[p > 0] * np.log2(p[p > 0])).sum())
    assert class_entropy(counts, 6) == pytest.approx(np.mean(drawn), abs=0.02)


def compared() -> dict:
    columns = {
        'mean_score': np.array([3.0, 1.0, np.nan, 2.0]),
        'nearest_distance': np.full(4, np.nan),
    }
    groups = describe_groups(np.array([0, 1, 0, 1]), columns)
    assert groups['chosen'] == dict(images=2, mean_score=3.0)
    assert groups['control'] == dict(images=2, mean_score=1.5)
    labels = {
        'chosen': dict(answered=2, counts=dict(images={}, boxes={'a': 6, 'b': 0})),
        'control': dict(answered=1, counts=dict(images={}, boxes={'a': 1, 'b': 1})),
    }
    return add_labels(groups, labels)


def test_chosen_and_control_are_told_apart():
    found = compared()
    assert found['chosen'] == dict(
        images=2, mean_score=3.0, answered=2, boxes=3.0, class_entropy=0.0
    )
    assert found['control']['boxes'] == 2 and found['control']['class_entropy'] == 1
    assert no_better(found)
    assert control_in_words(found) == 'chosen 3.0 boxes, 0.0 bits; control 2.0, 1.0'
    # An answer that is asked for again takes the place of the first.
    nothing = dict(answered=0, counts=dict(images={}, boxes={'a': 0, 'b': 0}))
    again = add_labels(found, dict(chosen=nothing, control=nothing))
    assert again['chosen'] == dict(images=2, mean_score=3.0, answered=0)
    found['chosen']['nearest_distance'] = 0.4
    assert no_better(found)  # it is not known of the control
    found['control']['nearest_distance'] = 0.3
    assert not no_better(found)  # it is ahead in something


def test_where_nothing_can_be_compared_nothing_is_said():
    counts = dict(images={'a': 0, 'b': 0})
    empty = dict(answered=0, counts=counts)
    full = dict(answered=3, counts=dict(images={'a': 3, 'b': 0}), loss=0.5)
    found = add_labels(
        describe_groups(np.ones(3), {}), dict(chosen=empty, control=full)
    )
    assert found['chosen'] == dict(images=0, answered=0)
    assert not no_better(found) and control_in_words(found) == ''
    # One class alone has no entropy, and that is no verdict.
    one = dict(answered=1, counts=dict(images={'a': 1}))
    found = add_labels(
        describe_groups(np.array([0, 1]), {}), dict.fromkeys(('chosen', 'control'), one)
    )
    assert not no_better(found) and control_in_words(found) == ''


def test_two_stages_without_an_advantage_are_warned_of():
    found = compared()
    assert control_warning(dict(found, stages_no_better=1)) is None
    text = control_warning(dict(found, stages_no_better=2))
    assert text == (
        'for 2 stages what was chosen was no better than the control (bits of classes '
        '0.00, control 1.00)'
    )
    record = dict(n_labelled=4, metrics={'mAP': 0.5})
    record['picks'] = dict(
        near_duplicates=dict(share=0.125), control=dict(found, stages_no_better=2)
    )
    assert stage_line(1, 4, record) == (
        'stage 2/4 | 4 labelled | mAP 0.5000 | 12.5% near-duplicates | '
        f'chosen 3.0 boxes, 0.0 bits; control 2.0, 1.0 | WARNING: {text}'
    )
    record['picks'] = dict(near_duplicates=dict(share=0.5, pool_by_feature=0.02))
    assert stage_line(1, 4, record).endswith('| 50.0% near-duplicates (pool 2.0%)')
    record['picks'] = dict(note='Random: a flat score')
    assert stage_line(1, 4, record).endswith('| Random: a flat score')
    record['picks'] = dict(near_duplicates=dict(share=0.0), control={})
    assert stage_line(1, 4, record) == 'stage 2/4 | 4 labelled | mAP 0.5000'
    assert stage_warnings(record) == []


def test_the_loss_is_that_of_the_labels():
    pool = outputs(
        ['a', 'b', 'c'], probability=np.float32([[1, 0], [0.5, 0.5], [0, 1]])
    )
    assert mean_loss(pool, ['b', 'a'], np.array([[0, 1], [1, 0]])) == pytest.approx(
        np.log(2) / 2, abs=1e-6
    )
    assert np.isfinite(mean_loss(pool, ['c'], np.array([[1, 0]])))


ODD = ['a, b', 'c "d"', 'e', 'f,"g",']


def test_texts_of_picks_are_safe_and_the_other_columns_are_as_before(tmp_path):
    pool = outputs(ODD, logit=np.float32([0.1, 1 / 3, -2, 4]))
    columns = {'score': np.array([1, np.nan, 2.5, 1e-9])}
    plain, full = tmp_path / 'plain.csv', tmp_path / 'full.csv'
    write_selection(plain, pool, [3, 1], columns)
    texts = {'nearest_labelled': ['x, "y"', 'z'], 'predicted_class': ['', 'two\nlines']}
    write_selection(full, pool, [3, 1], columns, texts)
    with open(plain, newline='') as one, open(full, newline='') as two:
        before, after = list(csv.reader(one)), list(csv.reader(two))
    assert [row[:4] for row in after] == before
    assert [row[4:] for row in after[1:]] == [
        ['x, "y"', ''],
        ['z', 'two\nlines'],
        ['', ''],
        ['', ''],
    ]
    # To the byte: what is added stands at the end of a line.
    last = full.read_text().splitlines()[-1]
    assert last == plain.read_text().splitlines()[-1] + ',,'
    assert read_picked(full, 'nearest_labelled') == {'f,"g",': 'x, "y"', 'c "d"': 'z'}
    assert read_picked(full, 'control') == {}
    assert read_picked(tmp_path / 'none.csv', 'rank') == {}


def explained(**changed) -> Explanation:
    rng = np.random.default_rng(2)
    settings = dict(
        pool=outputs(ODD[:3], boxes=some_boxes(), feature=rng.normal(size=(3, 4))),
        labelled=outputs(['k, l', 'm'], feature=rng.normal(size=(2, 4))),
        selection=Selection(
            np.array([2, 0]), {'score': np.arange(3.0), 'control': np.array([1, 0, 0])}
        ),
        classes=('cat', 'dog', 'cow'),
        thumbnails=[thumbnail(photo(0)), thumbnail(photo(0))],
        seed=0,
    )
    return explain_picks(**{**settings, **changed})


def test_an_explanation_puts_everything_together():
    found = explained()
    assert list(found.columns) == ['expected_boxes', 'nearest_distance']
    assert np.isnan(found.columns['nearest_distance'][1])
    assert found.texts['predicted_class'] == ['dog', 'cat']
    assert set(found.texts['nearest_labelled']) <= {'k, l', 'm'}
    record = found.record
    assert (
        record['near_duplicates']['share'] == record['near_duplicates']['by_hash'] == 1
    )
    assert record['near_duplicates']['feature'] == 'feature'
    assert record['expected'] == {'cat': 0.9, 'dog': 1.3, 'cow': 0.0}
    assert record['pool_expectation'] == pytest.approx(
        {'cat': 0.6, 'dog': 2.6 / 3, 'cow': 0}, abs=1e-4
    )
    control = record['control']
    assert control['control']['expected_boxes'] == pytest.approx(1.4)
    assert control['chosen']['mean_score'] == 2 and control['chosen']['images'] == 1
    lines = found.captions['e'].split('\n')
    assert lines[0] == 'score 2' and lines[2] == 'near-duplicate'
    assert lines[1].endswith(found.texts['nearest_labelled'][0])
    assert repr(explained()) == repr(found)


def test_little_is_known_of_bare_rows_and_a_strategys_columns_stay_its_own():
    bare = outputs(ODD)
    rows = Selection(np.array([1]))
    found = explained(pool=bare, labelled=outputs([]), selection=rows, thumbnails=[])
    assert found == Explanation()
    one = explained(
        pool=bare,
        labelled=outputs([]),
        selection=rows,
        thumbnails=[thumbnail(photo(1))],
    )
    assert one.record == {'near_duplicates': dict(share=0.0, by_hash=0.0, hashed=1)}
    said = check_selection(Selection([1], note='as drawn'), 4, 1, 'mine')
    assert explained(pool=bare, selection=said, thumbnails=[]).record == dict(
        note='as drawn'
    )
    own = {name: np.zeros(3) for name in ('expected_boxes', 'nearest_labelled')}
    found = explained(selection=Selection(np.array([0]), own), thumbnails=[])
    assert 'expected_boxes' not in found.columns
    assert 'nearest_labelled' not in found.texts
    assert 'by_hash' not in found.record['near_duplicates']


def test_a_gallery_has_room_for_all_lines(tmp_path):
    white = Image.new('RGB', (40, 20), 'white')
    path = tmp_path / 'gallery.png'
    captions = {'a': 'score 1\n0.03 to b\nnear-duplicate', 'c': 'control'}
    draw_gallery(path, ['a', 'c', 'd'], lambda i: white, reasons=captions)
    drawn = np.asarray(Image.open(path).convert('L'))
    assert len(drawn) == 150 + 4 * 14
    third = drawn[150 + 3 * 14 :]
    assert (third[:, :150] < 200).any() and (third[:, 150:] == 255).all()
