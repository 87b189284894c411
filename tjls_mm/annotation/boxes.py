"""What annotators are asked and what they answer: records that every format shares."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.files import write_text


@dataclass(frozen=True)
class Box:
    """One object of an image.

    Attributes:
        name: Its class.
        bbox: x1, y1, x2, y2 in pixels of the upright image, whose left upper corner
            is (0, 0) and right lower corner (width, height).
        score: In [0, 1], where a model predicted it.
        ignore: Neither trained on nor evaluated ('difficult', 'iscrowd').
    """

    name: str
    bbox: tuple[float, float, float, float]
    score: float | None = None
    ignore: bool = False


@dataclass(frozen=True)
class ImageRecord:
    """An image as annotators get it.

    Attributes:
        image_id: Of the trial.
        file_name: Of the exported file: no folder in it, unique without its suffix.
        width: In pixels, upright.
        height: In pixels, upright.
        sha256: Of the exported file, as hex; finds a renamed image. May be empty.
    """

    image_id: str
    file_name: str
    width: int
    height: int
    sha256: str = ''


Answer = tuple[Box, ...] | str
"""Of an image: its boxes, none where nothing is there; or its class."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a delivery, in words for who delivered it.

    Attributes:
        image_id: Empty where it is not about one image.
        file: Delivered file, below the delivered path.
        place: In the file, e.g. 'line 4'.
        what: Is wrong.
        advice: What to do.
    """

    image_id: str
    file: str
    place: str
    what: str
    advice: str

    def __str__(self) -> str:
        where = ', '.join(part for part in (self.file, self.place) if part)
        whose = f' ({self.image_id})' if self.image_id else ''
        return f'{where}{whose}: {self.what}. {self.advice}'


@dataclass
class Delivery:
    """What came back from an annotation tool.

    Every image that was asked for is in one of ``answers``, ``skipped``,
    ``unanswered`` and ``refused``.

    Attributes:
        answers: By image_id.
        skipped: Images that somebody looked at and did not want to label.
        unanswered: Images that the delivery says nothing about.
        refused: Images whose answer cannot be used; ``problems`` say why.
        problems: All of them; an answer needs them mended.
        warnings: What is worth a look and stops nothing.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def summary(self) -> str:
        """One line of counts."""
        empty = sum(answer == () for answer in self.answers.values())
        parts = [f'{len(self.answers)} answered']
        parts[0] += f' ({empty} with nothing there)' if empty else ''
        for name in ('skipped', 'unanswered', 'refused'):
            if ids := getattr(self, name):
                parts.append(f'{len(ids)} {name}')
        return ', '.join(parts)

    def write_problems(self, path: str | Path) -> None:
        """Write problems, then warnings, as a CSV table."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator='\n')
        writer.writerow(['severity', 'image_id', 'file', 'place', 'what', 'what_to_do'])
        for severity in ('problem', 'warning'):
            for one in getattr(self, f'{severity}s'):
                row = [one.image_id, one.file, one.place, one.what, one.advice]
                writer.writerow([severity, *map(_cell, row)])
        write_text(path, table.getvalue())

    def raise_problems(self, table: str | Path) -> None:
        """InputError on the first problem, if any, that names the table of all."""
        if not self.problems:
            return
        self.write_problems(table)
        count = len(self.problems)
        rest = f' {table} lists all {count} problems.' if count > 1 else ''
        raise InputError(f'{self.problems[0]}{rest} {self.summary()}.')


def _cell(text: str) -> str:
    # Lone surrogates from JSON have no place in UTF-8.
    text = text.encode('utf-8', 'backslashreplace').decode('utf-8')
    # Spreadsheets take what begins like this for a formula, and names are strangers'.
    return f"'{text}" if text[:1] in '=+-@\t\r' and text else text


def untouched(
    answers: Mapping[str, Answer], sent: Mapping[str, Sequence[Box]]
) -> list[str]:
    """Images whose answer is what was sent as a suggestion, to a pixel.

    In formats that do not tell suggestions from answers nobody may have looked at
    them.
    """
    return [
        image_id
        for image_id, answer in answers.items()
        if sent.get(image_id) and _same_boxes(answer, sent[image_id])
    ]


def _same_boxes(first: Answer, second: Sequence[Box]) -> bool:
    if isinstance(first, str) or len(first) != len(second):
        return False
    left = list(second)
    for box in first:
        same = (one for one in left if one.name == box.name and _is_near(one, box))
        if (found := next(same, None)) is None:
            return False
        left.remove(found)
    return True


def _is_near(first: Box, second: Box) -> bool:
    return np.abs(np.subtract(first.bbox, second.bbox)).max() <= 1


def overlap(one: Sequence[float], others: np.ndarray) -> np.ndarray:
    """IoU of a box with others, xyxy: (4,) and (N, 4) to (N,).

    >>> overlap((0, 0, 2, 1), np.array([[0, 0, 1, 1], [5, 5, 6, 6]]))
    array([0.5, 0. ])
    """
    one, others = np.asarray(one, float), np.asarray(others, float).reshape(-1, 4)
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    common = sides.clip(0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return common / (areas + (one[2:] - one[:2]).prod() - common)
