#!/usr/bin/env python
"""Draw the demo data set: small photo-like scenes in Pascal VOC format.

What one labels matters: the most frequent class has about ten times the objects of the
rarest; 60 % of the pool are near-duplicate frames of short clips of frequent classes.
The test images have about as many objects of every class. Classes differ by shape and
texture. The same parameters give the same bytes on the same packages.

    python tools/make_demo_data.py --out data/demo --seed 0 --pool 400 --test 100

writes VOC folders and demo.json (parameters, object counts, clips) into --out/VOCdemo.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

CLASSES = ('ball', 'crate', 'cone', 'star', 'ring')  # by frequency in the pool
FOLDER, STAMP = 'VOCdemo', 'demo.json'
VERSION = 1  # Raise it when a change to this file changes the pixels or the boxes.

SIZES = ((160, 120), (160, 128), (160, 144), (160, 160), (144, 160), (176, 160))
# Share of the objects, in the order of CLASSES.
CLIP_SHARES = (0.55, 0.27, 0.14, 0.04, 0.0)
SINGLE_SHARES = (0.36, 0.25, 0.17, 0.12, 0.10)
TEST_SHARES = (0.22, 0.21, 0.2, 0.19, 0.18)
MARGIN = 16  # pixels around the first frame of a clip for the camera to move
Rng = np.random.Generator


@dataclass(frozen=True)
class Thing:
    """An object of a class or clutter; pixels, pixels per frame, radians."""

    kind: str
    seed: int  # of colours and texture
    x: float
    y: float
    radius: float
    stretch: float = 1.0  # width over height
    angle: float = 0.0
    vx: float = 0.0
    vy: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What a clip shows; a single image is a clip of one frame."""

    size: tuple[int, int]
    background: np.ndarray  # (H + 2 * MARGIN, W + 2 * MARGIN, 3) float32 in [0, 1]
    things: tuple[Thing, ...]  # the last one is in front
    camera: Sequence[float]
    light: Sequence[float]
    exposure: np.ndarray
    gamma: float
    blur: float
    noise: float


def value_noise(rng: Rng, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth random field (height, width), float32, in about [0, 1]."""
    grid = rng.random((height // cell + 2, width // cell + 2), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def random_colour(rng: Rng) -> np.ndarray:
    """BGR in [0, 1], float32, from pale to saturated and from dark to bright."""
    hsv = np.float32([rng.uniform(0, 360), rng.uniform(0.1, 0.9), rng.uniform(0.2, 1)])
    return cv2.cvtColor(hsv.reshape(1, 1, 3), cv2.COLOR_HSV2BGR)[0, 0]


def draw_background(rng: Rng, height: int, width: int) -> np.ndarray:
    """Textured ground (height, width, 3), float32 in [0, 1]."""
    low, high = random_colour(rng), random_colour(rng)
    coarse, medium, fine = (value_noise(rng, height, width, c) for c in (48, 14, 3))
    mix = 0.6 * coarse + 0.3 * medium + 0.1 * fine
    yy, xx = np.mgrid[:height, :width].astype(np.float32)
    right, down = rng.uniform(-0.5, 0.5, 2) / max(height, width)
    mix = np.clip(mix + right * xx + down * yy, 0, 1)
    ground = low + (high - low) * mix[..., None].astype(np.float32)

    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 26)
    pattern, strength = rng.integers(4), rng.uniform(0.05, 0.2)
    along = xx * np.cos(angle) + yy * np.sin(angle) + 6 * medium
    across = yy * np.cos(angle) - xx * np.sin(angle) + 6 * coarse
    wave = np.sin(along * (2 * np.pi / period))
    if pattern == 1:
        wave *= np.sin(across * (4 / period))
    elif pattern == 2:
        wave = 4 * fine - 2
    elif pattern == 3:
        wave = np.where((along % period < 1.5) | (across % (2 * period) < 1.5), -1.5, 0)
    ground = ground * (1 + strength * wave[..., None].astype(np.float32))
    ground = np.ascontiguousarray(np.clip(ground, 0, 1), dtype=np.float32)
    for _ in range(rng.integers(2, 9)):
        start = rng.uniform(0, 1, 2) * (width, height)
        ends = [tuple(int(v) for v in p) for p in (start, start + rng.normal(0, 35, 2))]
        colour = random_colour(rng).tolist()
        cv2.line(ground, *ends, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    return ground


def shape_and_texture(kind: str, rng: Rng, u: np.ndarray, v: np.ndarray) -> tuple:
    """Which of the points u, v, (S, S), are in a shape, and where it has colour two."""
    radius, theta = np.hypot(u, v), np.arctan2(v, u)
    if kind == 'ball':
        inside = radius <= 1
        pole = np.arctan2(v - rng.uniform(-0.4, 0.4), u - rng.uniform(-0.4, 0.4))
        second = np.sin(pole * rng.integers(3, 5)) > 0
    elif kind == 'crate':
        half = rng.uniform(0.62, 0.75)
        inside = (np.abs(u) <= 0.72) & (np.abs(v) <= half)
        second = (v / half * 2.0 + 0.01) % 1.0 < 0.18  # planks, and their frame
        second |= (np.abs(u) > 0.56) | (np.abs(v) > half - 0.16)
    elif kind == 'cone':
        top, slope = rng.uniform(0.0, 0.15), rng.uniform(0.32, 0.42)
        inside = (v >= -1 + top) & (v <= 0.8) & (np.abs(u) <= (v + 1) * slope)
        second = (v * rng.uniform(1.1, 1.4) + rng.uniform(0, 1)) % 1.0 < 0.5
    elif kind == 'star':
        inner, sector = rng.uniform(0.45, 0.55), 2 * np.pi / 5
        turn = np.abs((theta + sector / 2) % sector - sector / 2)
        x, y = radius * np.cos(turn), radius * np.sin(turn)
        tip_x, tip_y = inner * np.cos(sector / 2), inner * np.sin(sector / 2)
        inside = (x - 1) * tip_y - y * (tip_x - 1) <= 0
        dots = rng.uniform(2.4, 3.4)
        second = np.hypot((u * dots) % 1 - 0.5, (v * dots) % 1 - 0.5) < 0.3
    elif kind == 'ring':
        inside = (radius <= 1) & (radius >= rng.uniform(0.48, 0.58))
        second = np.sin(theta * rng.integers(5, 8)) > 0.1
    elif kind == 'blob':
        phases = rng.uniform(0, 2 * np.pi, 3)
        edge = 0.68 + 0.1 * np.sin(theta[..., None] * (2, 3, 5) + phases).sum(-1)
        inside = radius <= edge
        second = value_noise(rng, *u.shape, max(4, len(u) // rng.integers(3, 12))) > 0.5
    else:
        inside = (np.abs(u) <= 0.97) & (np.abs(v) <= rng.uniform(0.1, 0.24))
        second = (u * rng.uniform(1, 4)) % 1.0 < 0.5
    return inside, second.astype(np.float32)


def render(thing: Thing) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Colours (S, S, 3) and coverage (S, S) in [0, 1] of a patch, its first x, y."""
    rng = np.random.default_rng(thing.seed)
    half = int(np.ceil(thing.radius * max(thing.stretch, 1 / thing.stretch))) + 2
    left, top, side = round(thing.x) - half, round(thing.y) - half, 2 * half
    # Two samples a pixel and direction, averaged below: smooth edges.
    axis = (np.arange(2 * side, dtype=np.float32) + 0.5) / 2
    x = (axis[None, :] + (left - thing.x)) / thing.radius
    y = (axis[:, None] + (top - thing.y)) / thing.radius
    cos, sin = np.float32(np.cos(thing.angle)), np.float32(np.sin(thing.angle))
    stretch = np.float32(np.sqrt(thing.stretch))
    u, v = (x * cos + y * sin) / stretch, (y * cos - x * sin) * stretch

    inside, second = shape_and_texture(thing.kind, rng, u, v)
    low = high = np.zeros(3)
    contrast = 0.22 if thing.kind in CLASSES else 0.08
    while abs(float(low.mean() - high.mean())) < contrast:
        low, high = random_colour(rng), random_colour(rng)
    colours = low + (high - low) * second[..., None]
    grain = value_noise(rng, 2 * side, 2 * side, 4)
    lit = 0.9 - 0.22 * (x * rng.uniform(-1, 1) + y) + 0.25 * (grain - 0.5)
    colours = colours * lit[..., None].astype(np.float32)
    parts = colours, inside.astype(np.float32)
    small = (cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in parts)
    return *small, (left, top)


def overlap(corner: tuple[int, int], side: int, size: tuple[int, int]) -> tuple:
    """Where the image and a square patch meet, as (rows, columns) of each."""
    (left, top), ends = corner, np.add(corner, side)
    (x1, y1), (x2, y2) = np.clip([corner, ends], 0, size)
    there = slice(y1 - top, y2 - top), slice(x1 - left, x2 - left)
    return (slice(y1, y2), slice(x1, x2)), there


def draw_frame(scene: Scene, frame: int, rng: Rng) -> tuple[np.ndarray, list] | None:
    """The image (H, W, 3), uint8 BGR, and (class, box) of every object.

    Boxes are xyxy, first and last seen pixels, from 0. None where one is hidden.
    """
    width, height = scene.size
    pan = np.multiply(scene.camera, frame) + (rng.normal(0, 0.5, 2) if frame else 0)
    shift = np.clip(np.round(pan), -MARGIN, MARGIN).astype(int)
    left, top = MARGIN + shift
    image = scene.background[top : top + height, left : left + width].copy()

    seen = []  # (class, area of the whole shape, what is seen of it (H, W))
    for thing in scene.things:
        x = thing.x + thing.vx * frame - shift[0]
        y = thing.y + thing.vy * frame - shift[1]
        angle = thing.angle + rng.normal(0, 0.03) * bool(frame)
        patch, cover, corner = render(replace(thing, x=x, y=y, angle=angle))
        here, there = overlap(corner, len(cover), scene.size)
        # A soft shadow ties the shape to the ground; it is no part of the box.
        shade = cv2.GaussianBlur(cover, (0, 0), 2.5)
        ground, shaded = overlap(np.add(corner, (2, 3)), len(cover), scene.size)
        image[ground] *= 1 - 0.4 * shade[shaded][..., None]
        image[here] += (patch[there] - image[here]) * cover[there][..., None]
        for _, _, mask in seen:
            mask[here] *= 1 - cover[there]
        if thing.kind in CLASSES:
            seen.append((thing.kind, float(cover.sum()), np.zeros_like(image[..., 0])))
            seen[-1][2][here] = cover[there]

    objects = []
    for name, area, mask in seen:
        if mask.sum() < area / 2:  # unfair to ask for
            return None
        x, y, w, h = cv2.boundingRect((mask > 0.5).astype(np.uint8))
        objects.append((name, (x, y, x + w - 1, y + h - 1)))

    yy, xx = np.mgrid[:height, :width].astype(np.float32)
    gain, across, down = scene.light
    light = gain + across * (xx / width - 0.5) + down * (yy / height - 0.5)
    light *= 1 + rng.normal(0, 0.02) * bool(frame)
    image *= light[..., None] * scene.exposure
    image = np.clip(image, 0, 1) ** scene.gamma
    if scene.blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), scene.blur)
    image = image * 255 + rng.standard_normal(image.shape, np.float32) * scene.noise
    return np.clip(np.round(image), 0, 255).astype(np.uint8), objects


def plan_scene(rng: Rng, classes: Sequence[str], frames: int) -> Scene | None:
    """Lay out a scene with an object per class, or None where they found no room."""
    width, height = size = SIZES[rng.integers(len(SIZES))]
    limits = {1: (26, 46), 2: (24, 38), 3: (20, 31), 4: (17, 26)}[len(classes)]
    moving = float(frames > 1)
    objects: list[Thing] = []
    for name in classes:
        for _ in range(40):
            radius = rng.uniform(*limits)
            x, y = rng.uniform(0.7 * radius, np.array(size) - 0.7 * radius)
            gaps = (np.hypot(x - o.x, y - o.y) / (radius + o.radius) for o in objects)
            if all(gap > 0.85 for gap in gaps):
                break
        else:
            return None
        free = name in ('ball', 'star', 'ring')
        seed, stretch = int(rng.integers(2**62)), rng.uniform(0.85, 1.18)
        angle = rng.uniform(-np.pi, np.pi) if free else rng.uniform(-0.3, 0.3)
        speed = moving * rng.normal(0, 1.0), moving * rng.normal(0, 0.6)
        objects.append(Thing(name, seed, x, y, radius, stretch, angle, *speed))

    def clutter(x: float, y: float, radius: float) -> Thing:
        kind, seed = 'blob' if rng.random() < 0.6 else 'bar', int(rng.integers(2**62))
        stretch, angle = rng.uniform(0.7, 1.4), rng.uniform(-np.pi, np.pi)
        return Thing(kind, seed, x, y, radius, stretch, angle)

    spots = range(rng.integers(2, 7))
    behind = [clutter(*rng.uniform(0, size), rng.uniform(6, 24)) for _ in spots]
    in_front = []
    for thing in objects:
        if rng.random() < 0.2:
            turn, reach = rng.uniform(0, 2 * np.pi), thing.radius
            x, y = thing.x + reach * np.cos(turn), thing.y + reach * np.sin(turn)
            in_front.append(clutter(x, y, reach * rng.uniform(0.4, 0.7)))

    background = draw_background(rng, height + 2 * MARGIN, width + 2 * MARGIN)
    things, camera = (*behind, *objects, *in_front), moving * rng.normal(0, 1.0, 2)
    light = (rng.uniform(0.65, 1.2), *rng.uniform(-0.5, 0.5, 2))
    exposure, gamma = np.float32(rng.uniform(0.88, 1.12, 3)), rng.uniform(0.75, 1.3)
    blur, noise = max(0.0, rng.uniform(-0.6, 1.1)), rng.uniform(1, 9)
    return Scene(size, background, things, camera, light, exposure, gamma, blur, noise)


def plan_clips(rng: Rng, frames: Sequence[int], shares: Sequence[float]) -> list:
    """(frames, classes of objects) of every clip; no class with a share is left out."""
    n_objects = rng.choice([1, 2, 3, 4], size=len(frames), p=[0.25, 0.4, 0.25, 0.1])
    exact = np.array(shares) / sum(shares) * n_objects.sum()
    counts = np.floor(exact).astype(int)
    order = np.argsort(counts - exact, kind='stable')
    counts[order[: n_objects.sum() - counts.sum()]] += 1
    for index in np.flatnonzero((counts == 0) & (exact > 0)):
        if counts.max() > 1:
            counts[counts.argmax()] -= 1
            counts[index] += 1
    names = iter(rng.permutation(np.repeat(CLASSES, counts)).tolist())
    pairs = zip(frames, n_objects, strict=True)
    return [(n_frames, [next(names) for _ in range(n)]) for n_frames, n in pairs]


def clip_lengths(rng: Rng, n_pool: int) -> list[int]:
    """Lengths of the pool's clips, 4 to 8 images, about 60 % of them together."""
    left, lengths = round(0.6 * n_pool), []
    while left >= 4:
        lengths.append(int(rng.integers(4, min(8, left) + 1)))
        left -= lengths[-1]
    return lengths


def annotation_xml(name: str, size: tuple[int, int], objects: list) -> str:
    """A VOC annotation; its coordinates count from 1 and include both ends."""
    flags = '<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>'
    sides = '<width>{}</width><height>{}</height><depth>3</depth>'.format(*size)
    corners = '<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>'
    text = f'<folder>{FOLDER}</folder><filename>{name}.jpg</filename>'
    text += f'<size>{sides}</size><segmented>0</segmented>'
    for kind, box in objects:
        bounds = corners.format(*np.add(box, 1))
        text += f'<object><name>{kind}</name>{flags}<bndbox>{bounds}</bndbox></object>'
    root = ElementTree.fromstring(f'<annotation>{text}</annotation>')
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='unicode') + '\n'


def is_made(folder: Path, wanted: dict) -> bool:
    """Whether the set is there; FileExistsError where something else is."""
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / STAMP).read_text(encoding='utf-8'))['parameters']
        pairs = [(key, found.get(key), value) for key, value in wanted.items()]
        other = [f'{k} is {v}, asked for {want}' for k, v, want in pairs if v != want]
        problem = f'holds a demo set of other parameters ({"; ".join(other)})'
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        other = problem = f'exists and is not a demo set (no readable {STAMP})'
    if other:
        raise FileExistsError(f'{folder} {problem}: give another folder with --out')
    return True


def write_set(folder: Path, parameters: dict) -> None:
    """Draw all images into ``folder``, the stamp last."""
    _, seed, n_pool, n_test = parameters.values()
    for sub in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (folder / sub).mkdir(parents=True)
    rng = np.random.default_rng([seed, 0])
    lengths = clip_lengths(rng, n_pool)
    plans = plan_clips(rng, lengths, CLIP_SHARES)
    plans += plan_clips(rng, [1] * (n_pool - sum(lengths)), SINGLE_SHARES)
    plans += plan_clips(rng, [1] * n_test, TEST_SHARES)
    names = [f'{i:06d}' for i in range(1, n_pool + n_test + 1)]
    splits = {'trainval': names[:n_pool], 'test': names[n_pool:]}
    # The place in the pool says nothing about the clip.
    shuffled = iter([*rng.permutation(splits['trainval']), *splits['test']])

    counts, clips = {split: dict.fromkeys(CLASSES, 0) for split in splits}, []
    for index, (n_frames, classes) in enumerate(plans):
        rng, drawn = np.random.default_rng([seed, 1, index]), [None]
        while None in drawn:  # until a scene shows every object in every frame
            if scene := plan_scene(rng, classes, n_frames):
                drawn = [draw_frame(scene, k, rng) for k in range(n_frames)]
        clip = [str(next(shuffled)) for _ in drawn]
        clips += [clip] if n_frames > 1 else []
        for name, (image, objects) in zip(clip, drawn, strict=True):
            for kind, _ in objects:
                counts['trainval' if int(name) <= n_pool else 'test'][kind] += 1
            path = folder / 'JPEGImages' / f'{name}.jpg'
            if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90]):
                raise OSError(f'cannot write {path}')
            xml = annotation_xml(name, image.shape[1::-1], objects)
            (folder / 'Annotations' / f'{name}.xml').write_text(xml)
    for split, listed in splits.items():
        (folder / f'ImageSets/Main/{split}.txt').write_text('\n'.join([*listed, '']))
    stamp = {'parameters': parameters, 'objects': counts, 'clips': clips}
    (folder / STAMP).write_text(json.dumps(stamp, indent=1) + '\n')


def make_demo_data(out, seed: int = 0, n_pool: int = 400, n_test: int = 100) -> None:
    """Write the demo set to ``out/VOCdemo`` in one step, unless it is already there.

    Raises FileExistsError where that is something else, ValueError where a number is
    too small. An interrupted run leaves at most a folder ``.VOCdemo-*``.
    """
    parameters = {'version': VERSION, 'seed': seed, 'pool': n_pool, 'test': n_test}
    for name, least in (('seed', 0), ('pool', 16), ('test', 4)):
        if (got := parameters[name]) < least:
            raise ValueError(f'--{name} must be {least} or more, got {got}')
    folder = Path(out) / FOLDER
    if is_made(folder, parameters):
        print(f'{folder} already holds this demo set: nothing to do')
        return
    Path(out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{FOLDER}-', dir=out) as scratch:
        made = Path(scratch) / FOLDER
        write_set(made, parameters)
        try:
            made.rename(folder)
        except OSError:  # another process may have finished first
            if not is_made(folder, parameters):
                raise
    print(f'{folder}: {n_pool} pool and {n_test} test images')


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the set that the command line asks for."""
    parser = argparse.ArgumentParser(description='Draw the demo data set, VOC format.')
    parser.add_argument('--out', default='data/demo', help='default: %(default)s')
    for name, default in (('seed', 0), ('pool', 400), ('test', 100)):
        parser.add_argument(f'--{name}', type=int, default=default, help=f'{default}')
    args = parser.parse_args(arguments)
    try:
        make_demo_data(args.out, args.seed, args.pool, args.test)
    except (FileExistsError, ValueError) as error:
        sys.exit(f'make_demo_data: {error}')


if __name__ == '__main__':
    main()
