"""PASCAL VOC's XML, one file per image, as annotation tools write it."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from tjls_mm.annotation.boxes import Box, ImageRecord
from tjls_mm.annotation.delivered_files import parse_xml
from tjls_mm.annotation.formats import (
    IMAGES,
    DetectionFormat,
    check_export,
    suggested_boxes,
)
from tjls_mm.annotation.image_names import base_name, stem
from tjls_mm.annotation.reading import BoxSheet, Reading, check_choice
from tjls_mm.files import write_text
from tjls_mm.registry import ANNOTATION_FORMATS

FOLDER = 'Annotations'
_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')
_EXPORT = "Export it again as 'Pascal VOC'."


@ANNOTATION_FORMATS.register_module()
class PascalVoc(DetectionFormat):
    """Boxes in XML of PASCAL VOC's, with whole or broken numbers.

    An image without a file is not answered; of a file without objects ``no_boxes``
    decides.

    Args:
        origin: Number of the first pixel: 0 as nearly all tools have it; 1 as in VOC
            itself, where a box from 1 to 1 is a pixel.
        **rules: Of ``BoxRules``.
    """

    def __init__(self, origin: int = 0, **rules) -> None:
        super().__init__(**rules)
        check_choice('origin', origin, (0, 1))
        self.origin = origin

    def write(self, folder, images, suggestions, classes) -> list[Path]:
        """Files of images with suggestions only: the others have no answer yet."""
        check_export(images, classes, suggestions)
        paths = []
        for image in images:
            if boxes := suggested_boxes(image, suggestions):
                root = _document(image, boxes, self.origin)
                indent(root)
                path = Path(folder) / FOLDER / f'{stem(image.file_name)}.xml'
                write_text(path, tostring(root, encoding='unicode') + '\n')
                paths.append(path)
        return paths

    def _read(self, reading: Reading) -> None:
        names = reading.files.with_suffix('.xml')
        if not names:
            reading.problem(reading.files.path.name, 'holds no .xml', _EXPORT)
        for file, root in reading.parsed(names, parse_xml):
            if root.tag != 'annotation':
                what = f'begins with <{root.tag[:60]}>, expected <annotation>'
                reading.problem(file, what, _EXPORT)
            elif (image := _image_of(reading, file, root)) is not None:
                self._read_image(reading.sheet(image, file), root)

    def _read_image(self, sheet: BoxSheet, root: Element) -> None:
        sheet.check_size(_text(root, 'size/width'), _text(root, 'size/height'))
        named = sheet.reading.names.find(_text(root, 'filename'))
        if named not in (None, sheet.image):
            what = f'<filename> is another image, {named.file_name!r}'
            sheet.problem(what, 'Keep the names that the tool gave the files.')
        by_label_studio = _text(root, 'owner/name') == 'Label Studio'
        objects = root.findall('object')
        for row, entry in enumerate(objects, 1):
            self._read_object(sheet, entry, f'object {row}')
        advice = "Export 'JSON' and use the format LabelStudio."
        if by_label_studio and not objects:
            what = 'Label Studio wrote no object, as it does where it drops shapes'
            sheet.problem(what, advice)
        elif by_label_studio:
            what = "Label Studio's VOC cuts boxes to whole pixels and loses rotations"
            sheet.warn(f'{what}, empty and skipped images', advice)

    def _read_object(self, sheet: BoxSheet, entry: Element, place: str) -> None:
        if entry.find('bndbox') is None:
            kind = 'polygon' if entry.find('polygon') is not None else 'other object'
            kind = 'rotated box' if entry.find('robndbox') is not None else kind
            sheet.other_shape(f'{kind} without bndbox')
            return
        sides = [_text(entry, f'bndbox/{side}') for side in _SIDES]
        if self.origin == 1:
            sides = [_less_one(side) for side in sides[:2]] + sides[2:]
        ignore = _text(entry, 'difficult') == '1'
        sheet.box(_text(entry, 'name'), sides, place, ignore)

    def instructions(self) -> str:
        return f"""\
1. Open the folder images in your tool (in labelImg: *Open Dir*), with PascalVOC as
   format and {FOLDER} as *Save Dir*, where the suggestions lie.
2. Correct the boxes of every image and save it, also without boxes.
3. Deliver the folder {FOLDER}.

An image without a file counts as not answered. A file without objects may be of an
image with nothing in it, or not: set no_boxes='nothing' or no_boxes='unanswered'.
"""


def _document(image: ImageRecord, boxes: Sequence[Box], origin: int) -> Element:
    root = Element('annotation')
    _add(root, 'folder', IMAGES)
    _add(root, 'filename', image.file_name)
    size = SubElement(root, 'size')
    for key, value in (('width', image.width), ('height', image.height), ('depth', 3)):
        _add(size, key, value)
    _add(root, 'segmented', 0)
    for box in boxes:
        entry = SubElement(root, 'object')
        _add(entry, 'name', box.name)
        _add(entry, 'pose', 'Unspecified')
        _add(entry, 'truncated', 0)
        _add(entry, 'difficult', int(box.ignore))
        drawn = SubElement(entry, 'bndbox')
        # Many tools read whole numbers only.
        x1, y1, x2, y2 = (round(side) for side in box.bbox)
        sides = (x1 + origin, y1 + origin, max(x2, x1 + 1), max(y2, y1 + 1))
        for key, value in zip(_SIDES, sides, strict=True):
            _add(drawn, key, value)
    return root


def _add(parent: Element, tag: str, value) -> None:
    SubElement(parent, tag).text = str(value)


def _text(entry: Element, path: str) -> str:
    return (entry.findtext(path) or '').strip()


def _less_one(side: str) -> str | float:
    try:
        return float(side) - 1
    except ValueError:
        return side


def _image_of(reading: Reading, file: str, root: Element) -> ImageRecord | None:
    # The file's own name is seldom changed by hand, <filename> often is wrong.
    own = reading.names.find(base_name(file))
    return own or reading.find(_text(root, 'filename') or base_name(file), file)
