"""Turns what delivered files say into a Delivery, whatever is wrong with them."""

import collections
import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tjls_mm.annotation.boxes import (
    Answer,
    Box,
    Delivery,
    ImageRecord,
    Problem,
    overlap,
)
from tjls_mm.annotation.delivered_files import DeliveredFiles, Unusable
from tjls_mm.annotation.image_names import ImageNames, base_name, stem
from tjls_mm.errors import InputError

MAX_BOXES = 5000
"""Of one image."""
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.gif', '.tif', '.tiff')
ROUNDING = 1.0
"""Pixels by which tools let boxes leave their image, which are clipped."""
MAX_NOTES = 20, 10_000
"""Problems that are listed of one image, and of a delivery."""
SAME_BOX = 0.95
"""IoU of two boxes of a class that are one object drawn twice."""

_ALLOWED = {
    'bad_boxes': ('error', 'drop', 'clip'),
    'rotated': ('error', 'envelope'),
    'shapes': ('error', 'envelope'),
    'no_boxes': ('error', 'nothing', 'unanswered'),
    'duplicates': ('keep', 'drop'),
}


@dataclass(frozen=True)
class BoxRules:
    """What to make of what is no plain box in its image.

    Attributes:
        bad_boxes: Below a pixel, or more than a pixel outside their image: 'error';
            'drop' leaves them out; 'clip' cuts them at the border.
        rotated: 'error', or 'envelope', the upright box around a rotated one.
        shapes: Polygons: 'error', or 'envelope'. Masks, points and others are errors.
        no_boxes: Of an image without boxes, in formats that do not tell 'nothing
            there' from 'not yet': 'error', 'nothing' (somebody looked at all images)
            or 'unanswered'.
        duplicates: Two boxes of a class with IoU of 0.95 or more: 'keep' both with a
            warning, or 'drop' the second.
    """

    bad_boxes: str = 'error'
    rotated: str = 'error'
    shapes: str = 'error'
    no_boxes: str = 'error'
    duplicates: str = 'keep'

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            check_choice(name, getattr(self, name), allowed)


def check_choice(name: str, value, allowed: Sequence[str]) -> None:
    """InputError if a setting of a format is none of the allowed values."""
    if value not in allowed:
        expected = ' or '.join(map(repr, allowed))
        raise InputError(f'{name} of an annotation format: {expected}, got {value!r}.')


def number(value) -> float | None:
    """A finite float of a number or its text, else None.

    >>> number('2.5'), number(True), number('nan')
    (2.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (OverflowError, ValueError):
        return None
    return found if math.isfinite(found) else None


def numbers(values) -> list[float] | None:
    """Finite floats, else None."""
    found = [number(value) for value in values]
    return None if None in found else found


def shown(value, length: int = 60) -> str:
    """A value of a stranger's in a message, not at any length."""
    if isinstance(value, list | dict):
        return f'a {type(value).__name__} of {len(value)}'
    text = repr(value[: length + 1] if isinstance(value, str) else value)
    return text if len(text) <= length + 2 else f'{text[:length]}…'


class Reading:
    """Collects what delivered files say about images.

    Args:
        files: What came back.
        images: What was asked for.
        classes: Names in order.
        rules: None where an answer is a class of the whole image.
    """

    def __init__(
        self,
        files: DeliveredFiles,
        images: Sequence[ImageRecord],
        classes: Sequence[str],
        rules: BoxRules | None = None,
    ) -> None:
        self.files = files
        self.images = images
        self.classes = tuple(classes)
        self.rules = rules
        self.names = ImageNames(images)
        self.by_id = {image.image_id: image for image in images}
        self.by_hash = {image.sha256: image for image in images if image.sha256}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.sheets: dict[str, list[Sheet]] = {image_id: [] for image_id in self.by_id}
        self.strangers: dict[str, str] = {}  # name of an image to file
        self._images: dict[str, str] | None = None  # delivered ones, by stem
        for name, reason in files.refused:
            what = f'{reason} and is not opened'
            self.warn(name, what, 'Put a plain file in its place if it matters.')

    def problem(self, file: str, what: str, advice: str, place: str = '') -> None:
        """Note what is wrong with a file."""
        self.note(Problem('', file, place, what, advice))

    def note(self, problem: Problem) -> None:
        """List a problem, and that there are more where the list is full."""
        if len(self.problems) < MAX_NOTES[1]:
            self.problems.append(problem)
        elif len(self.problems) == MAX_NOTES[1]:
            advice = 'Mend these first.'
            self.problems.append(Problem('', '', '', 'more is wrong', advice))

    def warn(self, file: str, what: str, advice: str, place: str = '') -> None:
        self.warnings.append(Problem('', file, place, what, advice))

    def parsed(
        self, names: Sequence[str], *parsers: Callable, limit: int | None = None
    ) -> Iterator[tuple[str, object]]:
        """(name, content) of files, each parser on what the one before makes of it."""
        for name in names:
            try:
                content = self.files.read(name, *([limit] if limit else []))
                for parser in parsers:
                    content = parser(content)
            except Unusable as error:
                self.problem(name, error.what, error.advice)
            else:
                yield name, content

    def find(self, name, file: str, place: str = '') -> ImageRecord | None:
        """The image of a file name, path or URL, which is noted if there is none."""
        if not isinstance(name, str) or not name:
            what = f'names no image but {shown(name)}'
            self.problem(file, what, 'Export it again.', place)
            return None
        found = self.names.find(name) or self._find_by_content(name)
        if found is None:
            self.strangers.setdefault(name, file)
        return found

    def _find_by_content(self, name: str) -> ImageRecord | None:
        if not self.by_hash:
            return None
        if self._images is None:
            self._images = {}
            for file in self.files.with_suffix(*IMAGE_SUFFIXES):
                self._images.setdefault(stem(base_name(file)), file)
        file = self._images.get(stem(base_name(name)))
        return file and self.by_hash.get(self.files.sha256(file))

    def sheet(self, image: ImageRecord, file: str, place: str = '') -> 'Sheet':
        """Where to note what a place in a file says about an image."""
        kind = ClassSheet if self.rules is None else BoxSheet
        sheet = kind(self, image, file, place)
        self.sheets[image.image_id].append(sheet)
        return sheet

    def nearest(self, name: str) -> str:
        """Advice on a name that is no class."""
        known = {one.casefold(): one for one in self.classes}
        near = difflib.get_close_matches(name[:100].casefold(), known, 1)
        guess = f'Did you mean {known[near[0]]!r}? ' if near else ''
        return f'{guess}Correct it in the tool. Classes: {", ".join(self.classes)}.'

    def delivery(self) -> Delivery:
        """What is to be made of it all."""
        delivery = Delivery(problems=self.problems, warnings=self.warnings)
        for image in self.images:
            sheets = self.sheets[image.image_id]
            self._close(delivery, image.image_id, sheets)
        self._note_strangers()
        return delivery

    def _close(self, delivery: Delivery, image_id: str, sheets: list) -> None:
        answers = [sheet.close() for sheet in sheets]
        states = {sheet.state for sheet in sheets}
        if 'refused' in states:
            delivery.refused.append(image_id)
        elif 'answered' in states:
            given = [a for s, a in zip(sheets, answers, strict=True) if a is not None]
            if 'skipped' in states or any(one != given[0] for one in given):
                self._note_several(sheets)
                delivery.refused.append(image_id)
            else:
                delivery.answers[image_id] = given[0]
        elif 'skipped' in states:
            delivery.skipped.append(image_id)
        else:
            delivery.unanswered.append(image_id)

    def _note_several(self, sheets: list) -> None:
        places = [f'{s.file} {s.place}'.strip() for s in sheets[1:4]]
        sheets[0].problem(
            f'the image has {len(sheets)} answers that differ, also in '
            f'{"; ".join(places)}',
            'Leave one of them (COCO of Label Studio lists an image once for each '
            'annotator: export its JSON).',
        )

    def _note_strangers(self) -> None:
        count = len(self.strangers)
        found = any(self.sheets.values())
        if not found and not self.problems:
            self._note_nothing()
        elif count:
            first = ', '.join(shown(name) for name in list(self.strangers)[:5])
            more = f' and {count - 5} more' if count > 5 else ''
            self.warn(
                next(iter(self.strangers.values())),
                f'{count} images of the delivery were not asked for: {first}{more}',
                'They are left out. If one is an image of this stage under another '
                'name, give it the name of its exported file.',
            )

    def _note_nothing(self) -> None:
        what = 'says nothing about any of the images that were asked for'
        advice = 'Deliver the annotations of this stage, as the instructions say.'
        if self.strangers:
            name, file = next(iter(self.strangers.items()))
            ours = [image.file_name for image in self.images]
            near = difflib.get_close_matches(base_name(name)[:200], ours, 1, 0)
            known = f', the nearest of ours is {near[0]!r}' if near else ''
            what += f': an image of it is {shown(name)}{known}'
        else:
            file = self.files.path.name
        self.problem(file, what, advice)


class Sheet(ABC):
    """What one place of a delivery says about an image.

    Attributes:
        state: 'answered', 'skipped', 'unanswered' or 'refused'.
    """

    def __init__(self, reading: Reading, image: ImageRecord, file: str, place: str):
        self.reading, self.image = reading, image
        self.file, self.place = file, place
        self.state = 'answered'
        self._noted = 0

    def problem(self, what: str, advice: str, place: str = '') -> None:
        """Note why the answer cannot be used."""
        self.state = 'refused'
        self._noted += 1
        if self._noted == MAX_NOTES[0]:
            what, advice, place = (
                'more is wrong with this image',
                'Mend that first.',
                '',
            )
        if self._noted <= MAX_NOTES[0]:
            self.reading.note(self._note(what, advice, place))

    def warn(self, what: str, advice: str, place: str = '') -> None:
        self.reading.warnings.append(self._note(what, advice, place))

    def _note(self, what: str, advice: str, place: str) -> Problem:
        place = ', '.join(part for part in (self.place, place) if part)
        return Problem(self.image.image_id, self.file, place, what, advice)

    def set_aside(self, state: str) -> None:
        """Say that it is no answer: 'skipped' or 'unanswered'."""
        self.state = state

    @abstractmethod
    def close(self) -> Answer | None:
        """The answer, or None by ``state``."""


class ClassSheet(Sheet):
    """Collects the class of an image."""

    def __init__(self, *where) -> None:
        super().__init__(*where)
        self.names: list[str] = []

    def choose(self, name, place: str = '') -> None:
        """Note a class."""
        if not isinstance(name, str) or name not in self.reading.classes:
            advice = self.reading.nearest(str(name)[:100])
            self.problem(f'class {shown(name)} is unknown', advice, place)
        else:
            self.names.append(name)

    def close(self) -> str | None:
        if self.state != 'answered':
            return None
        if len(self.names) != 1:
            named = ', '.join(map(repr, self.names)) or 'none'
            self.problem(f'expected one class, found {named}', 'Choose one.')
            return None
        return self.names[0]


class BoxSheet(Sheet):
    """Collects the boxes of an image, and applies the rules to them.

    Attributes:
        says_nothing: Somebody said that nothing is there.
    """

    def __init__(self, *where) -> None:
        super().__init__(*where)
        self.boxes: list[Box] = []
        self.says_nothing = False
        self._wrong_size = False
        self.dropped = 0
        self.shapes: collections.Counter = collections.Counter()
        self.tags: collections.Counter = collections.Counter()
        self.unknown: dict[str, int] = {}

    def check_size(self, width, height, place: str = '') -> None:
        """Refuse boxes that were drawn on an image of another size, in pixels."""
        if width in (None, '', 0, '0') and height in (None, '', 0, '0'):
            what = 'the size of the image is not given'
            self.warn(what, 'Make sure that the image was not resized.', place)
            return
        found = numbers((width, height))
        ours = [self.image.width, self.image.height]
        if found == ours or self._wrong_size:
            return
        self._wrong_size = True
        there = ' x '.join(f'{side:g}' for side in found or ()) or 'no such number of'
        what = f'the image has {there} pixels there, '
        what += f'{ours[0]} x {ours[1]} as exported'
        advice = 'Label the exported image, and export without resizing'
        if found == ours[::-1]:
            advice = 'It was turned (EXIF?): label the exported image, which is upright'
        self.problem(what, f'{advice}.', place)

    def box(self, name, sides: Sequence, place: str, ignore: bool = False) -> None:
        """Note a box.

        Args:
            name: Its class, unchecked.
            sides: x1, y1, x2, y2 in pixels from 0, unchecked.
            place: In the file, for messages.
            ignore: As in ``Box``.
        """
        values = numbers(sides)
        if values is None:
            found = ', '.join(map(shown, sides))
            expected = f'expected four numbers, found {found}'
            self.problem(f'a box has bad coordinates: {expected}', 'Mend it.', place)
        elif not isinstance(name, str) or not name:
            what = f'a box has no class but {shown(name)}'
            self.problem(what, 'Give it one, or remove it.', place)
        elif name not in self.reading.classes:
            self.unknown[name] = self.unknown.get(name, 0) + 1
        else:
            self._add(name, values, place, ignore)

    def _add(self, name: str, sides: list[float], place: str, ignore: bool) -> None:
        rule = self.reading.rules.bad_boxes
        x1, y1, x2, y2 = sides
        width, height = self.image.width, self.image.height
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
        outside = max(abs(a - b) for a, b in zip(sides, cut, strict=True)) > ROUNDING
        bad = ''
        # Also true for NaN. mmdet skips boxes below a pixel.
        if not (cut[2] - cut[0] >= 1 and cut[3] - cut[1] >= 1):
            empty = not (x2 - x1 >= 1 and y2 - y1 >= 1)
            bad = 'has less than a pixel' if empty else 'lies outside its image'
        elif outside and rule != 'clip':
            bad = 'leaves its image'
        if not bad:
            self.boxes.append(Box(name, tuple(map(float, cut)), None, ignore))
        elif rule == 'drop':
            self.dropped += 1
        else:
            written = ', '.join(f'{side:.6g}' for side in sides)
            what = f'the box ({written}) of {name!r} {bad}, {width} x {height} pixels'
            ways = "bad_boxes='drop' leaves such boxes out"
            if bad == 'leaves its image':
                ways += ", 'clip' cuts them"
            self.problem(what, f'Mend it; or {ways}.', place)

    def corners(self, name, points: Sequence, place: str) -> None:
        """Note the envelope of a rotated box or polygon.

        Args:
            name: Its class, unchecked.
            points: (x, y) in pixels, finite.
            place: In the file.
        """
        xs, ys = zip(*points, strict=True)
        self.box(name, (min(xs), min(ys), max(xs), max(ys)), place)

    def rotated_box(
        self, name, sides: Sequence, degrees, pivot: tuple[float, float], place: str
    ) -> None:
        """Note a box that may be rotated.

        Args:
            name: Its class, unchecked.
            sides: x1, y1, x2, y2 in pixels before it is rotated, unchecked.
            degrees: Clockwise, unchecked; None and multiples of 90 are no rotation
                that an upright box could not have.
            pivot: Its centre as shares of the box: (0, 0) is the left upper corner,
                (0.5, 0.5) the middle.
            place: In the file.
        """
        values = numbers(sides)
        angle = number(0 if degrees is None else degrees)
        if angle is None:
            self.problem(f'a rotation is {shown(degrees)}', 'Mend it.', place)
        elif values is None or abs(math.remainder(angle, 360)) < 0.01:
            self.box(name, sides, place)
        elif (
            abs(math.remainder(angle, 90)) >= 0.01
            and self.reading.rules.rotated == 'error'
        ):
            self.shapes['rotated box'] += 1
        else:
            self.corners(name, rotated_corners(values, angle, pivot), place)

    def polygon(self, name, points: Sequence[Sequence], place: str) -> None:
        """Note a polygon with (x, y) in pixels, unchecked."""
        pairs = [numbers(point) for point in points]
        whole = all(pair is not None and len(pair) == 2 for pair in pairs)
        if self.reading.rules.shapes == 'error':
            self.shapes['polygon'] += 1
        elif len(pairs) < 3 or not whole:
            self.problem('a polygon is broken', 'Remove it, or draw a box.', place)
        else:
            self.corners(name, pairs, place)

    def other_shape(self, kind: str) -> None:
        """Note a mask, point, line or what else no box stands for."""
        self.shapes[kind] += 1

    def tag(self, kind: str) -> None:
        """Note what is said of the whole image beside boxes."""
        self.tags[kind] += 1

    def close(self) -> tuple[Box, ...] | None:
        if self.state in ('skipped', 'unanswered'):
            return None
        self._note_shapes()
        for name, count in self.unknown.items():
            boxes = f' of {count} boxes' if count > 1 else ''
            what = f'class {shown(name)}{boxes} is unknown'
            self.problem(what, self.reading.nearest(name))
        if len(self.boxes) > MAX_BOXES:
            what = f'the image has {len(self.boxes)} boxes'
            self.problem(what, f'At most {MAX_BOXES} are read: remove some.')
        if self.state == 'refused':
            return None
        boxes = self._without_duplicates()
        if self.dropped and boxes:
            what = f'{self.dropped} boxes below a pixel or outside are left out'
            self.warn(what, 'Draw them again if they matter.')
        if not boxes:
            self._note_no_boxes()
        elif self.says_nothing:
            what = f"it says 'nothing there' and has {len(boxes)} boxes"
            self.problem(what, 'Remove one or the other.')
        elif self.tags:
            what = f'it has {_counts(self.tags)} beside boxes'
            self.warn(what, 'They are left out.')
        return tuple(boxes) if self.state == 'answered' else None

    def _note_shapes(self) -> None:
        if not self.shapes:
            return
        advice = 'Draw upright boxes in their place'
        for kind, setting in (('rotated box', 'rotated'), ('polygon', 'shapes')):
            if kind in self.shapes:
                advice += f"; {setting}='envelope' takes the box around a {kind}"
        what = f'the image has what is no upright box: {_counts(self.shapes)}'
        self.problem(what, f'{advice}.')

    def _note_no_boxes(self) -> None:
        if self.dropped:
            what = f'all {self.dropped} boxes were bad and left out: nothing is left'
            self.problem(what, 'Draw them again, or remove them in the tool.')
        elif self.tags and not self.says_nothing:
            what = f'the image has {_counts(self.tags)} and no boxes'
            self.problem(what, 'Remove them if nothing is there, or draw boxes.')
        elif not self.says_nothing:
            rule = self.reading.rules.no_boxes
            if rule == 'unanswered':
                self.set_aside('unanswered')
            elif rule == 'error':
                self.problem(
                    'the image has no boxes, and this format does not tell whether '
                    'somebody looked at it',
                    "Say it once for all: no_boxes='nothing' if they looked at every "
                    "image and nothing is there, or no_boxes='unanswered'.",
                )

    def _without_duplicates(self) -> list[Box]:
        kept: list[Box] = []
        twice = 0
        for name in dict.fromkeys(box.name for box in self.boxes):
            boxes = [box for box in self.boxes if box.name == name]
            sides = np.array([box.bbox for box in boxes])
            for row, box in enumerate(boxes):
                same = overlap(box.bbox, sides[:row]).max(initial=0) >= SAME_BOX
                twice += same
                if not same or self.reading.rules.duplicates == 'keep':
                    kept.append(box)
        if twice:
            dropped = self.reading.rules.duplicates == 'drop'
            advice = "They are left out (duplicates='drop')."
            what = f'{twice} boxes are almost equal to others of their class'
            self.warn(what, advice if dropped else "duplicates='drop' leaves them out.")
        chosen = {id(box) for box in kept}
        return [box for box in self.boxes if id(box) in chosen]


def rotated_corners(
    sides: Sequence[float], degrees: float, pivot: tuple[float, float]
) -> list[tuple[float, float]]:
    """Corners of a box, xyxy in pixels, rotated clockwise about a point in it.

    >>> corners = rotated_corners((10, 10, 14, 12), 90, (0, 0))
    >>> [(round(x), round(y)) for x, y in corners]
    [(10, 10), (10, 14), (8, 14), (8, 10)]
    """
    x1, y1, x2, y2 = sides
    angle = math.radians(math.remainder(degrees, 360))
    cos, sin = math.cos(angle), math.sin(angle)
    px, py = x1 + pivot[0] * (x2 - x1), y1 + pivot[1] * (y2 - y1)
    corners = (x1, y1), (x2, y1), (x2, y2), (x1, y2)
    # y points down, so this turns clockwise.
    return [
        (
            px + (x - px) * cos - (y - py) * sin,
            py + (x - px) * sin + (y - py) * cos,
        )
        for x, y in corners
    ]


def _counts(counter: collections.Counter) -> str:
    return ', '.join(f'{count} x {kind}' for kind, count in counter.items())
