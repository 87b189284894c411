"""COCO's JSON as annotation tools export it."""

import copy
import json

import pytest
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

from tjls_mm.annotation import Box, CocoJson

CONTENT = {
    'images': [
        {'id': 0, 'file_name': f'../a/images/{NAMES[0]}', 'width': 200, 'height': 120},
        {'id': 1, 'file_name': NAMES[1], 'width': 120, 'height': 200},
    ],
    # Roboflow's first category is a dummy; Label Studio's ids begin at 0.
    'categories': [{'id': 0, 'name': 'objects'}, {'id': 3, 'name': 'helmet'}],
    'annotations': [
        {'id': 0, 'image_id': 0, 'category_id': 3, 'bbox': [20.5, 24.6, 60.25, 48]}
    ],
}


def changed(**changes):
    """The delivery with changes of its first image and annotation."""
    content = copy.deepcopy(CONTENT)
    for key, value in changes.items():
        where = 'images' if key in content['images'][0] else 'annotations'
        content[where][0][key] = value
    return content


def read_coco(tmp_path, content, **rules):
    return read(CocoJson(**rules), deliver(tmp_path / 'instances.json', content))


def test_boxes_are_floats_and_pixels_begin_at_0(tmp_path):
    delivery = read_coco(tmp_path, CONTENT)
    assert sides(delivery, FIRST) == [('helmet', 20.5, 24.6, 80.75, 72.6)]
    assert delivery.unanswered == [THIRD]


@pytest.mark.parametrize('rule', ['error', 'nothing', 'unanswered'])
def test_somebody_says_what_no_boxes_means(tmp_path, rule):
    delivery = read_coco(tmp_path, CONTENT, no_boxes=rule)
    assert (delivery.answers.get(SECOND) == ()) == (rule == 'nothing')
    assert (SECOND in delivery.unanswered) == (rule == 'unanswered')
    assert (SECOND in delivery.refused) == (rule == 'error')
    if rule == 'error':
        assert "no_boxes='nothing'" in told(delivery)


def test_an_image_that_is_listed_for_each_annotator(tmp_path):
    content = changed()
    content['images'].append({**content['images'][0], 'id': 2})
    twice = read_coco(tmp_path, content, no_boxes='nothing')
    assert FIRST in twice.refused and '2 answers that differ' in told(twice)
    content['annotations'].append({**content['annotations'][0], 'image_id': 2})
    assert FIRST in read_coco(tmp_path, content, no_boxes='nothing').answers


def test_cvat_rotates_about_the_middle(tmp_path):
    content = changed(bbox=[40, 40, 40, 20])
    content['annotations'][0]['attributes'] = {'rotation': 90.0, 'occluded': False}
    delivery = read_coco(tmp_path, content)
    assert sides(delivery, FIRST) == [('helmet', 50, 30, 70, 70)]
    content['annotations'][0]['attributes']['rotation'] = 45
    assert 'rotated' in told(read_coco(tmp_path, content))
    content['annotations'][0]['attributes']['rotation'] = 0
    assert sides(read_coco(tmp_path, content), FIRST) == [('helmet', 40, 40, 80, 60)]


def test_crowds_are_ignored_and_masks_need_a_box(tmp_path):
    crowd = changed()
    crowd['annotations'][0]['iscrowd'] = 1
    assert read_coco(tmp_path, crowd).answers[FIRST][0].ignore
    mask = changed(bbox=None)
    mask['annotations'][0]['segmentation'] = [[1, 1, 9, 1, 9, 9]]
    assert '1 x segmentation without bbox' in told(read_coco(tmp_path, mask))


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'width': 640, 'height': 640}, '640 x 640 pixels there'),
        ({'width': 120, 'height': 200}, 'EXIF'),
        ({'category_id': 0}, "class 'objects' is unknown"),
        ({'category_id': 9}, 'of no category'),
        ({'category_id': None}, 'of no category'),
        ({'image_id': 7}, 'of no image'),
        ({'bbox': [1, 2, 3]}, "'bbox' is a list of 3"),
        ({'bbox': [20, 24, 0, 48]}, 'less than a pixel'),
        ({'bbox': [20, 24, 1e308, 1e308]}, 'leaves its image'),
        ({'file_name': 7}, 'names no image'),
    ],
)
def test_what_cannot_be_used_has_a_message(tmp_path, changes, message):
    delivery = read_coco(tmp_path, changed(**changes))
    assert message in told(delivery) and FIRST not in delivery.answers


def test_a_size_that_is_missing_is_worth_a_look(tmp_path):
    delivery = read_coco(tmp_path, changed(width=None, height=None))
    assert FIRST in delivery.answers and 'not resized' in warned(delivery)


def test_ids_that_stand_for_two_things(tmp_path):
    content = changed()
    content['images'][1]['id'] = 0
    content['categories'].append({'id': 3, 'name': 'Müll'})
    delivery = read_coco(tmp_path, content, no_boxes='nothing')
    assert 'two images have the id 0' in told(delivery)
    assert 'two categories have the id 3' in told(delivery)
    assert not {FIRST, SECOND} & set(delivery.answers)


def test_label_studio_says_less_in_coco(tmp_path):
    content = {**CONTENT, 'info': {'contributor': 'Label Studio'}}
    assert "Export 'JSON'" in warned(read_coco(tmp_path, content))


def test_what_is_written_is_what_cvat_and_mmdet_want(tmp_path):
    boxes = {FIRST: [Box('Müll', (20.5, 24.6, 80.75, 72.6), 0.91)]}
    (path,) = CocoJson().write(tmp_path, IMAGES, boxes, CLASSES)
    content = json.loads(path.read_text())
    assert [one['id'] for one in content['images']] == [1, 2, 3]
    assert [one['id'] for one in content['categories']] == [1, 2, 3]
    (written,) = content['annotations']
    area = written['bbox'][2] * written['bbox'][3]
    assert written['area'] == area and written['score'] == 0.91
    assert (written['category_id'], written['segmentation']) == (3, [])
