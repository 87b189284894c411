"""Label Studio's JSON as it really comes back."""

import json

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

from tjls_mm.annotation import Box, LabelStudio
from tjls_mm.errors import InputError


def region(name='helmet', x=10, y=20, width=30, height=40, **more) -> dict:
    value = {'x': x, 'y': y, 'width': width, 'height': height, 'rotation': 0}
    value = {**value, 'rectanglelabels': [name], **more.pop('value', {})}
    size = {'original_width': 200, 'original_height': 120, 'image_rotation': 0}
    return {'id': 'r', 'type': 'rectanglelabels', **size, 'value': value, **more}


def annotation(*results, **more) -> dict:
    who = {'id': 7, 'completed_by': {'email': 'somebody@example.com'}}
    return {**who, 'was_cancelled': False, 'result': list(results), **more}


def task(image_id=FIRST, *annotations, **more) -> dict:
    data = {'image': '/data/local-files/?d=x.jpg', 'image_id': image_id}
    return {'id': 15, 'data': data, 'annotations': list(annotations), **more}


def read_tasks(tmp_path, *tasks, **rules):
    return read(LabelStudio(**rules), deliver(tmp_path / 'ls.json', list(tasks)))


def test_nothing_there_skipped_and_not_yet_are_three_things(tmp_path):
    delivery = read_tasks(
        tmp_path,
        task(FIRST, annotation()),
        task(SECOND, annotation(was_cancelled=True)),
        task(THIRD, predictions=[3, 4], drafts=[{'result': [region()]}]),
    )
    assert delivery.answers == {FIRST: ()}
    assert delivery.skipped == [SECOND] and delivery.unanswered == [THIRD]
    assert not delivery.problems and 'draft' in warned(delivery)
    expected = '1 answered (1 with nothing there), 1 skipped, 1 unanswered'
    assert delivery.summary() == expected


def test_an_image_that_one_skipped_and_another_labelled_is_labelled(tmp_path):
    both = annotation(was_cancelled=True), annotation(region())
    delivery = read_tasks(tmp_path, task(FIRST, *both))
    assert sides(delivery, FIRST) == [('helmet', 20, 24, 80, 72)]


def test_several_annotators(tmp_path):
    both = task(
        FIRST,
        annotation(region(x=20), updated_at='2026-11-03T10:00:00Z'),
        annotation(region(), updated_at='2026-11-02T10:00:00Z'),
    )
    refused = read_tasks(tmp_path, both)
    assert refused.refused == [FIRST]
    assert '2 annotations' in told(refused) and 'latest' in told(refused)
    latest = read_tasks(tmp_path, both, annotators='latest')
    assert sides(latest, FIRST) == [('helmet', 40, 24, 100, 72)]
    # The same when the image was imported twice.
    halves = [{**both, 'annotations': [one]} for one in both['annotations']]
    assert read_tasks(tmp_path, *halves).refused == [FIRST]
    assert FIRST in read_tasks(tmp_path, *halves, annotators='latest').answers
    # Nobody's address leaves the delivery.
    assert 'example.com' not in told(refused) + str(latest)


@pytest.mark.parametrize(
    'degrees, expected',
    [
        # About the left upper corner, (20, 24), of a box of 60 x 48 pixels.
        (90, (0, 24, 20, 84)),
        (30, (0, 24, 71.96, 95.57)),
        (360, (20, 24, 80, 72)),
    ],
)
def test_rotated_boxes(tmp_path, degrees, expected):
    rotated = task(FIRST, annotation(region(value={'rotation': degrees})))
    rules = {'rotated': 'envelope', 'bad_boxes': 'clip'}
    delivery = read_tasks(tmp_path, rotated, **rules)
    assert sides(delivery, FIRST) == [('helmet', *expected)]
    if degrees == 30:
        refused = read_tasks(tmp_path, rotated)
        assert '1 x rotated box' in told(refused)
        assert "rotated='envelope'" in told(refused)


def test_other_shapes_are_refused_by_count_and_are_never_nothing(tmp_path):
    points = [[10, 10], [50, 10], [30, 60]]
    polygon = region(type='polygonlabels', value={'points': points})
    polygon['value'] = {'points': points, 'polygonlabels': ['helmet']}
    brush = {'type': 'brushlabels', 'value': {'rle': [1], 'brushlabels': ['helmet']}}
    shapes = task(FIRST, annotation(polygon, polygon, brush))
    refused = read_tasks(tmp_path, shapes)
    assert refused.refused == [FIRST]
    assert '2 x polygon' in told(refused) and '1 x brushlabels' in told(refused)
    alone = task(FIRST, annotation(polygon))
    envelope = read_tasks(tmp_path, alone, shapes='envelope')
    assert sides(envelope, FIRST) == [('helmet', 20, 12, 100, 72)]
    assert read_tasks(tmp_path, shapes, shapes='envelope').refused == [FIRST]


def test_tags_alone_are_not_nothing_there(tmp_path):
    tag = {'type': 'choices', 'value': {'choices': ['blurred']}}
    delivery = read_tasks(
        tmp_path, task(FIRST, annotation(tag)), task(SECOND, annotation(tag))
    )
    assert delivery.refused == [FIRST, SECOND]
    beside = read_tasks(tmp_path, task(FIRST, annotation(tag, region())))
    assert len(beside.answers[FIRST]) == 1 and 'choices' in warned(beside)


def test_relations_are_no_shapes(tmp_path):
    relation = {'type': 'relation', 'from_id': 'r', 'to_id': 's'}
    delivery = read_tasks(
        tmp_path,
        task(FIRST, annotation(region(), relation)),
        task(SECOND, annotation(relation)),
    )
    assert len(delivery.answers[FIRST]) == 1 and delivery.answers[SECOND] == ()


def test_shape_and_class_in_entries_of_their_own(tmp_path):
    shape = region(type='rectangle')
    del shape['value']['rectanglelabels']
    label = region(type='labels', value={'labels': ['helmet']})
    delivery = read_tasks(tmp_path, task(FIRST, annotation(shape, label)))
    assert sides(delivery, FIRST) == [('helmet', 20, 24, 80, 72)]
    nameless = read_tasks(tmp_path, task(FIRST, annotation(shape)))
    assert '0 classes' in told(nameless)


def test_two_classes_on_one_region(tmp_path):
    both = region(value={'rectanglelabels': ['helmet', 'Müll']})
    assert '2 classes' in told(read_tasks(tmp_path, task(FIRST, annotation(both))))


def test_a_class_that_is_not_in_the_list(tmp_path):
    delivery = read_tasks(
        tmp_path, task(FIRST, annotation(region('Helmets'), region('Helmets')))
    )
    assert "class 'Helmets' of 2 boxes is unknown" in told(delivery)
    assert "Did you mean 'helmet'?" in told(delivery)


@pytest.mark.parametrize(
    'box, rule, expected',
    [
        # Per cent of 200 x 120 pixels; tools round at the border.
        ({'x': -0.4}, 'error', (0, 24, 59.2, 72)),
        ({'x': -0.8}, 'error', None),
        ({'x': -10}, 'drop', None),
        ({'x': -10}, 'clip', (0, 24, 40, 72)),
        ({'width': 200}, 'clip', (20, 24, 200, 72)),
        ({'x': 120}, 'clip', None),
        ({'width': 0.1}, 'error', None),
    ],
)
def test_boxes_outside_the_image(tmp_path, box, rule, expected):
    tasks = task(FIRST, annotation(region(**box), region('Müll')))
    delivery = read_tasks(tmp_path, tasks, bad_boxes=rule)
    if expected:
        assert sides(delivery, FIRST)[0] == ('helmet', *expected)
    elif rule == 'drop':
        assert [name for name, *_ in sides(delivery, FIRST)] == ['Müll']
        assert '1 boxes' in warned(delivery)
    else:
        assert delivery.refused == [FIRST] and 'result 1' in told(delivery)


def test_an_image_whose_boxes_were_all_bad_is_not_empty(tmp_path):
    bad = task(FIRST, annotation(region(x=150)))
    delivery = read_tasks(tmp_path, bad, bad_boxes='drop')
    assert delivery.refused == [FIRST] and 'all 1 boxes' in told(delivery)


def test_a_box_that_was_accepted_and_drawn_again(tmp_path):
    # The third shares three quarters with the first: another object.
    boxes = region(), region(x=10.2), region(x=14), region('Müll')
    twice = task(FIRST, annotation(*boxes))
    delivery = read_tasks(tmp_path, twice)
    assert len(delivery.answers[FIRST]) == 4 and '1 boxes are almost' in warned(
        delivery
    )
    delivery = read_tasks(tmp_path, twice, duplicates='drop')
    names = [name for name, *_ in sides(delivery, FIRST)]
    assert names == ['helmet', 'helmet', 'Müll']


def test_another_size_is_refused(tmp_path):
    resized = region(original_width=640, original_height=640)
    turned = region(original_width=120, original_height=200)
    delivery = read_tasks(
        tmp_path, task(FIRST, annotation(resized)), task(THIRD, annotation(turned))
    )
    assert '640 x 640 pixels there, 200 x 120 as exported' in told(delivery)
    assert delivery.refused == [FIRST, THIRD]
    assert 'EXIF' in told(read_tasks(tmp_path, task(FIRST, annotation(turned))))
    turned = region(image_rotation=90)
    assert 'turned in' in told(read_tasks(tmp_path, task(FIRST, annotation(turned))))


@pytest.mark.parametrize(
    'name',
    [
        f'/data/upload/1/e79d934a-{NAMES[0]}',
        f'/data/local-files/?d=stage_02/images/{NAMES[0]}',
        f'/data/local-files/?d=stage%2002%2Fimages%2F{NAMES[0]}',
        f'https://host/a/{NAMES[0]}?signature=1',
    ],
)
def test_tasks_that_somebody_made_of_the_images(tmp_path, name):
    made = {'id': 1, 'data': {'image': name}, 'annotations': [annotation(region())]}
    assert FIRST in read_tasks(tmp_path, made).answers


def test_tasks_of_another_stage_are_left_out(tmp_path):
    other = task('VOC2007/000009', annotation(region()))
    other['data']['image'] = '/data/local-files/?d=000009_000009_ee55.jpg'
    delivery = read_tasks(tmp_path, other, task(FIRST, annotation()))
    assert not delivery.problems and 'not asked for' in warned(delivery)
    alone = read_tasks(tmp_path, other)
    assert 'none' not in alone.answers
    assert 'nearest of ours' in told(alone)


@pytest.mark.parametrize(
    'content, message',
    [
        ('[', 'is no JSON'),
        ({'images': []}, 'expected a list of tasks'),
        ([{'image': 'a.jpg', 'label': []}], 'JSON-MIN'),
        ([], 'says nothing about any'),
        ([task(FIRST, annotation(result=None))], "'result' None"),
        ([task(FIRST, 3)], "'result' None"),
        ([task(FIRST, annotation('box'))], 'no value'),
        ([task(FIRST, annotation(region(x='left')))], 'four numbers'),
        ([task(FIRST, annotation(region(x=10**400)))], 'four numbers'),
        ([task(FIRST, annotation(region(value={'rotation': 'up'})))], 'rotation'),
    ],
)
def test_what_is_no_answer_has_a_message(tmp_path, content, message):
    delivery = read(LabelStudio(), deliver(tmp_path / 'ls.json', content))
    assert message in told(delivery) and not delivery.answers


def test_all_problems_of_a_delivery_are_listed(tmp_path):
    delivery = read_tasks(
        tmp_path,
        task(FIRST, annotation(region('hat'), region(x=99))),
        task(SECOND, annotation(), annotation(was_cancelled=False)),
        {'no': 'task'},
    )
    assert len(delivery.problems) == 4
    assert delivery.unanswered == [THIRD]


def test_what_is_written(tmp_path):
    suggestions = {FIRST: [Box('head & neck', (20.5, 24.6, 80.75, 72.6), 0.91)]}
    form = LabelStudio(document_root=str(tmp_path))
    tasks, config = form.write(tmp_path / 'stage', IMAGES, suggestions, CLASSES)
    first, second, third = json.loads(tasks.read_text())
    assert first['data'] == {
        'image': f'/data/local-files/?d=stage/images/{NAMES[0]}',
        'image_id': FIRST,
    }
    (result,) = first['predictions'][0]['result']
    assert result['score'] == 0.91
    value = {key: round(v, 6) for key, v in result['value'].items() if key in 'xywidth'}
    assert value == {'x': 10.25, 'y': 20.5, 'width': 30.125}
    # No prediction, not an empty one: an empty one could be submitted by mistake.
    assert 'predictions' not in second and 'annotations' not in third
    root = ElementTree.fromstring(config.read_text())
    assert [label.get('value') for label in root.iter('Label')] == list(CLASSES)
    assert root.find('RectangleLabels').get('canRotate') == 'false'
    with pytest.raises(InputError, match='document_root'):
        LabelStudio(document_root=str(tmp_path / 'x')).write(
            tmp_path / 'stage', IMAGES, {}, CLASSES
        )
