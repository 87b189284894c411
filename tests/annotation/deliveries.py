"""Images that were asked for, and deliveries about them."""

import json
from pathlib import Path

from tjls_mm.annotation import Delivery, ImageRecord

CLASSES = ('helmet', 'head & neck', 'Müll')
IMAGES = [
    ImageRecord('VOC2007/000004', '000001_000004_aa11.jpg', 200, 120),
    ImageRecord('VOC2012/000004', '000002_000004_bb22.jpg', 120, 200),
    ImageRecord('street/a b&c#1.png', '000003_a-b-c-1_cc33.png', 640, 480),
]
FIRST, SECOND, THIRD = (image.image_id for image in IMAGES)
NAMES = [image.file_name for image in IMAGES]


def deliver(path: Path, content) -> Path:
    """Write a file of a delivery: text as it is, else JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding='utf-8')
    return path


def read(form, path: Path) -> Delivery:
    """What a format makes of a delivery; every image is in one place of it."""
    delivery = form.read(path, IMAGES, CLASSES)
    parts = delivery.skipped, delivery.unanswered, delivery.refused
    everywhere = [*delivery.answers, *(one for part in parts for one in part)]
    assert sorted(everywhere) == sorted(image.image_id for image in IMAGES)
    assert {p.image_id for p in delivery.problems} - {''} <= set(delivery.refused)
    return delivery


def told(delivery: Delivery) -> str:
    """All problems as one text."""
    return '\n'.join(map(str, delivery.problems))


def warned(delivery: Delivery) -> str:
    return '\n'.join(map(str, delivery.warnings))


def sides(delivery: Delivery, image_id: str) -> list[tuple]:
    """(class, x1, y1, x2, y2) of an answer, to a hundredth of a pixel."""
    return [
        (box.name, *(round(side, 2) for side in box.bbox))
        for box in delivery.answers[image_id]
    ]
