"""Pictures of selections."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from tjls_mm.files import atomic_path


def draw_gallery(
    path: Path, image_ids: Sequence[str], open_image: Callable[[str], Image.Image]
) -> None:
    """Draw the first images of a selection, at least one, in order, as a PNG file."""
    columns, rows, side, text = 6, 4, 150, 14
    shown = image_ids[: columns * rows]
    size = columns * side, -(-len(shown) // columns) * (side + text)
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for i, image_id in enumerate(shown):
        left, top = i % columns * side, i // columns * (side + text)
        image = open_image(image_id).convert('RGB')
        thumbnail = ImageOps.contain(image, (side - 4, side - 4))
        sheet.paste(thumbnail, (left + 2, top + 2))
        draw.text((left + 2, top + side), f'{i + 1}. {image_id}'[-24:], fill='black')
    with atomic_path(path) as temporary:
        sheet.save(temporary, format='PNG')
