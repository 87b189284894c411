"""The project's own file of answers: COCO's shape, floats, pixels from 0."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tjls_mm.annotation.boxes import Answer, Box, ImageRecord
from tjls_mm.errors import InputError
from tjls_mm.files import write_text


class StoredAnswers(NamedTuple):
    """Content of a file of answers."""

    images: list[ImageRecord]  # that were answered
    answers: dict[str, Answer]  # of each of them, by image_id
    classes: tuple[str, ...]


def write_answers(
    path: str | Path,
    images: Sequence[ImageRecord],
    answers: Mapping[str, Answer],
    classes: Sequence[str],
) -> None:
    """Write answers atomically; ``read_answers`` gives equal ones, to the last bit.

    Args:
        path: File to write.
        images: Those without an answer are left out.
        answers: By image_id.
        classes: In order.

    Raises:
        InputError: If a class of an answer is none of ``classes``.
    """
    write_text(path, json.dumps(coco_content(images, answers, classes), indent=1))


def coco_content(
    images: Sequence[ImageRecord],
    answers: Mapping[str, Answer],
    classes: Sequence[str],
) -> dict:
    """Answers as an object of COCO's; whole images have annotations without box."""
    number = {name: i for i, name in enumerate(classes, 1)}
    images = [image for image in images if image.image_id in answers]
    annotations = []
    for row, image in enumerate(images, 1):
        answer = answers[image.image_id]
        for one in [answer] if isinstance(answer, str) else answer:
            name = one if isinstance(one, str) else one.name
            if name not in number:
                raise InputError(
                    f'The answer to {image.image_id} has class {name!r}: expected one '
                    f'of {list(classes)}.'
                )
            entry = {'image_id': row, 'category_id': number[name]}
            if isinstance(one, Box):
                entry |= _coco_box(one)
            annotations.append({'id': len(annotations) + 1, **entry})
    return {
        'images': [_coco_image(row, image) for row, image in enumerate(images, 1)],
        'categories': [
            {'id': i, 'name': name, 'supercategory': ''} for name, i in number.items()
        ],
        'annotations': annotations,
    }


def _coco_image(number: int, image: ImageRecord) -> dict:
    size = {'width': image.width, 'height': image.height}
    known = {'image_id': image.image_id}
    if image.sha256:
        known['sha256'] = image.sha256
    return {'id': number, 'file_name': image.file_name, **size, **known}


def _coco_box(box: Box) -> dict:
    x1, y1, x2, y2 = map(float, box.bbox)
    width, height = x2 - x1, y2 - y1
    entry = {
        'bbox': [x1, y1, width, height],
        'area': width * height,
        'iscrowd': 0,
        'segmentation': [],
    }
    if (x1 + width, y1 + height) != (x2, y2):
        # By a rounding of floats.
        entry['xyxy'] = [x1, y1, x2, y2]
    if box.ignore:
        entry['ignore'] = 1
    if box.score is not None:
        entry['score'] = float(box.score)
    return entry


def read_answers(path: str | Path) -> StoredAnswers:
    """Read what ``write_answers`` wrote.

    Raises:
        InputError: If the file is missing or something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
        images = [_record(entry) for entry in content['images']]
        names = {one['id']: one['name'] for one in content['categories']}
        ids = {one['id']: one['image_id'] for one in content['images']}
        answers = {image.image_id: () for image in images}
        for entry in content['annotations']:
            image_id, name = ids[entry['image_id']], names[entry['category_id']]
            if 'bbox' in entry:
                answers[image_id] += (_box(name, entry),)
            else:
                answers[image_id] = name
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}.') from None
    except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f'{path} is not the file of answers that was written there '
            f'({type(error).__name__}: {error}). Put the whole file back.'
        ) from None
    return StoredAnswers(images, answers, tuple(names.values()))


def _record(entry: Mapping) -> ImageRecord:
    size = int(entry['width']), int(entry['height'])
    sha256 = entry.get('sha256', '')
    return ImageRecord(entry['image_id'], entry['file_name'], *size, sha256)


def _box(name: str, entry: Mapping) -> Box:
    x, y, width, height = map(float, entry['bbox'])
    bbox = entry.get('xyxy', (x, y, x + width, y + height))
    return Box(
        name, tuple(map(float, bbox)), entry.get('score'), bool(entry.get('ignore'))
    )
