"""Boxes, deliveries and the project's own file of answers."""

import csv
import math

import pytest
from deliveries import CLASSES, FIRST, IMAGES, SECOND, THIRD
from hypothesis import given, settings
from hypothesis import strategies as st

from tjls_mm.annotation import (
    Box,
    Delivery,
    Problem,
    read_answers,
    untouched,
    write_answers,
)
from tjls_mm.errors import InputError

side = st.floats(0, 1e5, allow_nan=False)
box = st.builds(
    lambda name, x, y, ignore, score: Box(
        name, (x[0], y[0], x[1], y[1]), score, ignore
    ),
    st.sampled_from(CLASSES),
    st.tuples(side, side).map(sorted),
    st.tuples(side, side).map(sorted),
    st.booleans(),
    st.none() | st.floats(0, 1),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(box, max_size=4), st.lists(box, max_size=2))
def test_answers_come_back_to_the_last_bit(tmp_path_factory, first, second):
    path = tmp_path_factory.getbasetemp() / 'answers.json'
    answers = {FIRST: tuple(first), THIRD: tuple(second)}
    write_answers(path, IMAGES, answers, CLASSES)
    stored = read_answers(path)
    assert stored.answers == answers and stored.classes == CLASSES
    assert stored.images == [IMAGES[0], IMAGES[2]]


def test_classes_of_images_come_back(tmp_path):
    answers = {FIRST: 'Müll', SECOND: 'helmet'}
    write_answers(tmp_path / 'answers.json', IMAGES, answers, CLASSES)
    assert read_answers(tmp_path / 'answers.json').answers == answers


def test_pycocotools_reads_the_answers(tmp_path):
    from pycocotools.coco import COCO

    answers = {FIRST: (Box('Müll', (20.5, 24.6, 80.75, 72.6)),), SECOND: ()}
    write_answers(tmp_path / 'answers.json', IMAGES, answers, CLASSES)
    coco = COCO(str(tmp_path / 'answers.json'))
    (entry,) = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert coco.cats[entry['category_id']]['name'] == 'Müll'
    assert entry['area'] == pytest.approx(60.25 * 48)
    assert coco.getAnnIds(imgIds=[2]) == []


@pytest.mark.parametrize('text', ['[', '{}', '[]', '{"images": [3]}'])
def test_a_spoilt_file_of_answers(tmp_path, text):
    path = tmp_path / 'answers.json'
    path.write_text(text)
    with pytest.raises(InputError, match='answers.json'):
        read_answers(path)


def test_a_file_of_answers_that_is_gone(tmp_path):
    with pytest.raises(InputError, match='cannot be read'):
        read_answers(tmp_path / 'answers.json')


def test_a_class_outside_the_list_is_not_stored(tmp_path):
    answers = {FIRST: (Box('hat', (0, 0, 1, 1)),)}
    with pytest.raises(InputError, match="class 'hat'"):
        write_answers(tmp_path / 'answers.json', IMAGES, answers, CLASSES)


def test_untouched_suggestions_are_found():
    sent = {
        FIRST: [Box('helmet', (10.4, 10, 20, 20), 0.9), Box('Müll', (1, 1, 9, 9))],
        SECOND: [Box('helmet', (10, 10, 20, 20))],
        THIRD: [],
    }
    answers = {
        # In another order, and rounded.
        FIRST: (Box('Müll', (1, 1, 9, 9)), Box('helmet', (10, 10, 20, 20))),
        SECOND: (Box('helmet', (10, 12, 20, 20)),),
        THIRD: (),
    }
    assert untouched(answers, sent) == [FIRST]
    moved = {SECOND: (Box('Müll', (10, 10, 20, 20)),)}
    assert untouched(moved, sent) == []


def test_problems_are_a_table_that_runs_no_formula(tmp_path):
    delivery = Delivery(
        refused=[FIRST],
        problems=[
            Problem(FIRST, '=cmd()', 'line 4', 'bad, "very"', 'Mend it.'),
            Problem('', '\ud800.json', '', 'is no JSON', 'Export it again.'),
        ],
        warnings=[Problem(SECOND, 'a.json', '', 'odd', 'Look.')],
    )
    with pytest.raises(InputError, match='problems.csv lists all 2 problems'):
        delivery.raise_problems(tmp_path / 'problems.csv')
    with open(tmp_path / 'problems.csv', newline='', encoding='utf-8') as file:
        head, *rows = csv.reader(file)
    assert head[-1] == 'what_to_do' and len(rows) == 3
    assert rows[0][1:5] == [FIRST, "'=cmd()", 'line 4', 'bad, "very"']
    assert rows[2][0] == 'warning'
    delivery.problems.clear()
    delivery.raise_problems(tmp_path / 'none.csv')
    assert not (tmp_path / 'none.csv').exists()


def test_a_box_of_no_width_has_no_last_bit_to_lose(tmp_path):
    thin = (0.1, 0.1, math.nextafter(0.1, 1), 0.3)
    write_answers(
        tmp_path / 'answers.json', IMAGES, {FIRST: (Box('Müll', thin),)}, CLASSES
    )
    assert read_answers(tmp_path / 'answers.json').answers[FIRST][0].bbox == thin
