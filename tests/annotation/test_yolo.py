"""YOLO's text files as tools write them."""

import pytest
import yaml
from deliveries import (
    CLASSES,
    FIRST,
    IMAGES,
    NAMES,
    SECOND,
    THIRD,
    deliver,
    read,
    sides,
    told,
    warned,
)

from tjls_mm.annotation import Box, Yolo
from tjls_mm.annotation.image_names import stem

STEMS = [stem(name) for name in NAMES]
BOX = '1 0.25 0.5 0.1 0.2\n'
POLYGON = '1 0.1 0.1 0.5 0.1 0.3 0.5\n'


def read_yolo(tmp_path, first=BOX, second='', names='a: b', classes=None, **rules):
    folder = tmp_path / 'yolo'
    deliver(folder / 'labels' / 'train' / f'{STEMS[0]}.txt', first)
    deliver(folder / 'labels' / 'train' / f'{STEMS[1]}.txt', second)
    deliver(folder / 'train.txt', 'data/images/x.jpg\n')
    if classes is None:
        deliver(folder / 'data.yaml', names)
    else:
        deliver(folder / 'classes.txt', classes)
    return read(Yolo(**{'no_boxes': 'nothing', **rules}), folder)


@pytest.mark.parametrize(
    'names', ['names: [x, helmet]', 'names:\n  1: helmet\n  0: "no"\nnc: 2']
)
def test_numbers_mean_what_the_list_says(tmp_path, names):
    delivery = read_yolo(tmp_path, names=names)
    assert sides(delivery, FIRST) == [('helmet', 40, 48, 60, 72)]
    assert delivery.answers[SECOND] == () and delivery.unanswered == [THIRD]


def test_classes_txt(tmp_path):
    delivery = read_yolo(tmp_path, classes='Müll\r\nhelmet\r\n')
    assert [box.name for box in delivery.answers[FIRST]] == ['helmet']


def test_without_a_list_numbers_mean_nothing(tmp_path):
    path = deliver(tmp_path / 'labels' / f'{STEMS[0]}.txt', BOX).parent
    delivery = read(Yolo(), path)
    assert not delivery.answers and 'the numbers have no names' in told(delivery)


def test_two_lists_that_differ(tmp_path):
    deliver(tmp_path / 'yolo' / 'classes.txt', 'helmet\nMüll\n')
    delivery = read_yolo(tmp_path, names='names: [Müll, helmet]')
    assert not delivery.answers and 'other classes than' in told(delivery)


@pytest.mark.parametrize(
    'names, message',
    [
        ('names: [no, helmet]', "a bool in 'names'"),
        ('names: helmet', "no 'names'"),
        ('names: {a: helmet}', "no 'names'"),
        ('- helmet', "no 'names'"),
        ('names: [', 'is no YAML'),
        ('names: !!python/object:os.system [x]', 'is no YAML'),
        ('kpt_shape: [17, 3]\nnames: [a, helmet]', 'key points'),
        # Nine such lines of nine references each would fill the memory.
        ('a: &a {x: y}\nb: {<<: [*a, *a]}\nnames: [a, helmet]', 'is no YAML'),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, names, message):
    delivery = read_yolo(tmp_path, names=names)
    assert not delivery.answers and message in told(delivery)


@pytest.mark.parametrize(
    'line, message',
    [
        ('7 0.25 0.5 0.1 0.2', "class '7' is not in the list of 2"),
        ('0 0.25 0.5 0.1 0.2', "class 'hat' is unknown"),
        ('helmet 0.25 0.5 0.1 0.2', 'expected class x y'),
        ('1 0.25 0.5 0.1', 'expected class x y'),
        ('1 40 48 60 72', 'outside its image'),
        ('1 0.25 0.5 0.9 0.2', 'leaves its image'),
        ('1 0.25 0.5 0 0', 'less than a pixel'),
        (POLYGON, '1 x polygon'),
        ('1 0.25 0.5 0.1 0.2 0.1 0.1 2', '1 x line of key points'),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, line, message):
    delivery = read_yolo(tmp_path, f'{BOX}{line}\n', names='names: [hat, helmet]')
    assert delivery.refused == [FIRST] and message in told(delivery)


def test_scores_and_polygons(tmp_path):
    names = 'names: [hat, helmet]'
    scored = read_yolo(tmp_path, f'{BOX.strip()} 0.9\n', names=names)
    assert sides(scored, FIRST) == [('helmet', 40, 48, 60, 72)]
    polygon = read_yolo(tmp_path, POLYGON, names=names, shapes='envelope')
    assert sides(polygon, FIRST) == [('helmet', 20, 12, 100, 60)]


def test_cvat_lists_frames_that_nobody_looked_at(tmp_path):
    delivery = read_yolo(tmp_path, names='names: [hat, helmet]', no_boxes='error')
    assert delivery.refused == [SECOND] and 'no_boxes' in told(delivery)


def test_roboflow_renames(tmp_path):
    name = f'{STEMS[0]}_jpg.rf.0123456789abcdef0123456789abcdef.txt'
    deliver(tmp_path / 'yolo' / 'train' / 'labels' / name, BOX)
    deliver(tmp_path / 'yolo' / 'data.yaml', 'names: [hat, helmet]')
    deliver(tmp_path / 'yolo' / 'README.roboflow.txt', 'Thank you')
    delivery = read(Yolo(), tmp_path / 'yolo')
    assert FIRST in delivery.answers and not warned(delivery)


def test_what_is_written(tmp_path):
    boxes = {FIRST: [Box('Müll', (40, 48, 60, 72), 0.9)], SECOND: []}
    paths = Yolo().write(tmp_path, IMAGES, boxes, CLASSES)
    content = yaml.safe_load(paths[0].read_text())
    assert content['names'] == dict(enumerate(CLASSES))
    assert paths[1].read_text().splitlines() == list(CLASSES)
    assert [path.stem for path in paths[2:]] == STEMS[:1]
    assert paths[2].read_text().split()[0] == '2'
