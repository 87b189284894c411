"""CVAT's XML as it is exported."""

import json
import zipfile

import pytest
from defusedxml import ElementTree
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

from tjls_mm.annotation import Box, Cvat
from tjls_mm.errors import InputError

BOX = '<box label="helmet" xtl="40" ytl="40" xbr="80" ybr="60" {}/>'


def document(first: str = '', second: str = '', meta: str = '') -> str:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta>{meta}</meta>
<image id="0" name="a b/{NAMES[0]}" subset="t" width="200" height="120">{first}</image>
<image id="1" name="{NAMES[1]}" width="120" height="200">{second}</image>
</annotations>"""


def read_cvat(tmp_path, *parts, **rules):
    return read(Cvat(**rules), deliver(tmp_path / 'annotations.xml', document(*parts)))


@pytest.mark.parametrize('meta', ['task', 'project', 'job'])
def test_boxes_and_the_tag_for_nothing(tmp_path, meta):
    tag = '<tag label="no_objects" source="manual"></tag>'
    owner = f'<{meta}><owner><email>me@example.com</email></owner></{meta}>'
    delivery = read_cvat(tmp_path, BOX.format(''), tag, owner)
    assert sides(delivery, FIRST) == [('helmet', 40, 40, 80, 60)]
    assert delivery.answers[SECOND] == () and delivery.unanswered == [THIRD]
    assert 'example.com' not in str(delivery)


def test_a_frame_without_anything_was_looked_at_or_not(tmp_path):
    delivery = read_cvat(tmp_path, BOX.format(''))
    assert delivery.refused == [SECOND] and 'no_boxes' in told(delivery)
    delivery = read_cvat(tmp_path, BOX.format(''), no_boxes='unanswered')
    assert delivery.unanswered == [SECOND, THIRD] and not delivery.problems


def test_nothing_and_boxes_contradict(tmp_path):
    both = BOX.format('') + '<tag label="no_objects"/>'
    assert "says 'nothing there' and has 1" in told(read_cvat(tmp_path, both, '<box/>'))


def test_other_tags(tmp_path):
    tag = '<tag label="blurred"/>'
    delivery = read_cvat(tmp_path, BOX.format('') + tag, tag, no_boxes='nothing')
    assert FIRST in delivery.answers and 'blurred' in warned(delivery)
    assert delivery.refused == [SECOND]


def test_rotation_is_about_the_middle(tmp_path):
    right = read_cvat(tmp_path, BOX.format('rotation="90.0"'), no_boxes='unanswered')
    assert sides(right, FIRST) == [('helmet', 50, 30, 70, 70)]
    tilted = BOX.format('rotation="30.00"')
    refused = read_cvat(tmp_path, tilted, no_boxes='unanswered')
    assert refused.refused == [FIRST] and '1 x rotated box' in told(refused)
    rules = {'rotated': 'envelope', 'no_boxes': 'unanswered'}
    envelope = read_cvat(tmp_path, tilted, **rules)
    assert sides(envelope, FIRST) == [('helmet', 37.68, 31.34, 82.32, 68.66)]


@pytest.mark.parametrize('kind', ['mask', 'points', 'polyline', 'ellipse', 'cuboid'])
def test_other_shapes_are_never_no_boxes(tmp_path, kind):
    shape = f'<{kind} label="helmet" points="1,1;9,9"/>'
    delivery = read_cvat(tmp_path, shape, BOX.format(''), no_boxes='nothing')
    assert delivery.refused == [FIRST] and f'1 x {kind}' in told(delivery)


def test_polygons(tmp_path):
    polygon = '<polygon label="helmet" points="10,10;50.5,12;30,60"/>'
    assert '1 x polygon' in told(read_cvat(tmp_path, polygon, BOX.format('')))
    delivery = read_cvat(tmp_path, polygon, BOX.format(''), shapes='envelope')
    assert sides(delivery, FIRST) == [('helmet', 10, 10, 50.5, 60)]
    broken = polygon.replace('50.5,12', '50.5')
    assert 'broken' in told(read_cvat(tmp_path, broken, shapes='envelope'))


@pytest.mark.parametrize(
    'text, message',
    [
        (document('<box label="Helm" xtl="1" ytl="1" xbr="9" ybr="9"/>'), "'Helm' is"),
        (document('<box label="helmet" xtl="1"/>'), 'four numbers'),
        (document('<box xtl="1" ytl="1" xbr="9" ybr="9"/>'), 'no class'),
        (document(BOX.format('')).replace('"200"', '"640"', 1), '640'),
        (document().replace('</annotations>', '<track/></annotations>'), 'video'),
        (document().replace('name=', 'title='), 'names no image'),
        ('<annotation/>', 'expected <annotations>'),
        ('<annotations>', 'is no XML'),
        ('<annotations/>', 'says nothing'),
    ],
)
def test_what_cannot_be_used_has_a_message(tmp_path, text, message):
    delivery = read(Cvat(), deliver(tmp_path / 'annotations.xml', text))
    assert message in told(delivery) and FIRST not in delivery.answers


def test_a_zip_of_an_export(tmp_path):
    with zipfile.ZipFile(tmp_path / 'export.zip', 'w') as file:
        file.writestr('annotations.xml', document(BOX.format('')))
        file.writestr(f'images/{NAMES[0]}', b'')
    delivery = read(Cvat(no_boxes='unanswered'), tmp_path / 'export.zip')
    assert list(delivery.answers) == [FIRST]


def test_what_is_written(tmp_path):
    boxes = {FIRST: [Box('head & neck', (20.5, 24.6, 80.75, 72.6), 0.91)]}
    labels, document = Cvat().write(tmp_path, IMAGES, boxes, CLASSES)
    assert [one['type'] for one in json.loads(labels.read_text())] == [
        *['rectangle'] * 3,
        'tag',
    ]
    root = ElementTree.parse(document).getroot()
    # CVAT drops attributes of labels that do not declare them.
    declared = root.findall('meta/task/labels/label/attributes/attribute/name')
    assert [one.text for one in declared] == ['score'] * 3
    (box,) = root.iter('box')
    assert (box.get('label'), box.get('xtl')) == ('head & neck', '20.50')
    assert box.findtext('attribute') == '0.91'
    assert [one.get('name') for one in root.iter('image')] == NAMES
    with pytest.raises(InputError, match='no_objects'):
        Cvat().write(tmp_path, IMAGES, {}, ['no_objects'])
