"""The stand-ins for mmcv's compiled ops, against the compiled ops themselves."""

import importlib
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import families
import numpy as np
import pytest
import torch

from tjls_mm import compat

REPO = Path(__file__).resolve().parents[1]
# mmcv 2.3.6 with its ops, built for this Python and torch; no part of the project.
WHEEL = (
    REPO.parent / 'shared' / 'wheels' / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
)


def compiled_ops_missing() -> bool:
    return isinstance(sys.modules['mmcv._ext'], compat._MissingOps)


needs_stand_in = pytest.mark.skipif(
    not compiled_ops_missing(), reason='mmcv has its compiled ops here'
)


def wheel_reason() -> str:
    """Why the wheel is no use here, empty if it is."""
    if not WHEEL.exists():
        return f'no {WHEEL}'
    if sys.version_info[:2] != (3, 11) or not torch.__version__.startswith('2.13.'):
        return f'{WHEEL.name} is built for Python 3.11 and torch 2.13'
    return ''


needs_wheel = pytest.mark.skipif(bool(wheel_reason()), reason=wheel_reason())


def run_python(code: str, *paths: Path) -> str:
    """Run code in a fresh process with these folders first on ``sys.path``."""
    env = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, (*paths, REPO)))}
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- The same boxes as the compiled op ---

COMPARE = """
    import itertools
    import sys

    import mmcv._ext as compiled
    import torch

    from tjls_mm import compat

    assert sys.modules['mmcv._ext'] is compiled, 'compat replaced compiled ops'
    generator = torch.Generator().manual_seed(0)


    def rand(*shape):
        return torch.rand(*shape, generator=generator)


    def make_boxes(n, kind):
        corner, size = rand(n, 2) * 300, rand(n, 2) ** 2 * 200
        boxes = torch.cat([corner, corner + size], dim=1)
        if kind == 'on a grid':  # overlaps that equal the threshold
            boxes = (boxes / 20).round() * 20
        elif kind == 'duplicate':
            boxes = boxes[(rand(n) * max(1, n // 4)).long()]
        elif kind == 'class offsets':  # as batched_nms moves them
            boxes += ((rand(n) * 20).floor() * 501)[:, None]
        elif kind == 'degenerate':
            lot = rand(n)
            boxes[lot < 0.1, 0] = float('nan')
            boxes[(lot > 0.1) & (lot < 0.2), 2] = float('inf')
            boxes[(lot > 0.2) & (lot < 0.3), 1] = float('-inf')
            flat = (lot > 0.3) & (lot < 0.5)
            boxes[flat, 2:] = boxes[flat, :2]
            turned = (lot > 0.5) & (lot < 0.6)
            boxes[turned] = boxes[turned][:, [2, 3, 0, 1]]
            boxes[(lot > 0.6) & (lot < 0.7)] = 0
            boxes[(lot > 0.7) & (lot < 0.75)] *= 1e20
        return boxes


    def make_scores(n, kind):
        scores = rand(n)
        if kind == 'tied':
            scores = (scores * 5).round() / 5
        elif kind == 'with NaN':
            scores[rand(n) < 0.2] = float('nan')
        return scores


    cases = 0
    for n, boxes_kind, scores_kind, threshold, offset in itertools.product(
        (0, 1, 2, 17, 97, 800),
        ('plain', 'on a grid', 'duplicate', 'class offsets', 'degenerate'),
        ('distinct', 'tied', 'with NaN'),
        (0.0, 0.3, 0.45, 0.5, 0.6, 0.7, 1.0),
        (0, 1),
    ):
        boxes, scores = make_boxes(n, boxes_kind), make_scores(n, scores_kind)
        expected = compiled.nms(boxes, scores, threshold, offset)
        got = compat.box_nms(boxes, scores, threshold, offset)
        case = (n, boxes_kind, scores_kind, threshold, offset)
        assert torch.equal(got, expected), (case, got, expected)
        assert got.dtype == expected.dtype, case
        cases += 1
    print(cases)
"""


@needs_wheel
def test_same_boxes_as_compiled(tmp_path):
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(tmp_path)
    assert int(run_python(COMPARE, tmp_path)) == 6 * 5 * 3 * 7 * 2


@pytest.mark.skipif(
    not compat._torchvision_nms_works('cpu'),
    reason="torchvision's compiled ops do not load on this torch",
)
@pytest.mark.parametrize('threshold', [0.3, 0.45, 0.6, 0.7])
def test_torchvision_op_and_numpy_agree(threshold, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corner = (torch.rand(500, 2, generator=generator) * 15).round() * 20
    size = (torch.rand(500, 2, generator=generator) * 10).round() * 20
    boxes = torch.cat([corner, corner + size], dim=1)
    scores = (torch.rand(500, generator=generator) * 10).round()
    by_torchvision = compat.box_nms(boxes, scores, threshold)
    monkeypatch.setattr(compat, '_torchvision_nms_works', lambda device: False)
    assert torch.equal(compat.box_nms(boxes, scores, threshold), by_torchvision)


# --- What mmdet and mmcv see ---

# Boxes 0 and 1 overlap by 80 / 120 = 2/3; box 2 lies apart; box 3 equals box 0.
BOXES = torch.tensor(
    [[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60], [0, 0, 10, 10]]
).float()
SCORES = torch.tensor([0.8, 0.9, 0.3, 0.7])


def test_mmcv_nms():
    from mmcv.ops import nms

    dets, kept = nms(BOXES, SCORES, 0.5)
    assert kept.tolist() == [1, 2]
    torch.testing.assert_close(dets[:, :4], BOXES[[1, 2]])
    torch.testing.assert_close(dets[:, 4], SCORES[[1, 2]])
    assert nms(BOXES, SCORES, 0.7)[1].tolist() == [1, 0, 2]
    assert nms(BOXES, SCORES, 0.5, score_threshold=0.5)[1].tolist() == [1]
    assert nms(BOXES.numpy(), SCORES.numpy(), 0.5)[1].tolist() == [1, 2]


def test_mmcv_nms_with_offset():
    from mmcv.ops import nms

    # Apart by one pixel: with offset 1 they are 2 x 1 pixels with 1 in common.
    boxes = np.array([[0, 0, 1, 0], [1, 0, 2, 0]], dtype=np.float32)
    scores = np.array([0.9, 0.8], dtype=np.float32)
    assert nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]
    assert nms(boxes, scores, 0.4, offset=1)[1].tolist() == [0, 1]


def test_mmcv_batched_nms_keeps_classes_apart():
    from mmcv.ops import batched_nms

    labels = torch.tensor([0, 1, 1, 0])
    config = dict(type='nms', iou_threshold=0.5)
    dets, kept = batched_nms(BOXES, SCORES, labels, config)
    assert kept.tolist() == [1, 0, 2]
    torch.testing.assert_close(dets[:, :4], BOXES[[1, 0, 2]])


@needs_stand_in
def test_other_ops_say_what_is_missing():
    from mmcv.ops import deform_conv2d, soft_nms

    with pytest.raises(RuntimeError, match="'softnms'.*make ops"):
        soft_nms(BOXES, SCORES)
    offset, weight = torch.zeros(1, 18, 6, 6), torch.zeros(1, 1, 3, 3)
    with pytest.raises(RuntimeError, match="'deform_conv_forward'.*make ops"):
        deform_conv2d(torch.zeros(1, 1, 8, 8), offset, weight)


@needs_stand_in
def test_mmcv_environment_report_tells_the_stand_in():
    from mmcv.ops import get_compiler_version

    assert 'tjls_mm.compat' in get_compiler_version()


@pytest.mark.parametrize(
    'module', ['mmdet.models', 'mmpretrain.models', 'torchvision.transforms']
)
def test_import_works(module):
    pytest.importorskip(module.split('.')[0], exc_type=ModuleNotFoundError)
    importlib.import_module(module)


def test_importing_the_package_imports_no_torch():
    code = "import sys, tjls_mm; print('torch' in sys.modules, 'mmcv' in sys.modules)"
    assert run_python(code).split() == ['False', 'False']


# --- Detectors that cannot run without compiled ops ---


def dcn(model):
    stages = (False, False, False, True)
    dcn = dict(type='DCN')
    model.backbone.update(depth=50, dcn=dcn, stage_with_dcn=stages)


def soft_nms_in_test(model):
    model.test_cfg.rcnn.nms = dict(type='soft_nms', iou_threshold=0.5)


def max_pooling(model):
    model.roi_head.bbox_roi_extractor.roi_layer.pool_mode = 'max'


NEEDS = {
    'tood': (None, 'bbox_head (TOODHead)', 'deform_conv'),
    'vfnet': (
        None,
        'bbox_head (VFNetHead, layer vfnet_reg_refine_dconv)',
        'deform_conv',
    ),
    'reppoints': (
        None,
        'bbox_head (RepPointsHead, layer reppoints_cls_conv)',
        'deform_conv',
    ),
    'retinanet': (dcn, 'backbone (ResNet, layer layer4.0.conv2)', 'deform_conv'),
    'faster_rcnn': (soft_nms_in_test, 'roi_head (StandardRoIHead)', 'softnms'),
    'cascade_rcnn': (
        max_pooling,
        'roi_head (CascadeRoIHead, layer bbox_roi_extractor.0.roi_layers.0)',
        'roi_align for pool_mode=max',
    ),
}


@needs_stand_in
@pytest.mark.parametrize('name', NEEDS)
def test_the_part_that_needs_an_operator_is_named(name):
    change, place, operator = NEEDS[name]
    config = families.family(name)
    if change:
        change(config)
    line = next(compat.operator_problems(families.build(config)))
    assert line.startswith(f"model.{place} needs mmcv's compiled operator '{operator}'")
    assert 'make ops' in line


@pytest.mark.parametrize('name', ['ssd', 'rtmdet', 'cascade_rcnn', 'dino'])
def test_other_detectors_need_no_operator(name):
    model = families.build(families.family(name))
    assert list(compat.missing_operators(model)) == []
