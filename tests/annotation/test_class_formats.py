"""A class per image: a table, folders, choices of Label Studio."""

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
    told,
    warned,
)

from tjls_mm.annotation import ClassFolders, ClassTable, LabelStudioChoices
from tjls_mm.errors import InputError


def read_table(tmp_path, text):
    return read(ClassTable(), deliver(tmp_path / 'labels.csv', text))


@pytest.mark.parametrize('mark', [',', ';', '\t'])
def test_a_table_as_spreadsheets_save_it(tmp_path, mark):
    rows = ['Image,Class', f'{NAMES[0]},helmet', f'x/{NAMES[1]}, Müll ,', f'{NAMES[2]}']
    text = '\ufeff' + '\r\n'.join(rows + ['', ',']).replace(',', mark)
    delivery = read_table(tmp_path, text)
    assert delivery.answers == {FIRST: 'helmet', SECOND: 'Müll'}
    assert delivery.unanswered == [THIRD] and not delivery.problems


@pytest.mark.parametrize(
    'text, message',
    [
        (f'image,class\n{NAMES[0]},Helmet\n', "Did you mean 'helmet'?"),
        (f'image,class\n{NAMES[0]},helmet\n{NAMES[0]},Müll\n', '2 answers that differ'),
        ('a,b\n1,2\n', 'expected image and class'),
        ('', 'expected image and class'),
        ('image,class\n', 'says nothing'),
        ('image,class\nother.jpg,helmet\n', 'nearest of ours'),
        (f'image,class\n{NAMES[0]},{"x" * 200_000}\n', 'is no table'),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    delivery = read_table(tmp_path, text)
    assert message in told(delivery) and not delivery.answers


def test_a_table_in_another_encoding(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_bytes(f'image,class\n{NAMES[0]},Müll\n'.encode('latin-1'))
    assert 'UTF-8' in told(read(ClassTable(), path))


def test_the_written_table_is_unanswered(tmp_path):
    table, classes = ClassTable().write(tmp_path, IMAGES, {FIRST: 'Müll'}, CLASSES)
    assert table.read_text().splitlines()[1] == f'{NAMES[0]},,Müll'
    delivery = read(ClassTable(), table)
    assert delivery.unanswered == [FIRST, SECOND, THIRD] and not delivery.problems
    assert classes.read_text().splitlines() == list(CLASSES)


def move(folder, name, to):
    deliver(folder / to / name, 'pixels')


def test_folders(tmp_path):
    ClassFolders().write(tmp_path, IMAGES, {}, CLASSES)
    folder = tmp_path / 'classes'
    assert {path.name for path in folder.iterdir()} == {*CLASSES, '_skipped'}
    move(folder, NAMES[0], 'head & neck')
    move(folder, NAMES[1], '_skipped')
    move(tmp_path, NAMES[2], 'images')
    delivery = read(ClassFolders(), tmp_path)
    assert delivery.answers == {FIRST: 'head & neck'}
    assert delivery.skipped == [SECOND] and delivery.unanswered == [THIRD]


def test_folders_that_contradict(tmp_path):
    move(tmp_path, NAMES[0], 'helmet')
    move(tmp_path, NAMES[0], 'Müll')
    move(tmp_path, NAMES[1], 'helmet')
    move(tmp_path, NAMES[1], '_skipped')
    move(tmp_path, NAMES[2], 'helmets')
    delivery = read(ClassFolders(), tmp_path)
    assert delivery.refused == [FIRST, SECOND, THIRD]
    assert len(delivery.problems) == 3 and "mean 'helmet'?" in told(delivery)


@pytest.mark.parametrize('name', ['a/b', 'images', '..', '.x', 'c:d', 'HELMET', ' '])
def test_classes_that_are_no_folders(tmp_path, name):
    with pytest.raises(InputError, match='Class'):
        ClassFolders().write(tmp_path / 'x', IMAGES, {}, ['helmet', name])
    assert not (tmp_path / 'x').exists()


def choice(image_id, *names, **more):
    result = [{'type': 'choices', 'value': {'choices': list(names)}}] if names else []
    annotation = {'id': 1, 'result': result, **more}
    return {'data': {'image_id': image_id}, 'annotations': [annotation]}


def test_choices(tmp_path):
    tasks = [
        choice(FIRST, 'Müll'),
        choice(SECOND, was_cancelled=True),
        {**choice(THIRD), 'annotations': []},
    ]
    delivery = read(LabelStudioChoices(), deliver(tmp_path / 'a.json', tasks))
    assert delivery.answers == {FIRST: 'Müll'} and delivery.skipped == [SECOND]
    assert delivery.unanswered == [THIRD]
    tasks = [choice(FIRST, 'Mull'), choice(SECOND, 'helmet', 'Müll'), choice(THIRD)]
    delivery = read(LabelStudioChoices(), deliver(tmp_path / 'a.json', tasks))
    assert delivery.refused == [FIRST, SECOND, THIRD]
    assert "mean 'Müll'?" in told(delivery) and 'found none' in told(delivery)


def test_written_choices_are_suggestions(tmp_path):
    form = LabelStudioChoices()
    path, config = form.write(tmp_path, IMAGES, {FIRST: 'Müll'}, CLASSES)
    tasks = json.loads(path.read_text())
    result = tasks[0]['predictions'][0]['result'][0]
    assert result['value'] == {'choices': ['Müll']}
    assert 'head &amp; neck' in config.read_text()
    assert read(form, path).unanswered == [FIRST, SECOND, THIRD]
    assert not warned(read(form, path))
