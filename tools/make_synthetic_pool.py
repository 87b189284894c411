#!/usr/bin/env python
"""Make a pool of synthetic images from class folders of real ones.

For sub-sampling synthetic data (TJLS, Sec. 4.3) where no generative model is at hand:
the real images are split by subject into real and test, and every real image is
distorted several times, slightly to strongly. Some results are as good as new images,
some are poor, and none needs an annotator: its class is that of its source.

    python tools/make_synthetic_pool.py data/ck48 data/ck48_synthetic \\
        --subject-pattern '^(S\\d+)_'

writes::

    data/ck48_synthetic/
        real/<class>/S010_004_00000017.png           copies
        test/<class>/S011_004_00000019.png           copies, of other subjects
        synthetic/<class>/S010_004_00000017_v00.png  variant 0 of a real image
        synthetic.csv    image_id,source,strength of every synthetic image
        synthetic.png    what some of them look like
        synthetic.json   parameters, subjects of real and test

A synthetic image depends on the seed, its source and its number alone; the same
parameters give the same files on the same package versions.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scipy.ndimage import gaussian_filter, map_coordinates

from tjls_mm.errors import InputError
from tjls_mm.randomness import generator

STAMP = 'synthetic.json'
# Raise it when a change to this file changes the split or the pixels.
VERSION = 1
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
"""Of ``tjls_mm.ImageFolders``, whose import would bring torch."""
MODES = {
    'L': 'L',
    'RGB': 'RGB',
    '1': 'L',
    'LA': 'L',
    'P': 'RGB',
    'RGBA': 'RGB',
    'CMYK': 'RGB',
}
"""Mode of an image to the mode it is distorted and saved in."""


def read_source(source: Path) -> list[str]:
    """Images in class folders.

    Args:
        source: Folder of ``<class>/…/<image>``.

    Returns:
        Sorted paths below it, ``/`` between their parts.

    Raises:
        InputError: If the folder is missing, holds no class folders, an image beside
            them, or a class folder without images.
    """
    if not source.is_dir():
        raise InputError(f'{source} does not exist: expected <class>/<image> in it.')
    loose = [path for path in sorted(source.iterdir()) if is_image(path)]
    if loose:
        raise InputError(
            f'{loose[0]} ({len(loose)} such files) is in no class folder: expected '
            '<class>/<image>.'
        )
    folders = [path for path in sorted(source.iterdir()) if is_visible_folder(path)]
    if not folders:
        raise InputError(
            f'{source} holds no class folders: expected <class>/<image> in it.'
        )
    images = []
    for folder in folders:
        found = [path for path in folder.rglob('*') if is_image(path)]
        if not found:
            raise InputError(
                f'{folder} holds no images ({", ".join(EXTENSIONS)}): remove it, or '
                'add some.'
            )
        images += [path.relative_to(source).as_posix() for path in found]
    return sorted(images)


def is_image(path: Path) -> bool:
    """Whether ``tjls_mm.ImageFolders`` takes the path for an image."""
    name = path.name.lower()
    return path.is_file() and name.endswith(EXTENSIONS) and not name.startswith('.')


def is_visible_folder(path: Path) -> bool:
    """Whether the path is a folder that is not hidden."""
    return path.is_dir() and not path.name.startswith('.')


def class_of(image: str) -> str:
    """Class folder of a path below the source."""
    return image.partition('/')[0]


def find_subjects(images: Sequence[str], pattern: str | None) -> dict[str, str]:
    """Who an image shows.

    Args:
        images: Paths below the source.
        pattern: Regular expression whose first group, searched in the file name, is
            the subject; None makes every image its own.

    Returns:
        Image to subject.

    Raises:
        InputError: If the pattern is wrong or does not match a file.
    """
    if pattern is None:
        return {image: image for image in images}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f'--subject-pattern {pattern!r}: {error}.') from None
    if not compiled.groups:
        raise InputError(
            f'--subject-pattern {pattern!r} has no group: put the part that names the '
            r"subject in parentheses, e.g. '^(S\d+)_'."
        )
    subjects = {}
    for image in images:
        match = compiled.search(image.rpartition('/')[2])
        if match is None or not match.group(1):
            raise InputError(
                f'--subject-pattern {pattern!r} finds no subject in the file name of '
                f'{image!r}. Mend the pattern, or rename or remove the file.'
            )
        subjects[image] = match.group(1)
    return subjects


def draw_test_subjects(subjects: Iterable[str], share: float, seed: int) -> set[str]:
    """Subjects to hold out.

    Args:
        subjects: All of them, in any order.
        share: To hold out, in (0, 1); at least one subject is held out and one left.
        seed: Of the choice.

    Raises:
        InputError: If there are fewer than two subjects.
    """
    names = sorted(set(subjects))
    if len(names) < 2:
        raise InputError(
            f'Images of {len(names)} subject ({names[0]!r}) cannot be split by '
            'subject: expected two or more. Does --subject-pattern match what it '
            'should?'
        )
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    order = generator(seed, 'subjects').permutation(len(names))
    return {names[i] for i in order[:count]}


def split_images(
    subjects: Mapping[str, str], share: float, seed: int
) -> dict[str, list[str]]:
    """Real and test images, of different subjects.

    Args:
        subjects: Image to subject.
        share: Of the subjects to hold out, in (0, 1).
        seed: Of the choice.

    Returns:
        'real' and 'test' to their images, sorted.

    Raises:
        InputError: If a class is missing on one side.
    """
    held_out = draw_test_subjects(subjects.values(), share, seed)
    splits: dict[str, list[str]] = {'real': [], 'test': []}
    for image in sorted(subjects):
        splits['test' if subjects[image] in held_out else 'real'].append(image)
    for name, images in splits.items():
        missing = sorted(set(map(class_of, subjects)) - set(map(class_of, images)))
        if missing:
            shown = {s for i, s in subjects.items() if class_of(i) == missing[0]}
            raise InputError(
                f'Class {missing[0]!r} has no image in {name}: {len(shown)} of '
                f'{len(set(subjects.values()))} subjects show it, and {len(held_out)} '
                'are held out. Give another --test-share or --seed, or remove the '
                'class.'
            )
    return splits


def distort(
    pixels: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Distort an image: geometry, sharpness, light, noise and occlusion.

    Args:
        pixels: (H, W, C), float, in [0, 1].
        strength: In [0, 1]; 0 leaves the image nearly as it is.
        rng: Draws what happens.

    Returns:
        (H, W, C) in [0, 1]. Channels are treated alike, so equal ones stay equal.
    """

    def amount(most: float) -> float:
        """Half to all of what the strength allows, to either side."""
        return most * strength * rng.uniform(0.5, 1) * rng.choice((-1, 1))

    pixels = warp(pixels, amount, rng)
    side = min(pixels.shape[:2])
    blur = abs(amount(0.04)) * side
    pixels = gaussian_filter(pixels, (blur, blur, 0))
    pixels = np.clip(pixels, 0, 1) ** np.exp(amount(0.7))
    pixels = 0.5 + amount(0.2) + (pixels - 0.5) * np.exp(amount(0.6))
    noise = rng.standard_normal((*pixels.shape[:2], 1))
    pixels = pixels + abs(amount(0.09)) * noise
    if rng.random() < strength:
        cover(pixels, strength, rng)
    return np.clip(pixels, 0, 1)


def warp(pixels: np.ndarray, amount, rng: np.random.Generator) -> np.ndarray:
    """Affine map and elastic distortion in one resampling.

    Args:
        pixels: (H, W, C).
        amount: Function that draws a signed number up to its argument.
        rng: Draws the elastic distortion.
    """
    height, width, _ = pixels.shape
    side = min(height, width)
    angle, zoom, shear = amount(np.deg2rad(25)), np.exp(amount(0.25)), amount(0.2)
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    matrix = rotation @ np.array([[1, shear], [0, 1]]) / zoom
    shift = np.array([amount(0.1), amount(0.1)]) * side
    smoothness = 0.1 * side
    field = rng.uniform(-1, 1, (2, height, width))
    field = gaussian_filter(field, (0, smoothness, smoothness), mode='constant')
    field *= amount(0.07) * side / np.abs(field).max()

    grid = np.indices((height, width), dtype=float)  # (2, H, W)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    grid -= centre[:, None, None]
    places = np.tensordot(matrix, grid, 1) + (centre + shift)[:, None, None] + field
    channels = [
        map_coordinates(channel, places, order=1, mode='nearest')
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack(channels, axis=2)


def cover(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> None:
    """Paint a rectangle of the image's mean colour, dimmed, over a part of it."""
    height, width, _ = pixels.shape
    sides = 0.15 + 0.4 * strength * rng.random(2)
    h, w = max(round(sides[0] * height), 1), max(round(sides[1] * width), 1)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    colour = pixels.mean((0, 1)) * rng.uniform(0.2, 1)
    pixels[top : top + h, left : left + w] = colour


def read_image(path: Path) -> tuple[Image.Image, str]:
    """An upright image, grey or RGB, and the format of its file.

    Raises:
        InputError: If the file is no image of 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            kind = image.format
            mode = MODES.get(image.mode)
            if mode is None:
                raise InputError(
                    f'{path} is of mode {image.mode}: expected an image of 8 bits '
                    'per channel. Convert it.'
                )
            return ImageOps.exif_transpose(image).convert(mode), kind
    # Pillow's readers raise OSError, SyntaxError and ValueError for broken files.
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{path} cannot be read as an image ({error}).') from None


def make_variant(
    image: Image.Image, seed: int, name: str, variant: int
) -> tuple[Image.Image, float]:
    """A distorted image and how strongly it was distorted.

    Args:
        image: Grey or RGB.
        seed: Of the data set.
        name: Path of the image below the source.
        variant: Number of the result.
    """
    rng = generator(seed, 'synthetic', name, variant)
    # Strengths are drawn, so more variants leave the first ones as they are.
    strength = float(rng.uniform(0.1, 1))
    pixels = np.asarray(image, dtype=float) / 255
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = distort(pixels, strength, rng)
    pixels = np.round(pixels * 255).astype(np.uint8)
    return Image.fromarray(pixels.squeeze(2) if image.mode == 'L' else pixels), strength


def write_pool(
    folder: Path, source: Path, splits: Mapping[str, Sequence[str]], parameters: dict
) -> None:
    """Write the splits and the synthetic images into the empty ``folder``."""
    for split, images in splits.items():
        for name in images:
            path = folder / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, path)
    rows = []
    for name in splits['real']:
        image, kind = read_image(source / name)
        path = folder / 'synthetic' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for variant in range(parameters['per_image']):
            made, strength = make_variant(image, parameters['seed'], name, variant)
            target = path.with_name(f'{path.stem}_v{variant:02d}{path.suffix}')
            options = {'quality': 95} if kind == 'JPEG' else {}
            made.save(target, format=kind, **options)
            image_id = target.relative_to(folder).as_posix()
            rows.append((image_id, f'real/{name}', f'{strength:.3f}'))
    with open(folder / 'synthetic.csv', 'w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(('image_id', 'source', 'strength'))
        writer.writerows(sorted(rows))
    draw_sheet(folder, rows).save(folder / 'synthetic.png')


def draw_sheet(
    folder: Path,
    rows: Sequence[tuple[str, str, str]],
    per_class: int = 2,
    variants: int = 8,
    cell: int = 96,
) -> Image.Image:
    """Real images and beside each its variants, weakest first.

    Args:
        folder: Of the data set.
        rows: image_id, source and strength of the synthetic images.
        per_class: Real images per class.
        variants: Synthetic images per real one, at most.
        cell: Side of a picture in pixels.
    """
    by_source: dict[str, list] = {}
    for image_id, source, strength in rows:
        by_source.setdefault(source, []).append((float(strength), image_id))
    by_class: dict[str, list[str]] = {}
    for source in sorted(by_source):
        by_class.setdefault(source.split('/')[1], []).append(source)
    lines = []
    for name, sources in by_class.items():
        # Apart from each other: neighbours in the list often show one subject.
        for source in sources[:: -(-len(sources) // per_class)]:
            made = sorted(by_source[source][:variants])
            lines.append([(name, source), *((f'{s:.2f}', i) for s, i in made)])
    text, gap = 14, 4
    size = (max(map(len, lines)) * (cell + gap), len(lines) * (cell + text + gap))
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        for column, (label, image_id) in enumerate(line):
            left, top = column * (cell + gap), row * (cell + text + gap)
            with Image.open(folder / image_id) as image:
                tile = ImageOps.exif_transpose(image).convert('RGB')
            sheet.paste(ImageOps.pad(tile, (cell, cell), color='white'), (left, top))
            draw.text((left, top + cell), label, fill='black')
    return sheet


def source_hash(source: Path, images: Sequence[str]) -> str:
    """Of the names and the bytes of all images."""
    total = hashlib.blake2b(digest_size=16)
    for name in images:
        content = hashlib.blake2b((source / name).read_bytes(), digest_size=16)
        total.update(f'{name}\n{content.hexdigest()}\n'.encode())
    return total.hexdigest()


def read_parameters(out: Path) -> dict | None:
    """Parameters of a finished data set, or None where ``out`` does not exist.

    Raises:
        InputError: If the folder is there and is not of this tool.
    """
    if not out.exists():
        return None
    try:
        return json.loads((out / STAMP).read_text(encoding='utf-8'))['parameters']
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f'{out} exists and was not written by this tool (no readable {STAMP}): '
            'give another folder.'
        ) from None


def check_same(out: Path, found: dict, wanted: dict) -> None:
    """Raise InputError where ``out`` was made with other parameters."""
    other = [
        f'{key} is {found.get(key)!r}, asked for {wanted[key]!r}'
        for key in wanted
        if found.get(key) != wanted[key]
    ]
    if other:
        raise InputError(
            f'{out} holds a data set of other parameters ({"; ".join(other)}): give '
            'another folder, or remove it.'
        )


def print_summary(
    out: Path,
    subjects: Mapping[str, str],
    splits: Mapping[str, Sequence[str]],
    per_image: int,
) -> None:
    """Images per class and split, subjects per split."""
    real, test = (Counter(map(class_of, splits[name])) for name in ('real', 'test'))
    width = max(map(len, (*real, 'subjects')))
    print(f'{out}\n{"":{width}} {"real":>9} {"test":>9} {"synthetic":>9}')
    lines = [(name, real[name], test[name]) for name in sorted(real)]
    lines.append(('images', len(splits['real']), len(splits['test'])))
    for name, n_real, n_test in lines:
        print(f'{name:{width}} {n_real:9} {n_test:9} {n_real * per_image:9}')
    counts = [len({subjects[i] for i in splits[name]}) for name in ('real', 'test')]
    print(f'{"subjects":{width}} {counts[0]:9} {counts[1]:9} {counts[0]:9}')


def make_synthetic_pool(
    source: str | os.PathLike,
    out: str | os.PathLike,
    subject_pattern: str | None = None,
    test_share: float = 0.3,
    per_image: int = 4,
    seed: int = 0,
) -> None:
    """Write the data set to ``out``; do nothing where it is already there.

    It appears under its name in one step, when it is complete. A killed run leaves at
    most a folder whose name starts with a dot and that of ``out``.

    Args:
        source: Folder of class folders of real images; it is only read.
        out: Folder to write.
        subject_pattern: Regular expression whose first group is the subject in a file
            name; None makes every image its own subject.
        test_share: Share of the subjects to hold out, in (0, 1).
        per_image: Synthetic images per real image, 1 or more.
        seed: 0 or more; another seed gives another split and other images.

    Raises:
        InputError: If something does not fit; says what.
    """
    source, out = Path(source), Path(out)
    if not 0 < test_share < 1:
        raise InputError(f'--test-share must be between 0 and 1, got {test_share}.')
    for flag, value, least in (('--per-image', per_image, 1), ('--seed', seed, 0)):
        if value < least:
            raise InputError(f'{flag} must be {least} or more, got {value}.')
    images = read_source(source)
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f'{out} lies in {source}: give a folder outside of it.')
    subjects = find_subjects(images, subject_pattern)
    splits = split_images(subjects, test_share, seed)
    parameters = {
        'version': VERSION,
        'source_hash': source_hash(source, images),
        'subject_pattern': subject_pattern,
        'test_share': test_share,
        'per_image': per_image,
        'seed': seed,
    }
    found = read_parameters(out)
    if found is not None:
        check_same(out, found, parameters)
        print(f'{out} already holds this data set: nothing to do')
        return

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{out.name}-', dir=out.parent))
    try:
        write_pool(scratch, source, splits, parameters)
        shown = {
            name: sorted({subjects[i] for i in found}) for name, found in splits.items()
        }
        stamp = {'parameters': parameters, 'subjects': shown}
        text = json.dumps(stamp, indent=1) + '\n'
        (scratch / STAMP).write_text(text, encoding='utf-8')
        # mkdtemp makes folders that only their owner can read.
        scratch.chmod(out.parent.stat().st_mode & 0o777)
        try:
            scratch.rename(out)
        except OSError:
            # Another process may have finished first.
            found = read_parameters(out)
            if found is None:
                raise
            check_same(out, found, parameters)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print_summary(out, subjects, splits, per_image)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description='Make a pool of synthetic images from class folders of real ones.'
    )
    parser.add_argument('source', help='folder of <class>/<image>')
    parser.add_argument('out', help='folder to write real, test and synthetic to')
    parser.add_argument(
        '--subject-pattern',
        metavar='REGEX',
        help='its first group, searched in a file name, is the subject '
        '(default: every image is its own)',
    )
    parser.add_argument(
        '--test-share',
        type=float,
        default=0.3,
        help='share of the subjects to hold out, default: %(default)s',
    )
    parser.add_argument(
        '--per-image',
        type=int,
        default=4,
        help='synthetic images per real image, default: %(default)s',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    args = parser.parse_args(arguments)
    try:
        make_synthetic_pool(
            args.source,
            args.out,
            args.subject_pattern,
            args.test_share,
            args.per_image,
            args.seed,
        )
    except InputError as error:
        sys.exit(f'make_synthetic_pool: {error}')


if __name__ == '__main__':
    main()
