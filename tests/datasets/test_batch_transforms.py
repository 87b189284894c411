"""Batched augmentation has the distribution of the transforms it replaces."""

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from mmcv.transforms import RandomFlip
from mmpretrain.datasets.transforms import RandomCrop
from scipy.stats import chisquare, kstest

from tjls_mm.datasets import BatchCropFlip
from tjls_mm.randomness import uniform_numbers

SCOPE = 'mmpretrain'


def images(n: int, side: int = 8) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, side, side), generator=rng, dtype=torch.uint8)


def test_every_outcome_equals_mmpretrains_pixel_for_pixel():
    crop = RandomCrop((8, 8), padding=2, pad_val=(7, 7, 7))
    flip = RandomFlip(prob=1.0, direction='horizontal')
    outcomes = list(itertools.product(range(5), range(5), (False, True)))
    batch = images(1).expand(len(outcomes), -1, -1, -1)
    ours = BatchCropFlip(8, padding=2, pad_val=7)
    top, left, flipped = (
        torch.tensor(values) for values in zip(*outcomes, strict=True)
    )
    with mock.patch.object(ours, 'draw', return_value=(top, left, flipped)):
        found = ours(batch, range(len(outcomes)))
    picture = batch[0].permute(1, 2, 0).numpy()
    for (y, x, is_flipped), result in zip(outcomes, found, strict=True):
        with mock.patch.object(crop, 'rand_crop_params', return_value=(y, x, 8, 8)):
            expected = crop(dict(img=picture))
        if is_flipped:
            expected = flip(expected)
        assert np.array_equal(expected['img'], result.permute(1, 2, 0).numpy())


def outcomes_of_ours(n: int) -> np.ndarray:
    top, left, flip = BatchCropFlip(8, padding=2).draw(range(n), (12, 12))
    return (top * 10 + left * 2 + flip.long()).numpy()


def outcomes_of_mmpretrains(n: int) -> np.ndarray:
    """The same numbers, read off the pixels of transformed images."""
    np.random.seed(0)
    crop, flip = RandomCrop(8, padding=2), RandomFlip(0.5, direction='horizontal')
    # A pixel tells its place; zero is the border.
    picture = np.arange(1, 65, dtype=np.uint8).reshape(8, 8)
    found = []
    for _ in range(n):
        image = flip(crop(dict(img=np.stack([picture] * 3, 2))))['img'][..., 0]
        rows, _ = np.nonzero(image)
        # Values grow to the right unless flipped.
        line = image[rows[0]][image[rows[0]] > 0].astype(int)
        is_flipped = line[1] < line[0]
        if is_flipped:
            image = image[:, ::-1]
        row, column = np.argwhere(image > 0)[0]
        place = int(image[row, column]) - 1
        top, left = place // 8 + 2 - row, place % 8 + 2 - column
        found.append(top * 10 + left * 2 + is_flipped)
    return np.array(found)


@pytest.mark.parametrize('outcomes', [outcomes_of_ours, outcomes_of_mmpretrains])
def test_all_outcomes_are_equally_likely(outcomes):
    counts = np.bincount(outcomes(10_000), minlength=50)
    assert len(counts) == 50
    assert chisquare(counts).pvalue > 1e-3


def test_probability_of_a_flip():
    flips = BatchCropFlip(8, flip_prob=0.2).draw(range(10_000), (8, 8))[2]
    assert abs(flips.float().mean() - 0.2) < 0.02
    unchanged = BatchCropFlip(8, flip_prob=0.0)(images(4), range(4))
    assert torch.equal(unchanged, images(4))


def test_an_image_goes_by_its_seed_in_any_batch():
    transform = BatchCropFlip(8, padding=2)
    batch, seeds = images(6), [3, 2**32 - 1, 7, 3, 0, 12]
    together = transform(batch, seeds)
    for i, seed in enumerate(seeds):
        assert torch.equal(transform(batch[i : i + 1], [seed])[0], together[i])
    assert not torch.equal(together, transform(batch, [s + 1 for s in seeds]))


def test_too_large_a_crop_is_refused():
    with pytest.raises(ValueError, match='does not fit'):
        BatchCropFlip(9)(images(2), [0, 1])


def test_uniform_numbers_are_uniform_and_independent():
    numbers = uniform_numbers(range(20_000), 3)
    assert ((numbers >= 0) & (numbers < 1)).all()
    for column in numbers.T:
        assert kstest(column, 'uniform').pvalue > 1e-3
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 0.03
    assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 0.03
    assert np.array_equal(uniform_numbers([5, 9], 2)[1], uniform_numbers([9], 2)[0])
    # NumPy keeps the streams of its bit generators: augmentation stays the same.
    expected = [[0.01154675, 0.2415492], [0.23494159, 0.71731075]]
    assert np.allclose(uniform_numbers([0, 2**64 - 1], 2), expected)
