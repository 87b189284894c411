r"""Make a pool of synthetic images from class folders of real ones.

For sub-sampling synthetic data (TJLS, Sec. 4.3) without a generative model: images are
split by subject into real and test, and real ones distorted, slightly to strongly.

    python tools/make_synthetic_pool.py data/ck48 data/ck48_synthetic \
        --subject-pattern '^(S\d+)_'

writes ``real/<class>/S010_004_00000017.png``, ``test/<class>/S011_004_00000019.png``
and ``synthetic/<class>/S010_004_00000017_v00.png``, variant 0 of a real image.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter, map_coordinates

from tjls_mm.errors import InputError
from tjls_mm.randomness import generator

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def split_images(images: list[str], args: argparse.Namespace) -> dict[str, list[str]]:
    """'real' and 'test' of sorted ``<class>/<name>``, of different subjects.

    Raises InputError where a name has none, or a class is missing on one side.
    """
    pattern = args.subject_pattern
    found = {i: re.search(pattern, i.rpartition('/')[2]) for i in images}
    for image in images:
        if not found[image] or not found[image].groups():
            raise InputError(f'--subject-pattern {pattern!r} finds none in {image!r}.')
    names = sorted({match[1] for match in found.values()})
    count = min(max(round(args.test_share * len(names)), 1), len(names) - 1)
    order = generator(args.seed, 'subjects').permutation(len(names))
    held_out = {names[i] for i in order[:count]}
    splits = {'real': [i for i in images if found[i][1] not in held_out]}
    splits['test'] = [i for i in images if found[i][1] in held_out]
    for split, part in splits.items():
        missing = {i.split('/')[0] for i in images} - {i.split('/')[0] for i in part}
        if missing:
            raise InputError(
                f'Class {min(missing)!r} has no image in {split}: {count} of '
                f'{len(names)} subjects are held out. Give another --test-share, '
                '--seed or --subject-pattern.'
            )
    return splits


def distort(pixels: np.ndarray, strength: float, rng: np.random.Generator):
    """Geometry, sharpness, light, noise, occlusion of (H, W, C) in [0, 1], changed."""

    def amount(most: float) -> float:
        # Half to all of what the strength allows, to either side.
        return most * strength * rng.uniform(0.5, 1) * rng.choice((-1, 1))

    (height, width), side = pixels.shape[:2], min(pixels.shape[:2])
    # An affine map and elastic distortion in one resampling.
    angle, zoom, shear = amount(np.deg2rad(25)), np.exp(amount(0.25)), amount(0.2)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = np.array(turn) @ np.array([[1, shear], [0, 1]]) / zoom
    shift = np.array([amount(0.1), amount(0.1)]) * side
    field = rng.uniform(-1, 1, (2, height, width))
    field = gaussian_filter(field, (0, 0.1 * side, 0.1 * side), mode='constant')
    field *= amount(0.07) * side / np.abs(field).max()
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.indices((height, width), dtype=float) - centre[:, None, None]
    places = np.tensordot(matrix, grid, 1) + (centre + shift)[:, None, None] + field
    channels = np.moveaxis(pixels, 2, 0)
    moved = [map_coordinates(c, places, order=1, mode='nearest') for c in channels]
    pixels = np.stack(moved, axis=2)
    blur = abs(amount(0.04)) * side
    pixels = gaussian_filter(pixels, (blur, blur, 0))
    pixels = np.clip(pixels, 0, 1) ** np.exp(amount(0.7))
    pixels = 0.5 + amount(0.2) + (pixels - 0.5) * np.exp(amount(0.6))
    pixels = pixels + rng.standard_normal((height, width, 1)) * abs(amount(0.09))
    if rng.random() < strength:  # a rectangle of the mean colour, dimmed
        sides = 0.15 + 0.4 * strength * rng.random(2)
        h, w = max(round(sides[0] * height), 1), max(round(sides[1] * width), 1)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        colour = pixels.mean((0, 1)) * rng.uniform(0.2, 1)
        pixels[top : top + h, left : left + w] = colour
    return np.clip(pixels, 0, 1)


def write_pool(args: argparse.Namespace, folder: Path) -> None:
    """Write all splits into a folder; InputError if an image cannot be read."""
    paths = [p for p in args.source.glob('*/**/*') if p.suffix.lower() in EXTENSIONS]
    images = sorted(path.relative_to(args.source).as_posix() for path in paths)
    if not images:
        raise InputError(f'{args.source} has no <class>/<image> ({EXTENSIONS}).')
    splits = split_images(images, args)
    for split, names in splits.items():
        for name in names:
            (folder / split / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(args.source / name, folder / split / name)
    for name in splits['real']:
        try:
            with Image.open(args.source / name) as image:
                kind, grey = image.format, image.mode in ('1', 'L', 'LA')
                upright = ImageOps.exif_transpose(image).convert('L' if grey else 'RGB')
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f'{args.source / name} is no image ({error}).') from None
        path = folder / 'synthetic' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for variant in range(args.per_image):
            rng = generator(args.seed, 'synthetic', name, variant)
            # Strengths are drawn, so more variants leave the first ones as they are.
            strength = float(rng.uniform(0.1, 1))
            pixels = np.atleast_3d(np.asarray(upright, float)) / 255
            made = np.round(distort(pixels, strength, rng) * 255).astype(np.uint8)
            target = path.with_name(f'{path.stem}_v{variant:02d}{path.suffix}')
            # Other formats than JPEG take no notice of the quality.
            Image.fromarray(made.squeeze()).save(target, format=kind, quality=95)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data set in one step; 1 where the user has to mend something."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add = parser.add_argument
    add('source', type=Path, help='folder of <class>/<image>')
    add('out', type=Path, help='folder to write')
    add('--subject-pattern', default='(.*)', help='first group: subject in a name')
    add('--test-share', type=float, default=0.3, help='of the subjects, in (0, 1)')
    add('--per-image', type=int, default=4, help='synthetic images per real one')
    add('--seed', type=int, default=0, help='of split and distortions')
    args = parser.parse_args(argv)
    try:
        if args.out.exists():
            raise InputError(f'{args.out} exists: give another folder, or remove it.')
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.out.parent) as scratch:
            write_pool(args, Path(scratch) / 'made')
            (Path(scratch) / 'made').rename(args.out)
    except (InputError, re.error) as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
