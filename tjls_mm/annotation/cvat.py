"""CVAT's own XML, 'CVAT for images 1.1'."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from tjls_mm.annotation.boxes import ImageRecord
from tjls_mm.annotation.delivered_files import parse_xml
from tjls_mm.annotation.formats import DetectionFormat, check_export, suggested_boxes
from tjls_mm.annotation.reading import BoxSheet, Reading, number, shown
from tjls_mm.errors import InputError
from tjls_mm.files import write_json, write_text
from tjls_mm.registry import ANNOTATION_FORMATS

NOTHING = 'no_objects'
"""The tag that says 'nothing there'."""

_EXPORT = "Export it as 'CVAT for images 1.1'."
_SCORE = {
    'name': 'score',
    'mutable': False,
    'input_type': 'number',
    'default_value': '0',
    'values': ['0', '1', '0.01'],
}
# Of an image, what is about it and no shape.
_PLAIN = ('box', 'polygon', 'tag')


@ANNOTATION_FORMATS.register_module()
class Cvat(DetectionFormat):
    """Boxes in XML of CVAT's.

    All frames are listed, looked at or not. The tag ``no_objects`` says 'nothing
    there'; of an image with neither boxes nor tag ``no_boxes`` decides.

    Args:
        **rules: Of ``BoxRules``.
    """

    def write(self, folder, images, suggestions, classes) -> list[Path]:
        check_export(images, classes, suggestions)
        if NOTHING in classes:
            raise InputError(
                f'Class {NOTHING!r}: in CVAT it is the tag for images with nothing in '
                'them. Rename the class in data_source.classes.'
            )
        folder = Path(folder)
        paths = [folder / 'cvat_labels.json', folder / 'annotations.xml']
        write_json(paths[0], _labels(classes))
        root = _document(images, suggestions, classes)
        indent(root)
        text = tostring(root, encoding='unicode')
        write_text(paths[1], f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')
        return paths

    def _read(self, reading: Reading) -> None:
        names = reading.files.with_suffix('.xml')
        if not names:
            reading.problem(reading.files.path.name, 'holds no .xml', _EXPORT)
        for file, root in reading.parsed(names, parse_xml):
            if root.tag != 'annotations':
                what = f'begins with <{root.tag[:60]}>, expected <annotations>'
                reading.problem(file, what, _EXPORT)
                continue
            if root.find('track') is not None:
                what = 'has tracks, it is of a video'
                reading.problem(file, what, _EXPORT)
            for row, entry in enumerate(root.iterfind('image'), 1):
                _read_image(reading, file, f'image {row}', entry)

    def instructions(self) -> str:
        return f"""\
1. Create a task: under *Labels > Raw* paste cvat_labels.json, then choose the files of
   the folder images. Sort them lexicographically.
2. *Actions > Upload annotations > CVAT 1.1* with annotations.xml shows suggestions.
3. Correct the boxes of every image. Tag an image with nothing in it as {NOTHING}.
4. *Actions > Export task dataset > CVAT for images 1.1*, without images.
"""


def _labels(classes: Sequence[str]) -> list[dict]:
    labels = [
        {'name': name, 'type': 'rectangle', 'attributes': [_SCORE]} for name in classes
    ]
    return [*labels, {'name': NOTHING, 'type': 'tag', 'attributes': []}]


def _document(images: Sequence[ImageRecord], suggestions: Mapping, classes) -> Element:
    root = Element('annotations')
    _add(root, 'version', '1.1')
    task = SubElement(SubElement(root, 'meta'), 'task')
    _add(task, 'size', str(len(images)))
    labels = SubElement(task, 'labels')
    for entry in _labels(classes):
        label = SubElement(labels, 'label')
        _add(label, 'name', entry['name'])
        _add(label, 'type', entry['type'])
        attributes = SubElement(label, 'attributes')
        # CVAT drops attributes that are not declared.
        for declared in entry['attributes']:
            attribute = SubElement(attributes, 'attribute')
            for key, value in declared.items():
                _add(attribute, key, '\n'.join(value) if key == 'values' else value)
    for row, image in enumerate(images):
        size = {'width': str(image.width), 'height': str(image.height)}
        known = {'id': str(row), 'name': image.file_name, **size}
        entry = SubElement(root, 'image', known)
        for box in suggested_boxes(image, suggestions):
            sides = zip(('xtl', 'ytl', 'xbr', 'ybr'), box.bbox, strict=True)
            sides = {key: f'{side:.2f}' for key, side in sides}
            known = {'label': box.name, 'source': 'auto', 'occluded': '0', **sides}
            drawn = SubElement(entry, 'box', {**known, 'z_order': '0'})
            score = SubElement(drawn, 'attribute', {'name': 'score'})
            score.text = f'{box.score or 0:.2f}'
    return root


def _add(parent: Element, tag: str, text) -> None:
    SubElement(parent, tag).text = str(text)


def _read_image(reading: Reading, file: str, place: str, entry: Element) -> None:
    image = reading.find(entry.get('name'), file, place)
    if image is None:
        return
    sheet = reading.sheet(image, file, place)
    sheet.check_size(entry.get('width'), entry.get('height'))
    for row, child in enumerate(entry, 1):
        where = f'entry {row}'
        if child.tag == 'box':
            _read_box(sheet, child, where)
        elif child.tag == 'polygon':
            points = _points(child.get('points') or '')
            sheet.polygon(child.get('label'), points, where)
        elif child.tag == 'tag' and child.get('label') == NOTHING:
            sheet.says_nothing = True
        elif child.tag == 'tag':
            sheet.tag(f'tag {shown(child.get("label"))}')
        elif child.tag not in _PLAIN:
            sheet.other_shape(child.tag[:30])


def _read_box(sheet: BoxSheet, entry: Element, place: str) -> None:
    sides = [entry.get(key) for key in ('xtl', 'ytl', 'xbr', 'ybr')]
    name = entry.get('label')
    # About the middle.
    sheet.rotated_box(name, sides, entry.get('rotation'), (0.5, 0.5), place)


def _points(text: str) -> list:
    pairs = (pair.split(',') for pair in text.split(';'))
    return [[number(side) for side in pair] for pair in pairs]
