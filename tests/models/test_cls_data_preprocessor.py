"""Batches with and without labels reach the device as mmpretrain's do."""

import copy

import pytest
import torch
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from tjls_mm.models import JointClsDataPreprocessor

SCOPE = 'mmpretrain'
NORMALISE = dict(mean=[100, 110, 120], std=[50, 60, 70], to_rgb=True)


def batch(known: list[bool], sizes=None) -> dict:
    rng = torch.Generator().manual_seed(0)
    sizes = sizes or [12] * len(known)
    samples = []
    for i, has_label in enumerate(known):
        sample = DataSample(metainfo=dict(is_labelled=has_label))
        samples.append(sample.set_gt_label(i) if has_label else sample)
    images = [
        torch.randint(0, 256, (3, s, s), generator=rng, dtype=torch.uint8)
        for s in sizes
    ]
    return dict(inputs=images, data_samples=samples, seeds=list(range(len(known))))


def test_images_of_two_sizes_are_refused_outside_training():
    # mmpretrain would pad them to the largest of the batch.
    with pytest.raises(ValueError, match=r'\(10, 10\) and \(12, 12\).*CenterCrop'):
        JointClsDataPreprocessor(**NORMALISE)(batch([True] * 3, [12, 10, 12]), False)


@pytest.mark.parametrize('sizes', [None, [12, 10, 12]])
def test_equals_mmpretrains_where_all_images_have_labels(sizes):
    data = batch([True] * 3, sizes)
    ours = JointClsDataPreprocessor(**NORMALISE)(copy.deepcopy(data), True)
    theirs = ClsDataPreprocessor(**NORMALISE)(copy.deepcopy(data), True)
    assert torch.equal(ours['inputs'], theirs['inputs'])
    for one, two in zip(ours['data_samples'], theirs['data_samples'], strict=True):
        assert torch.equal(one.gt_label, two.gt_label)


@pytest.mark.parametrize('known', [[True, False, True], [False, True, True]])
def test_images_without_label_stay_without_in_their_place(known):
    result = JointClsDataPreprocessor(**NORMALISE)(batch(known), True)
    assert ['gt_label' in s for s in result['data_samples']] == known
    for i, sample in enumerate(result['data_samples']):
        assert sample.is_labelled == known[i]
        if known[i]:
            assert sample.gt_label.tolist() == [i]
    everything = ClsDataPreprocessor(**NORMALISE)(batch([True] * 3), True)
    assert torch.equal(result['inputs'], everything['inputs'])


def test_augments_in_training_only():
    augmentation = dict(type='tjls_mm.BatchCropFlip', crop_size=8, padding=2)
    preprocessor = JointClsDataPreprocessor(**NORMALISE, augmentation=augmentation)
    assert preprocessor(batch([True] * 3), True)['inputs'].shape == (3, 3, 8, 8)
    assert preprocessor(batch([True] * 3), False)['inputs'].shape == (3, 3, 12, 12)
    data = batch([True] * 3)
    data.pop('seeds')
    with pytest.raises(ValueError, match='decode_once=True'):
        preprocessor(data, True)


def test_channels_last_changes_the_layout_only():
    data = batch([True, False])
    plain = JointClsDataPreprocessor(**NORMALISE)(copy.deepcopy(data))['inputs']
    other = JointClsDataPreprocessor(**NORMALISE, channels_last=True)(data)['inputs']
    assert torch.equal(plain, other) and plain.is_contiguous()
    assert other.is_contiguous(memory_format=torch.channels_last)


def test_mixing_labels_needs_labels():
    augments = dict(augments=dict(type='Mixup', alpha=1.0))
    preprocessor = JointClsDataPreprocessor(num_classes=5, batch_augments=augments)
    mixed = preprocessor(batch([True] * 4), True)
    assert all(s.gt_score.shape == (5,) for s in mixed['data_samples'])
    with pytest.raises(ValueError, match='pool images have none'):
        preprocessor(batch([True, False]), True)
