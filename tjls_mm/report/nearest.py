"""What picks look like: the nearest labelled image, and near-duplicates.

``P`` picks, ``M`` labelled images, ``F`` features. Distances are 1 - cosine of rows of
length 1, [0, 2], in blocks, never P x M.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from tjls_mm.outputs import Outputs
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.query.features import BLOCK, unit
from tjls_mm.randomness import generator

IMAGE_FEATURES = (PRETRAINED_FEATURE, 'feature')
"""Names of outputs that images are compared by, the first that there is."""

SAMPLE = 500
"""Pool images that say what is far and what is usual."""

NEAR = 0.15
"""A near-duplicate is nearer than this share of the distance of two pool images.

Of ImageNet features of photos (VOC2007) no two different images of 500 were nearer than
0.19 of it; of copies at half the size, recompressed, mirrored, or cropped by a tenth
in all, nine of ten and more were nearer than 0.15.
"""

USUAL = 0.01
"""Of a learner's own features: not more than this share of a sample is that near.

What a learner does not tell apart is near: by the rule above a third of the picks of an
untrained one were near-duplicates.
"""

DIGITS = 6
"""Decimals of a distance: what float32 knows of it, so that copies are at 0."""

HASH_SIDE, HASH_BITS, HASH_GREY = 8, 4, 4.0
"""Near-duplicates by thumbnail: bits of 64, and grey levels of 255, that differ.

Bits alone say little of images with plain areas: a third of 1,500 garments of
Fashion-MNIST has another one within four bits, and 0.5 % with both limits.
"""

HASHED = 4096
"""Picks at most that are opened to be hashed, first choices first."""


@dataclass(frozen=True)
class Nearness:
    """How near picks are to what is labelled, and to each other.

    Attributes:
        feature: Name of the output.
        labelled: Row of the nearest labelled image, (P,) int, -1 without any.
        distance: To it, (P,), NaN without any.
        others: To the nearest other pick, (P,), NaN without any.
        near: Up to it two images are near-duplicates.
        usual: Share of a sample of the pool that has near-duplicates in the same sense,
            labelled or in the sample, [0, 1].
    """

    feature: str
    labelled: np.ndarray
    distance: np.ndarray
    others: np.ndarray
    near: float
    usual: float

    @property
    def duplicates(self) -> np.ndarray:
        """Whether a pick has a near-duplicate, labelled or picked, (P,) bool."""
        return (self.distance <= self.near) | (self.others <= self.near)


def image_feature(pool: Outputs, labelled: Outputs) -> str | None:
    """Name of the features of images that there are of both, None without any."""
    for name in IMAGE_FEATURES:
        parts = [outputs[name] for outputs in (pool, labelled) if name in outputs]
        if len(parts) == 2 and all(np.ndim(part) == 2 for part in parts):
            return name
    return None


def nearest(
    x: np.ndarray, y: np.ndarray, same: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest row of y of each row of x, by cosine.

    Args:
        x: (P, F) and y: (M, F), any numbers, e.g. memory-mapped.
        same: x is y, and no row is its own neighbour.

    Returns:
        Rows (P,), the first of equals, -1 where there is none; and distances (P,), NaN
        where there is none.
    """
    rows = np.full(len(x), -1)
    best = np.full(len(x), np.inf)
    for other in range(0, len(y), BLOCK):
        known = unit(np.asarray(y[other : other + BLOCK], np.float32))
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            mine = unit(np.asarray(x[part], np.float32))
            distance = (1 - mine @ known.T).round(DIGITS).clip(0)
            if same and start == other:
                np.fill_diagonal(distance, np.inf)
            place = distance.argmin(1)
            found = distance[np.arange(len(distance)), place]
            nearer = found < best[part]
            rows[part] = np.where(nearer, place + other, rows[part])
            best[part] = np.where(nearer, found, best[part])
    return rows, np.where(np.isfinite(best), best, np.nan)


def near_distance(sample: np.ndarray) -> float:
    """Up to it two images are near-duplicates: ``NEAR`` of the median of all pairs.

    ``sample``: (n, F), of different images; 0 of fewer than two.
    """
    if len(sample) < 2:
        return 0.0
    x = unit(np.asarray(sample, np.float32))
    distance = 1 - x @ x.T
    pairs = distance[np.triu_indices(len(x), 1)]
    return round(NEAR * max(0.0, float(np.median(pairs))), DIGITS)


def _to_nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P,) distance to the nearest row of y or other row of x, inf without any."""
    distances = nearest(x, y)[1], nearest(x, x, same=True)[1]
    return np.nan_to_num(np.fmin(*distances), nan=np.inf)


def measure_nearness(
    pool: Outputs, labelled: Outputs, rows: np.ndarray, seed: int
) -> Nearness | None:
    """Of picks; None where there are no features of both pool and labelled images.

    Args:
        pool: Outputs of N images; labelled: of M, there may be none.
        rows: Of the picks, (P,).
        seed: Of the sample that says what is far.
    """
    name = image_feature(pool, labelled)
    if name is None:
        return None
    size = min(SAMPLE, len(pool.image_ids))
    rng = generator(seed, 'near')
    sample = np.sort(rng.choice(len(pool.image_ids), size, replace=False))
    features = np.asarray(pool[name][rows], np.float32)
    # The same numbers with any number of cores.
    with threadpool_limits(1):
        known, distance = nearest(features, labelled[name])
        _, others = nearest(features, features, same=True)
        drawn = np.asarray(pool[name][sample], np.float32)
        usual = _to_nearest(drawn, labelled[name])
        near = near_distance(drawn)
    if name != PRETRAINED_FEATURE:
        near = min(near, round(float(np.quantile(usual, USUAL)), DIGITS))
    share = float((usual <= near).mean())
    return Nearness(name, known, distance, others, near, share)


def thumbnail(image: Image.Image) -> np.ndarray:
    """Grey levels of an image made small, (8, 9) int, [0, 255]."""
    size = HASH_SIDE + 1, HASH_SIDE
    return np.asarray(image.convert('L').resize(size, Image.Resampling.BOX), np.int16)


def hash_duplicates(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Whether an image has a near-duplicate among the others, (P,) bool.

    See ``hash_pairs``.
    """
    found = np.zeros(len(thumbnails), bool)
    for row, close in hash_pairs(thumbnails):
        found[row] = found[close] = True
    return found


def hash_pairs(thumbnails: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of images, and of their near-duplicates with higher rows, (n,), n > 0.

    By the difference hash (whether a grey level is above its left neighbour's, 64 bits)
    and by the grey levels: at most ``HASH_BITS`` of the one and on average
    ``HASH_GREY`` of the other may differ.

    Args:
        thumbnails: P of ``thumbnail``.

    Source: the difference hash is Krawetz's dHash (2013).
    """
    count = len(thumbnails)
    if not count:
        return
    grey = np.stack(thumbnails).reshape(count, HASH_SIDE, HASH_SIDE + 1)
    signs = np.where(grey[:, :, 1:] > grey[:, :, :-1], 1, -1).reshape(count, -1)
    signs = signs.astype(np.float32)
    grey = grey.reshape(count, -1)
    with threadpool_limits(1):
        for row in range(count - 1):
            # Of 64 signs, 64 - 2 d is the product of two that differ in d.
            bits = (signs.shape[1] - signs[row + 1 :] @ signs[row]) / 2
            close = np.flatnonzero(bits <= HASH_BITS) + row + 1
            apart = np.abs(grey[close] - grey[row]).mean(1)
            close = close[apart <= HASH_GREY]
            if len(close):
                yield row, close
