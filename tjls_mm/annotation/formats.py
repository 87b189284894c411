"""The interface of annotation formats: files for a tool, and what comes back of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from tjls_mm.annotation.boxes import Answer, Box, Delivery, ImageRecord
from tjls_mm.annotation.delivered_files import DeliveredFiles
from tjls_mm.annotation.image_names import ImageNames
from tjls_mm.annotation.reading import BoxRules, Reading
from tjls_mm.errors import InputError

IMAGES = 'images'
"""Folder of the exported images, below that of the files for the tool."""


class AnnotationFormat(ABC):
    """Files of an annotation tool.

    Attributes:
        task: 'detection', an answer is boxes, or 'classification', a class.
        tells_empty: Whether it tells 'nothing there' from 'not yet'.
        tells_suggestions: Whether it tells untouched suggestions from answers; if
            not, see ``boxes.untouched``.
    """

    task: str
    tells_empty = False
    tells_suggestions = False

    @abstractmethod
    def write(
        self,
        folder: str | Path,
        images: Sequence[ImageRecord],
        suggestions: Mapping[str, Answer],
        classes: Sequence[str],
    ) -> list[Path]:
        """Write the files that a tool needs beside the images.

        Args:
            folder: Where; the images themselves lie in its ``images``.
            images: To annotate.
            suggestions: By image_id, what a model predicted; some, all or no images.
            classes: Names in order.

        Returns:
            The files.

        Raises:
            InputError: If a name cannot be written in this format, or the disk
                refuses.
        """

    @abstractmethod
    def _read(self, reading: Reading) -> None:
        """Note in ``reading`` what the files say; raises nothing."""

    def read(
        self, path: str | Path, images: Sequence[ImageRecord], classes: Sequence[str]
    ) -> Delivery:
        """Read what came back; nothing is written.

        Args:
            path: A file, a folder or a zip.
            images: That were asked for, the same records as were written.
            classes: Names in order.

        Returns:
            What is said of every image, and all that is wrong with it.

        Raises:
            InputError: If there is nothing at ``path``, or it is a broken zip.
        """
        with DeliveredFiles(path) as files:
            reading = Reading(files, images, classes, self._rules())
            self._read(reading)
            return reading.delivery()

    def _rules(self) -> BoxRules | None:
        return None

    @abstractmethod
    def instructions(self) -> str:
        """What to do in the tool, as lines of Markdown."""


class DetectionFormat(AnnotationFormat):
    """Files with boxes.

    Args:
        **rules: Of ``BoxRules``.
    """

    task = 'detection'

    def __init__(self, **rules) -> None:
        self.rules = BoxRules(**rules)
        if self.tells_empty and 'no_boxes' in rules:
            raise InputError(
                f"{type(self).__name__} tells 'nothing there' from 'not yet': remove "
                'no_boxes.'
            )

    def _rules(self) -> BoxRules:
        return self.rules


class ClassificationFormat(AnnotationFormat):
    """Files with a class per image."""

    task = 'classification'


def check_export(
    images: Sequence[ImageRecord],
    classes: Sequence[str],
    suggestions: Mapping[str, Answer],
) -> None:
    """InputError if names of images or classes cannot be written to files."""
    ImageNames(images)
    for image_id, answer in suggestions.items():
        for one in [answer] if isinstance(answer, str) else answer:
            name = one if isinstance(one, str) else one.name
            if name not in classes:
                raise InputError(
                    f'The suggestion for {image_id} has class {name!r}: expected one '
                    f'of {list(classes)}.'
                )
    for name in classes:
        if not name.isprintable() or name != name.strip() or not name:
            raise InputError(
                f'Class {name!r}: expected printable characters without blanks around '
                'them. Rename it in data_source.classes.'
            )


def suggested_boxes(
    image: ImageRecord, suggestions: Mapping[str, Answer]
) -> Sequence[Box]:
    """Boxes that were predicted for an image, cut at its border."""
    found = []
    for box in suggestions.get(image.image_id, ()):
        x1, y1, x2, y2 = map(float, box.bbox)
        x1, x2 = sorted((max(x1, 0.0), min(x2, float(image.width))))
        y1, y2 = sorted((max(y1, 0.0), min(y2, float(image.height))))
        found.append(Box(box.name, (x1, y1, x2, y2), box.score, box.ignore))
    return found
