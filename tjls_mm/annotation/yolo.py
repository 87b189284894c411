"""YOLO's text files, one per image, as ultralytics and annotation tools write them."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from tjls_mm.annotation.boxes import ImageRecord
from tjls_mm.annotation.delivered_files import Unusable, parse_text
from tjls_mm.annotation.formats import (
    IMAGES,
    DetectionFormat,
    check_export,
    suggested_boxes,
)
from tjls_mm.annotation.image_names import base_name, stem
from tjls_mm.annotation.reading import BoxSheet, Reading, numbers, shown
from tjls_mm.errors import InputError
from tjls_mm.files import write_text
from tjls_mm.registry import ANNOTATION_FORMATS

FOLDER = 'labels'
_CLASS_LISTS = ('data.yaml', 'data.yml', 'dataset.yaml', 'classes.txt', 'obj.names')
# Text files that tools put beside the labels.
_OTHERS = [f'{split}.txt' for split in ('train', 'val', 'valid', 'test')]
_OTHERS += [f'readme{more}.txt' for more in ('', '.dataset', '.roboflow')]
_OTHERS += ['classes.txt', 'notes.txt']
# Lists of names are short, and YAML is slow to read.
_MAX_LIST = 1 << 20
_BAD_YAML = (
    *(yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError),
    *(TypeError, ValueError),
)
_EXPORT = 'Export it again as YOLO (detection), with the list of classes.'


@ANNOTATION_FORMATS.register_module()
class Yolo(DetectionFormat):
    """Boxes in text files of YOLO's, with ``data.yaml`` or ``classes.txt``.

    An image without a file is not answered; of an empty file ``no_boxes`` decides.

    Args:
        **rules: Of ``BoxRules``.
    """

    def write(self, folder, images, suggestions, classes) -> list[Path]:
        """Files of images with suggestions only: the others have no answer yet."""
        check_export(images, classes, suggestions)
        folder = Path(folder)
        for image in images:
            if base_name(f'{stem(image.file_name)}.txt').lower() in _OTHERS:
                raise InputError(
                    f'Exported image {image.file_name!r}: its labels would be taken '
                    'for a list of tools. Give it another name.'
                )
        content = {'path': '.', 'train': IMAGES, 'val': IMAGES}
        content['names'] = dict(enumerate(classes))
        paths = [folder / 'data.yaml', folder / 'classes.txt']
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(paths[0], text)
        write_text(paths[1], ''.join(f'{name}\n' for name in classes))
        number = {name: i for i, name in enumerate(classes)}
        for image in images:
            if boxes := suggested_boxes(image, suggestions):
                lines = [_line(number[box.name], box.bbox, image) for box in boxes]
                path = folder / FOLDER / f'{stem(image.file_name)}.txt'
                write_text(path, ''.join(lines))
                paths.append(path)
        return paths

    def _read(self, reading: Reading) -> None:
        names = _class_names(reading)
        files = [
            name
            for name in reading.files.with_suffix('.txt')
            if base_name(name).lower() not in _OTHERS
        ]
        if not files:
            what = 'holds no .txt of an image'
            reading.problem(reading.files.path.name, what, _EXPORT)
        if names is None:
            return
        for file, text in reading.parsed(files, parse_text):
            image = reading.find(_image_name(file), file)
            if image is not None:
                sheet = reading.sheet(image, file)
                for row, line in enumerate(text.split('\n'), 1):
                    if line.strip():
                        _read_line(sheet, names, line.split(), f'line {row}')

    def instructions(self) -> str:
        return f"""\
1. Open the folder images in your tool, with YOLO as format. Suggestions lie in
   {FOLDER}, names of classes in data.yaml and classes.txt in the order of numbers.
2. Correct the boxes of every image and save it, also without boxes.
3. Deliver the folder {FOLDER} with data.yaml or classes.txt, as a folder or zip.

An image without a file counts as not answered. An empty file may be of an image with
nothing in it, or not: set no_boxes='nothing' or no_boxes='unanswered'.
"""


def _line(number: int, sides: Sequence[float], image: ImageRecord) -> str:
    x1, y1, x2, y2 = sides
    shares = (
        (x1 + x2) / 2 / image.width,
        (y1 + y2) / 2 / image.height,
        (x2 - x1) / image.width,
        (y2 - y1) / image.height,
    )
    return f'{number} {" ".join(f"{share:.8f}" for share in shares)}\n'


def _image_name(file: str) -> str:
    # Not a suffix: what comes before .txt may have points of its own.
    return f'{base_name(file)[: -len(".txt")]}.jpg'


def _class_names(reading: Reading) -> dict[int, str] | None:
    files = [n for n in reading.files.names if base_name(n).lower() in _CLASS_LISTS]
    found = {}
    for file, content in reading.parsed(files, limit=_MAX_LIST):
        try:
            found[file] = _parse_names(file, content)
        except Unusable as error:
            reading.problem(file, error.what, error.advice)
    lists = list(found.items())
    if not files:
        what = 'holds no data.yaml and no classes.txt: the numbers have no names'
        advice = 'Deliver the list of classes that the tool wrote, beside the labels.'
        reading.problem(reading.files.path.name, what, advice)
    for file, names in lists[1:]:
        if names != lists[0][1]:
            what = f'lists other classes than {lists[0][0]}'
            reading.problem(file, what, 'Remove the wrong one.')
            return None
    return lists[0][1] if lists else None


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader without references, of which few make gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError('has references')
        return super().compose_node(parent, index)


def _parse_names(file: str, data: bytes) -> dict[int, str]:
    text = parse_text(data)
    if PurePosixPath(file).suffix.lower() not in ('.yaml', '.yml'):
        lines = text.replace('\r\n', '\n').rstrip().split('\n')
        return {row: line.strip() for row, line in enumerate(lines)}
    try:
        content = yaml.load(text, _PlainLoader)
    except _BAD_YAML as error:
        what = f'is no YAML ({type(error).__name__})'
        raise Unusable(what, _EXPORT) from None
    if isinstance(content, dict) and 'kpt_shape' in content:
        raise Unusable('is of key points', _EXPORT)
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(type(key) is int for key in names):
        what = "has no 'names', a list or a number to each name"
        raise Unusable(what, _EXPORT)
    # YAML takes the class no for False and 3 for a number.
    wrong = [name for name in names.values() if not isinstance(name, str)]
    if wrong:
        kind = type(wrong[0]).__name__
        raise Unusable(f"has a {kind} in 'names'", 'Put such names in quotes.')
    return names


def _read_line(sheet: BoxSheet, names: dict, words: list[str], place: str) -> None:
    values = numbers(words)
    if values is None or len(values) < 5:
        found = shown(' '.join(words))
        expected = 'class x y width height, numbers in shares of the image'
        sheet.problem(f'expected {expected}, found {found}', 'Mend it.', place)
        return
    name = names.get(values[0])
    if name is None:
        what = f'class {shown(words[0])} is not in the list of {len(names)} classes'
        sheet.problem(what, 'Correct it, or deliver the right list.', place)
        return
    across, down = sheet.image.width, sheet.image.height
    # A sixth number is a score.
    if len(values) <= 6:
        x, y, width, height = values[1:5]
        sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        x1, y1, x2, y2 = sides
        sheet.box(name, (x1 * across, y1 * down, x2 * across, y2 * down), place)
    elif len(values) % 2:
        points = zip(values[1::2], values[2::2], strict=True)
        pixels = [(x * across, y * down) for x, y in points]
        sheet.polygon(name, pixels, place)
    else:
        sheet.other_shape('line of key points')
