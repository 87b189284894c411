"""VOC's XML as annotation tools write it."""

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

from tjls_mm.annotation import Box, PascalVoc
from tjls_mm.annotation.image_names import stem

STEMS = [stem(name) for name in NAMES]
OBJECT = """<object><name> helmet </name><difficult>{}</difficult><part><bndbox/></part>
<bndbox><ymin>24.6</ymin><xmin>20.5</xmin><xmax>80.75</xmax><ymax>72</ymax></bndbox>
</object>"""
SIZE = '<size><width>200</width><height>120</height><depth>3</depth></size>'


def document(*objects: str, name: str = NAMES[0], size: str = SIZE, more='') -> str:
    entries = ''.join(objects)
    head = f'<folder>x</folder><filename>{name}</filename>'
    return f'<annotation>{head}{size}{more}{entries}</annotation>'


def read_voc(tmp_path, *texts, **rules):
    for name, text in zip(STEMS, texts):  # noqa: B905  fewer are allowed
        deliver(tmp_path / 'voc' / 'Annotations' / f'{name}.xml', text)
    return read(PascalVoc(**rules), tmp_path / 'voc')


def test_floats_and_difficult_objects(tmp_path):
    delivery = read_voc(tmp_path, document(OBJECT.format(0), OBJECT.format(1)))
    plain, difficult = delivery.answers[FIRST]
    assert plain.bbox == (20.5, 24.6, 80.75, 72)
    assert difficult.ignore and not plain.ignore
    assert delivery.unanswered == [SECOND, THIRD]


def test_the_first_pixel_is_0_or_1(tmp_path):
    # VOC's own box from 1 to 1 is a pixel.
    delivery = read_voc(tmp_path, document(OBJECT.format(0)), origin=1)
    assert sides(delivery, FIRST) == [('helmet', 19.5, 23.6, 80.75, 72)]


@pytest.mark.parametrize('rule', ['error', 'nothing', 'unanswered'])
def test_a_file_without_objects(tmp_path, rule):
    delivery = read_voc(tmp_path, document(), no_boxes=rule)
    assert (delivery.answers.get(FIRST) == ()) == (rule == 'nothing')
    assert (FIRST in delivery.unanswered) == (rule == 'unanswered')


def test_label_studio_writes_no_objects_where_it_drops_polygons(tmp_path):
    owner = '<owner><name>Label Studio</name></owner>'
    delivery = read_voc(tmp_path, document(more=owner), no_boxes='nothing')
    assert delivery.refused == [FIRST] and 'JSON' in told(delivery)
    cut = read_voc(tmp_path, document(OBJECT.format(0), more=owner))
    assert FIRST in cut.answers and 'whole pixels' in warned(cut)


def test_renamed_files_and_one_that_names_another_image(tmp_path):
    name = f'cda5fed7__{STEMS[0]}.xml'
    deliver(tmp_path / 'voc' / name, document(OBJECT.format(0), name='1.jpg'))
    assert FIRST in read(PascalVoc(), tmp_path / 'voc').answers
    delivery = read_voc(tmp_path, document(OBJECT.format(0), name=NAMES[1]))
    assert delivery.refused == [FIRST] and NAMES[1] in told(delivery)


@pytest.mark.parametrize(
    'text, message',
    [
        (document(OBJECT.format(0), size=SIZE.replace('200', '400')), '400 x 120'),
        (document(OBJECT.replace('helmet', '')), 'no class'),
        (document(OBJECT.replace('helmet', 'helmut')), "Did you mean 'helmet'?"),
        (document(OBJECT.replace('80.75', '10')), 'less than a pixel'),
        (document(OBJECT.replace('80.75', '300')), 'leaves its image'),
        (document(OBJECT.replace('80.75', '1e999')), 'four numbers'),
        (document('<object><name>helmet</name><polygon/></object>'), '1 x polygon'),
        (document('<object><robndbox/></object>'), '1 x rotated box'),
        ('<annotations/>', 'expected <annotation>'),
        ('annotation', 'is no XML'),
    ],
)
def test_what_cannot_be_used_has_a_message(tmp_path, text, message):
    delivery = read_voc(tmp_path, text, no_boxes='nothing')
    assert message in told(delivery) and FIRST not in delivery.answers


def test_a_size_that_is_missing_is_worth_a_look(tmp_path):
    delivery = read_voc(tmp_path, document(OBJECT.format(0), size=''))
    assert FIRST in delivery.answers and 'not resized' in warned(delivery)


def test_only_images_with_suggestions_get_files(tmp_path):
    boxes = {FIRST: [Box('Müll', (20.5, 24.6, 80.75, 72.6), 0.9)], SECOND: []}
    (path,) = PascalVoc().write(tmp_path, IMAGES, boxes, CLASSES)
    assert path == tmp_path / 'Annotations' / f'{STEMS[0]}.xml'
    root = ElementTree.parse(path).getroot()
    assert root.findtext('filename') == NAMES[0]
    # Whole numbers: many tools read nothing else.
    written = [root.findtext(f'object/bndbox/{side}') for side in ('xmin', 'xmax')]
    assert written == ['20', '81']
