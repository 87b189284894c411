"""Pictures of selections."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from tjls_mm.files import atomic_path

COLUMNS, ROWS, SIDE, LINE = 6, 4, 150, 14
CAPTION = 24
"""Letters of a line below a picture."""

COLOURS = ('#e6194b', '#3cb44b', '#4363d8', '#f58231', '#911eb4', '#008080', '#9a6324')
"""Of the boxes of a class, by its number."""

Mark = tuple[tuple[float, float, float, float], int, str]
"""A box, its sides as shares of the image's width and height, its class, and a text."""


def draw_gallery(
    path: Path,
    image_ids: Sequence[str],
    open_image: Callable[[str], Image.Image],
    marks: Callable[[str], Sequence[Mark]] = lambda image_id: (),
    reasons: Mapping[str, str] | None = None,
) -> None:
    """Draw the first images of a selection, at least one, in order, as a PNG file.

    Args:
        path: Of the file.
        image_ids: First choice first.
        open_image: To look at.
        marks: What the learner sees in an image.
        reasons: image_id to why it was chosen, lines below its name.
    """
    shown = image_ids[: COLUMNS * ROWS]
    captions = {i: (reasons or {}).get(i, '').split('\n') for i in shown}
    # Without any reason there is no line for it.
    lines = max(map(len, captions.values())) if reasons else 0
    height = SIDE + LINE * (1 + lines)
    size = COLUMNS * SIDE, -(-len(shown) // COLUMNS) * height
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for i, image_id in enumerate(shown):
        left, top = i % COLUMNS * SIDE, i // COLUMNS * height
        image = open_image(image_id).convert('RGB')
        thumbnail = ImageOps.contain(image, (SIDE - 4, SIDE - 4))
        for mark in marks(image_id):
            _draw_mark(thumbnail, mark)
        sheet.paste(thumbnail, (left + 2, top + 2))
        name = f'{i + 1}. {image_id}'[-CAPTION:]
        draw.text((left + 2, top + SIDE), name, fill='black')
        for line, text in enumerate(captions[image_id][:lines], 1):
            place = left + 2, top + SIDE + line * LINE
            draw.text(place, text[:CAPTION], fill='#555555')
    with atomic_path(path) as temporary:
        sheet.save(temporary, format='PNG')


def _draw_mark(thumbnail: Image.Image, mark: Mark) -> None:
    (x1, y1, x2, y2), number, text = mark
    width, height = thumbnail.size
    colour, draw = COLOURS[number % len(COLOURS)], ImageDraw.Draw(thumbnail)
    left, top = x1 * width, y1 * height
    draw.rectangle(
        (left, top, max(left, x2 * width), max(top, y2 * height)), None, colour
    )
    draw.text((left + 2, top), text, fill=colour)
