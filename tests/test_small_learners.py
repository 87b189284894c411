"""No learner of tests or demos has a convolution that torch computes wrongly.

torch 2.13 on processors with AVX2 and without AVX-512 corrupts the heap in the backward
pass of a 1x1 convolution with stride 2 and fewer than 8 input channels.
"""

import sys
from pathlib import Path

import pytest
import torch
from conftest import (
    CLASSIFICATION_CONFIGS,
    ROOT,
    config_path,
    make_classifier_config,
    make_config,
)
from mmengine.config import Config
from mmengine.registry import DefaultScope

from tjls_mm.registry import MODELS


def dangerous(model: torch.nn.Module) -> list[str]:
    return [
        name
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Conv2d)
        and m.kernel_size == (1, 1)
        and m.stride == (2, 2)
        and m.in_channels // m.groups < 8
    ]


def build(cfg) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return MODELS.build(cfg.model)


def test_the_check_sees_what_it_looks_for():
    assert dangerous(torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1, 2))) == ['0']
    assert not dangerous(torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1, 2)))


@pytest.mark.parametrize('name', ['demo_tjls', 'ssd_r18_vocmini_tjls'])
def test_small_detectors(name, tmp_path):
    assert not dangerous(build(Config.fromfile(config_path(name))))
    assert not dangerous(build(make_config(tmp_path, tmp_path, name)))


@pytest.mark.parametrize(
    'name', [n for n in CLASSIFICATION_CONFIGS if n.startswith('small')]
)
def test_small_classifiers(name):
    assert not dangerous(build(Config.fromfile(config_path(name))))


def test_learners_of_the_tests(tmp_path):
    assert not dangerous(build(make_classifier_config(tmp_path, tmp_path)))
    sys.path.insert(0, str(ROOT / 'tests' / 'models'))
    import test_joint_cls_head
    import test_joint_ssd

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert not dangerous(test_joint_cls_head.build())
    assert not dangerous(test_joint_ssd.build())


def test_no_test_asks_for_a_narrow_residual_network():
    for path in Path(ROOT / 'tests').rglob('*.py'):
        for narrow in ('base_channels=4', "base_channels': 4", 'base_channels=2'):
            if path.name != Path(__file__).name:
                assert narrow not in path.read_text(encoding='utf-8'), path
