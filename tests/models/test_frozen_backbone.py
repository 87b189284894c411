"""Features of a frozen backbone: of the image alone, and computed once."""

import pytest
import torch

from tjls_mm.models import FrozenBackbone, frozen_backbone
from tjls_mm.registry import MODELS

RESNET = dict(type='mmdet.ResNet', depth=18, base_channels=8, out_indices=(2, 3))


@pytest.fixture(autouse=True)
def _empty():
    frozen_backbone._FEATURES.clear()


def frozen(cached_images: int = 0, seed: int = 0, **changes) -> FrozenBackbone:
    torch.manual_seed(seed)
    backbone = {**RESNET, **changes}
    config = dict(type='tjls_mm.FrozenBackbone', backbone=backbone)
    model = MODELS.build({**config, 'cached_images': cached_images})
    model.init_weights()
    return model


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def passes(model: FrozenBackbone) -> list[int]:
    """Batch sizes that the backbone sees from here on."""
    seen = []

    def note(module, args, outputs):
        if args[0].shape[-1] == images().shape[-1]:  # not what it tries itself on
            seen.append(len(args[0]))

    model.backbone.register_forward_hook(note)
    return seen


def test_features_are_the_backbones_own():
    model = frozen()
    expected = model.backbone(images(1))
    assert len(expected) == 2
    for ours, own in zip(model(images(1)), expected, strict=True):
        torch.testing.assert_close(ours, own)


def test_bits_depend_on_the_image_alone():
    expected = frozen()(images())
    for cached in (0, 1, 2, 100):
        model = frozen(cached)
        for rows in ([2, 0], [1], [0, 1, 2], [2, 2, 1]):
            for ours, level in zip(model(images()[rows]), expected, strict=True):
                assert ours.equal(level[rows])


def test_known_images_are_not_computed_again_by_the_next_model_either():
    seen = passes(frozen_model := frozen(cached_images=8))
    frozen_model(images())
    frozen_model(images()[[2, 0, 1, 1]])
    assert seen == [1, 1, 1]
    seen = passes(next_stage := frozen(cached_images=8))
    next_stage(images())
    assert seen == []
    next_stage(images().flip(-1)[:1])
    assert seen == [1]


def test_memory_is_bounded_and_the_last_used_stay():
    model = frozen(cached_images=2)
    seen = passes(model)
    for row in (0, 1, 0, 2):
        model(images()[row : row + 1])
    assert len(frozen_backbone._FEATURES) == 2
    model(images()[[0, 2]])
    assert len(seen) == 3
    model(images()[1:2])
    assert len(seen) == 4


@pytest.mark.parametrize('change', ['weights', 'loaded', 'levels'])
def test_other_weights_and_other_levels_have_other_features(change):
    model = frozen(cached_images=8)
    first = model(images())
    other = frozen(seed=1) if change != 'levels' else frozen(out_indices=(1, 3))
    if change == 'loaded':
        model.load_state_dict(other.state_dict())
    else:
        other.cached_images, model = 8, other
    assert not model(images())[0].equal(first[0])


def test_nothing_of_it_is_trained():
    model = frozen(cached_images=8).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert not any(level.requires_grad for level in model(images()))
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.backbone.training and model.training
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_features_under_mixed_precision_are_float32():
    expected = frozen()(images())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = frozen()(images())
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_batch_norm_is_folded_only_where_that_changes_nothing():
    model = frozen(norm_cfg=dict(type='BN'))
    model(images(1))
    kinds = {type(part).__name__ for part in model._folded.modules()}
    assert 'BatchNorm2d' not in kinds
    assert 'BatchNorm2d' in {type(part).__name__ for part in model.modules()}
    # A convolution that ignores what is folded into its bias.
    other = frozen()
    other.backbone.conv1.forward = lambda x: torch.nn.functional.conv2d(
        x, other.backbone.conv1.weight, None, 2, 3
    )
    other.backbone.bn1.running_mean.fill_(1.0)
    other(images(1))
    assert other._folded is other.backbone
