"""LoadResized is LoadImageFromFile and Resize, and reads a file once."""

import os

import cv2
import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes

from tjls_mm.datasets import transforms
from tjls_mm.registry import TRANSFORMS

SCALE = (32, 16)


@pytest.fixture
def path(tmp_path):
    transforms._IMAGES.clear()
    return write(tmp_path / 'image.png', seed=0)


def write(path, seed: int) -> str:
    image = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(path), image)
    os.utime(path, ns=(seed, seed))
    return str(path)


def load(path: str, types: list[dict]) -> dict:
    results = {'img_path': path, 'gt_bboxes': HorizontalBoxes([[4, 6, 20, 36]])}
    for config in types:
        results = TRANSFORMS.build(config)(results)
    return results


def resized(path: str, cached_images: int = 4, scale=SCALE) -> dict:
    config = dict(type='tjls_mm.LoadResized', scale=scale, cached_images=cached_images)
    return load(path, [config])


def test_it_does_what_both_transforms_do(path):
    both = [dict(type='LoadImageFromFile'), dict(type='mmdet.Resize', scale=SCALE)]
    expected = load(path, both)
    for cached in (0, 4, 4):
        found = resized(path, cached)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if key == 'gt_bboxes':
                assert found[key].tensor.equal(value.tensor)
            else:
                assert np.array_equal(found[key], value), key


def test_what_is_remembered_is_not_changed_by_later_transforms(path):
    first = resized(path)['img'].copy()
    resized(path)['img'][:] = 0
    assert np.array_equal(resized(path)['img'], first)


def test_a_changed_file_or_size_is_read_anew(path):
    first = resized(path)['img']
    assert resized(path, scale=(8, 8))['img'].shape == (8, 8, 3)
    write(path, seed=1)
    assert not np.array_equal(resized(path)['img'], first)


def test_memory_is_bounded(tmp_path, path):
    for seed in range(3):
        resized(write(tmp_path / f'{seed}.png', seed), cached_images=2)
    assert len(transforms._IMAGES) == 2
