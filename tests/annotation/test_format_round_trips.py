"""Exported, edited in a tool, imported: boxes stay to half a pixel."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from deliveries import CLASSES
from PIL import Image

from tjls_mm.annotation import (
    Box,
    ClassFolders,
    ClassTable,
    CocoJson,
    Cvat,
    LabelStudio,
    LabelStudioChoices,
    PascalVoc,
    Yolo,
    export_images,
    untouched,
)
from tjls_mm.randomness import generator

SPOT = (7.25, 9.5, 31.75, 28.25)
"""Of a white spot in every image, upright; xyxy."""
NOTHING = {'no_boxes': 'nothing'}


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Images of all EXIF orientations with a spot in one place, and their records."""
    folder = tmp_path_factory.mktemp('exported')
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Pillow's transpositions
    paths = []
    for orientation in range(1, 9):
        pixels = np.full((40, 64), 40, np.uint8)
        x1, y1, x2, y2 = np.round(SPOT).astype(int)
        pixels[y1:y2, x1:x2] = 250
        image = Image.fromarray(pixels)
        if orientation > 1:
            image = image.transpose(back[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = folder / f'{orientation}.jpg'
        image.save(path, exif=exif, quality=95)
        paths.append((f'part{orientation}/same name', path))
    return folder, export_images(folder / 'images', paths)


def same(folder, paths, names):
    """A tool that exports what it imported."""
    return folder


def submit(folder, paths, names):
    """Label Studio makes annotations of predictions when somebody submits them."""
    tasks = json.loads(paths[0].read_text())
    for number, task in enumerate(tasks):
        url = task['data']['image'].split('/')[-1]
        task['data']['image'] = f'/data/upload/1/0a1b2c3d-{url}'
        del task['data']['image_id']
        predictions = task.pop('predictions', [{'result': []}])
        kept = {'result': predictions[0]['result'], 'was_cancelled': False}
        task.update(id=number, annotations=[kept], predictions=[number])
    path = folder / 'project-1-at-2026.json'
    path.write_text(json.dumps(tasks))
    return path


def zipped(folder, paths, names):
    """CVAT exports a zip and puts folders before names."""
    text = paths[1].read_text()
    for name in names:
        text = text.replace(f'name="{name}"', f'name="sub/{name}"')
    with zipfile.ZipFile(folder / 'export.zip', 'w') as file:
        file.writestr('annotations.xml', re.sub('(?s)<meta>.*</meta>', '', text))
    return folder / 'export.zip'


def saved_without_boxes(folder, paths, names):
    """Label files of images without boxes, as tools write them when one is saved."""
    for name in names:
        stem = Path(name).stem
        if not list(folder.glob(f'*/{stem}.xml')) and 'Annotations' in str(paths):
            size = '<size><width>64</width><height>40</height></size>'
            path = folder / 'Annotations' / f'{stem}.xml'
            path.write_text(f'<annotation>{size}</annotation>')
        elif not list(folder.glob(f'labels/{stem}.txt')) and 'labels' in str(paths):
            (folder / 'labels' / f'{stem}.txt').write_text('')
    return folder


DETECTION = [
    (LabelStudio(), submit),
    (CocoJson(**NOTHING), same),
    (Cvat(**NOTHING), zipped),
    (PascalVoc(**NOTHING), saved_without_boxes),
    (PascalVoc(origin=1, **NOTHING), saved_without_boxes),
    (Yolo(**NOTHING), saved_without_boxes),
]


def test_a_spot_is_where_the_box_is_in_every_exported_image(exported):
    folder, records = exported
    x1, y1, x2, y2 = np.round(SPOT).astype(int)
    for record in records:
        assert (record.width, record.height) == (64, 40)
        with Image.open(folder / 'images' / record.file_name) as image:
            pixels = np.asarray(image.convert('L')).astype(float)
        assert pixels[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min() > 200
        pixels[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2] = 0
        assert pixels.max() < 90


@pytest.mark.parametrize('form, tool', DETECTION)
def test_boxes_classes_and_empties_come_back(tmp_path, exported, form, tool):
    _, records = exported
    rng = generator(0, 'boxes')
    suggestions = {}
    for row, record in enumerate(records[:-2]):
        corners = np.sort(rng.uniform(0, 1, (row + 1, 2, 2)), axis=1)
        corners[:, 1] = np.maximum(corners[:, 1], corners[:, 0] + 0.1).clip(0, 1)
        corners[:, 0] = np.minimum(corners[:, 0], corners[:, 1] - 0.1)
        sides = (corners * (record.width, record.height)).reshape(-1, 4)
        suggestions[record.image_id] = [
            Box(CLASSES[i % 3], tuple(map(float, one)), 0.5)
            for i, one in enumerate([*sides, SPOT])
        ]
    names = [record.file_name for record in records]
    path = tool(tmp_path, form.write(tmp_path, records, suggestions, CLASSES), names)
    delivery = form.read(path, records, CLASSES)
    assert not delivery.problems
    assert delivery.answers.keys() == {record.image_id for record in records}
    for record in records:
        sent = suggestions.get(record.image_id, [])
        answer = delivery.answers[record.image_id]
        assert [box.name for box in answer] == [box.name for box in sent]
        for got, box in zip(answer, sent, strict=True):
            assert np.abs(np.subtract(got.bbox, box.bbox)).max() <= 0.5
    assert set(untouched(delivery.answers, suggestions)) == set(suggestions)


@pytest.mark.parametrize('form, _', DETECTION)
def test_what_was_written_is_not_taken_for_answers_of_others(
    tmp_path, exported, form, _
):
    """Without suggestions nothing but 'not yet' is in the files."""
    _, records = exported
    form.write(tmp_path, records, {}, CLASSES)
    rules = {} if form.tells_empty else {'no_boxes': 'unanswered'}
    delivery = type(form)(**rules).read(tmp_path, records, CLASSES)
    assert not delivery.answers and len(delivery.unanswered) == len(records)


def fill(folder, paths, names):
    lines = paths[0].read_text().splitlines()
    filled = [','.join([*line.split(',')[:1], CLASSES[1], '']) for line in lines[1:]]
    paths[0].write_text('\n'.join(['image;class;'] + filled).replace(',', ';'))
    return paths[0]


def move(folder, paths, names):
    for name in names:
        (folder / 'classes' / CLASSES[1] / name).write_bytes(b'')
    return folder / 'classes'


@pytest.mark.parametrize(
    'form, tool',
    [(LabelStudioChoices(), submit), (ClassTable(), fill), (ClassFolders(), move)],
)
def test_classes_come_back(tmp_path, exported, form, tool):
    _, records = exported
    suggestions = {record.image_id: CLASSES[1] for record in records}
    names = [record.file_name for record in records]
    path = tool(tmp_path, form.write(tmp_path, records, suggestions, CLASSES), names)
    delivery = form.read(path, records, CLASSES)
    assert delivery.answers == suggestions and not delivery.problems


@pytest.mark.parametrize('form, _', DETECTION)
def test_instructions_name_the_written_files(tmp_path, exported, form, _):
    _, records = exported
    suggestions = {records[0].image_id: [Box(CLASSES[0], SPOT)]}
    paths = form.write(tmp_path, records, suggestions, CLASSES)
    text = form.instructions()
    for path in paths:
        assert path.name in text or path.parent.name in text
