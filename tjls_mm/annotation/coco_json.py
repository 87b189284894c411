"""COCO's JSON, as annotation tools write it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tjls_mm.annotation.boxes import ImageRecord
from tjls_mm.annotation.delivered_files import parse_json
from tjls_mm.annotation.formats import DetectionFormat, check_export, suggested_boxes
from tjls_mm.annotation.reading import BoxSheet, Reading, numbers, shown
from tjls_mm.annotation.store import coco_content
from tjls_mm.files import write_json
from tjls_mm.registry import ANNOTATION_FORMATS

_EXPORT = 'Export it again as COCO 1.0 (detection).'


@ANNOTATION_FORMATS.register_module()
class CocoJson(DetectionFormat):
    """Boxes in a JSON file of COCO's.

    An image that is listed without boxes was either looked at or not: ``no_boxes``.
    A box beside a mask or polygon is taken, it is the one around it.

    Args:
        **rules: Of ``BoxRules``.
    """

    def write(self, folder, images, suggestions, classes) -> list[Path]:
        check_export(images, classes, suggestions)
        boxes = {i.image_id: tuple(suggested_boxes(i, suggestions)) for i in images}
        content = coco_content(images, boxes, classes)
        path = Path(folder) / 'coco.json'
        write_json(path, content)
        return [path]

    def _read(self, reading: Reading) -> None:
        names = reading.files.with_suffix('.json')
        if not names:
            reading.problem(reading.files.path.name, 'holds no .json', _EXPORT)
        for file, content in reading.parsed(names, parse_json):
            _read_file(reading, file, content)

    def instructions(self) -> str:
        return """\
1. Load the folder images into your tool, and coco.json as annotations in COCO format.
2. Label every image.
3. Export as COCO 1.0, without resizing or turning images.

COCO does not tell an image with nothing in it from one that nobody looked at: set
no_boxes='nothing' once all images are done, or no_boxes='unanswered'.
"""


def _read_file(reading: Reading, file: str, content) -> None:
    lists = {}
    for key in ('images', 'categories', 'annotations'):
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list):
            what = f'is no COCO file: expected a list {key!r}, found {shown(found)}'
            reading.problem(file, what, _EXPORT)
            return
        lists[key] = found
    _warn_of_label_studio(reading, file, content.get('info'))
    names = _category_names(reading, file, lists)
    sheets, others = _sheets(reading, file, lists)
    for place, entry in _objects(reading, file, lists, 'annotations'):
        number = _key(entry.get('image_id'))
        for sheet in sheets.get(number, ()):
            _read_annotation(sheet, names, place, entry)
        if number not in sheets and number not in others:
            what = f"'image_id' {shown(entry.get('image_id'))} is that of no image"
            reading.problem(file, what, _EXPORT, place)


def _category_names(reading: Reading, file: str, lists: Mapping) -> dict:
    names: dict[str, object] = {}
    for place, entry in _objects(reading, file, lists, 'categories'):
        number, name = _key(entry.get('id')), entry.get('name')
        if names.setdefault(number, name) != name:
            what = f'two categories have the id {shown(entry.get("id"))}'
            reading.problem(file, what, _EXPORT, place)
            names[number] = None
    return names


def _warn_of_label_studio(reading: Reading, file: str, info) -> None:
    if isinstance(info, dict) and info.get('contributor') == 'Label Studio':
        reading.warn(
            file,
            "Label Studio's COCO loses empty images, skipped ones and rotations",
            "Export 'JSON' and use the format LabelStudio.",
        )


def _objects(
    reading: Reading, file: str, lists: Mapping, key: str
) -> Iterator[tuple[str, dict]]:
    for row, entry in enumerate(lists[key], 1):
        place = f'{key}, entry {row}'
        if isinstance(entry, dict):
            yield place, entry
        else:
            reading.problem(file, f'is {shown(entry)} there', _EXPORT, place)


def _key(number) -> str:
    # Some tools write ids as texts in one list and as numbers in the other.
    return f'{number}' if isinstance(number, int | str) else shown(number)


def _sheets(reading: Reading, file: str, lists: Mapping) -> tuple[dict, set]:
    """Sheets by the id of their image, and ids of images not asked for."""
    sheets: dict[str, list[BoxSheet]] = {}
    named: dict[str, object] = {}
    others, twice = set(), set()
    for place, entry in _objects(reading, file, lists, 'images'):
        number = _key(entry.get('id'))
        name = entry.get('file_name')
        if named.setdefault(number, name) != name:
            twice.add(number)
        image: ImageRecord | None = reading.find(name, file, place)
        if image is None:
            others.add(number)
            continue
        sheet = reading.sheet(image, file, place)
        sheet.check_size(entry.get('width'), entry.get('height'))
        sheets.setdefault(number, []).append(sheet)
    for number in twice:
        for sheet in sheets.get(number, ()):
            what = f'two images have the id {number[:60]}'
            sheet.problem(what, _EXPORT)
    return sheets, others


def _read_annotation(sheet: BoxSheet, names: Mapping, place: str, entry: dict) -> None:
    category = _key(entry.get('category_id'))
    name = names.get(category)
    if name is None:
        what = f"'category_id' {shown(entry.get('category_id'))} is that of no category"
        sheet.problem(what, _EXPORT, place)
        return
    box = entry.get('bbox')
    if not box and entry.get('segmentation'):
        sheet.other_shape('segmentation without bbox')
        return
    values = numbers(box) if isinstance(box, list) and len(box) == 4 else None
    if values is None:
        what = f"'bbox' is {shown(box)}, expected [x, y, width, height] in pixels"
        sheet.problem(what, 'Mend it, or remove the box.', place)
        return
    x, y, width, height = values
    sides = (x, y, x + width, y + height)
    attributes = entry.get('attributes')
    degrees = attributes.get('rotation') if isinstance(attributes, dict) else None
    if degrees:
        # CVAT's boxes are rotated about their middle.
        sheet.rotated_box(name, sides, degrees, (0.5, 0.5), place)
    else:
        ignore = bool(entry.get('iscrowd') or entry.get('ignore'))
        sheet.box(name, sides, place, ignore)
