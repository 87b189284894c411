"""Stand-ins for what the installed OpenMMLab and PyTorch set lacks.

Importing this module makes ``import mmdet.models`` work where mmcv has no compiled
ops or torchvision was built for another torch. No other module touches packages.
"""

import contextlib
import functools
import importlib.util
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from tjls_mm.gpu_operators import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
)
from tjls_mm.roi_align import roi_align_backward, roi_align_forward

# Rows compared at once: larger blocks compare more boxes that are dropped anyway.
_BLOCK = 96
# torch drops the declared schemas when their Library object is collected.
_torchvision_schemas = None


def mend_torchvision() -> None:
    """Let torchvision import where its compiled library does not load.

    One built for CUDA does not beside a CPU build of torch. The import registers
    Python kernels for two operators and needs their schemas; calling still raises.
    """
    global _torchvision_schemas
    if 'torchvision' in sys.modules or _torchvision_schemas is not None:
        return
    spec = importlib.util.find_spec('torchvision')
    if spec is None:
        return
    # The library alone loads in milliseconds, the package takes a second.
    compiled = _find_compiled('torchvision._C', spec)
    if compiled is not None:
        with contextlib.suppress(OSError, RuntimeError):
            torch.ops.load_library(compiled.origin)
            return
    library = torch.library.Library('torchvision', 'FRAGMENT')
    schema = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + schema)
    _torchvision_schemas = library


def _find_compiled(name: str, package: ModuleSpec) -> ModuleSpec | None:
    return PathFinder.find_spec(name, list(package.submodule_search_locations))


@functools.cache
def _torchvision_nms_works(device_type: str) -> bool:
    # A bare schema passes hasattr, a CPU build has no CUDA kernel: only a call tells.
    boxes = torch.zeros(1, 4, device=device_type)
    try:
        torch.ops.torchvision.nms(boxes, boxes[:, 0], 0.5)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


def box_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0
) -> Tensor:
    """Greedy non-maximum suppression: mmcv's compiled ``nms``, box for box.

    Args:
        boxes: (N, 4), xyxy in pixels; scores: (N,).
        iou_threshold: In [0, 1]; a box that overlaps a kept one by more is dropped.
        offset: 1 where a box of xyxy (0, 0, 0, 0) covers one pixel, else 0.

    Returns:
        Indices of the kept boxes, highest score first, (M,), int64.
    """
    if boxes.numel() == 0:
        return boxes.new_zeros((0,), dtype=torch.long)
    # The compiled op's own call: a stable sort would order equal scores otherwise.
    order = scores.sort(dim=0, descending=True)[1]
    ranked = boxes.detach()[order].float()
    # The compiled op takes a C float: an overlap of 0.60000002 passes 0.6.
    threshold = np.float32(iou_threshold)
    if offset == 0 and _torchvision_nms_works(ranked.device.type):
        # Falling numbers for scores: the order is settled.
        ranks = torch.arange(len(ranked), 0, -1, device=ranked.device).float()
        kept = torch.ops.torchvision.nms(ranked, ranks, float(threshold))
    else:
        kept = _keep_greedily(ranked.cpu().numpy(), threshold, offset)
        kept = torch.from_numpy(kept).to(order.device)
    return order[kept]


# Boxes without area divide 0 by 0 and far ones overflow, in the compiled op as here.
@np.errstate(all='ignore')
def _keep_greedily(boxes: np.ndarray, threshold: np.float32, offset: int) -> np.ndarray:
    """Rows kept, ascending, (M,), of boxes highest score first, (N, 4), float32."""
    groups = [np.arange(len(boxes))]
    if threshold >= 0:  # else distant boxes overlap too
        groups = _split_at_gaps(boxes, offset)
    kept = np.zeros(len(boxes), dtype=bool)
    for rest in groups:
        while len(rest):
            head = rest[:_BLOCK]
            overlaps = _overlaps(boxes[head], boxes[rest], offset) > threshold
            alive = np.ones(len(head), dtype=bool)
            # harmless[i, j]: row i leaves row j alone.
            harmless = ~np.triu(overlaps[:, : len(head)], k=1)
            for i, row in enumerate(harmless):
                if alive[i]:
                    alive &= row
            kept[head[alive]] = True
            dropped = overlaps[alive, len(head) :].any(axis=0)
            rest = rest[len(head) :][~dropped]
    return np.flatnonzero(kept)


def _split_at_gaps(boxes: np.ndarray, offset: int) -> list[np.ndarray]:
    """Groups of rows, each ascending, that do not touch along x.

    ``batched_nms`` moves each class by more than the image's size: they fall apart.
    """
    rows = np.argsort(boxes[:, 0], kind='stable')
    reach = np.maximum.accumulate(boxes[rows, 2])
    # The same expression as a width in `_overlaps`, so that rounding cannot differ.
    gaps = np.flatnonzero(reach[:-1] - boxes[rows[1:], 0] + offset <= 0) + 1
    cuts = [0]
    for gap in gaps.tolist():
        if gap - cuts[-1] >= _BLOCK:  # smaller groups cost more than they save
            cuts.append(gap)
    return [np.sort(group) for group in np.split(rows, cuts[1:])]


def _overlaps(boxes: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """Intersection over union, (len(boxes), len(others)).

    Float operations in the compiled op's order. NaN is above no threshold.
    """
    x1, y1, x2, y2 = boxes.T[:, :, None]
    other_x1, other_y1, other_x2, other_y2 = others.T
    width = np.minimum(x2, other_x2) - np.maximum(x1, other_x1) + offset
    height = np.minimum(y2, other_y2) - np.maximum(y1, other_y1) + offset
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    other_area = (other_x2 - other_x1 + offset) * (other_y2 - other_y1 + offset)
    return inter / (area + other_area - inter)


@contextlib.contextmanager
def loading_on_this_process() -> Iterator[None]:
    """MMEngine's loader of URLs waits for all processes; here only one may come."""
    from mmengine.runner import checkpoint

    with mock.patch.object(checkpoint, 'get_dist_info', return_value=(0, 1)):
        yield


def load_on_this_process(name: str) -> dict:
    """Load a checkpoint, of a path, URL or ``open-mmlab://`` name, to the CPU."""
    from mmengine.runner.checkpoint import CheckpointLoader

    with loading_on_this_process():
        return CheckpointLoader.load_checkpoint(name, map_location='cpu')


_GET_OPS = (
    'Run `make ops` (10-30 minutes) or install an mmcv wheel with ops for this torch'
)


class _MissingOps(types.ModuleType):
    """Takes the place of ``mmcv._ext``: the operators named here work, others raise."""

    nms = staticmethod(box_nms)
    roi_align_forward = staticmethod(roi_align_forward)
    roi_align_backward = staticmethod(roi_align_backward)
    sigmoid_focal_loss_forward = staticmethod(sigmoid_focal_loss_forward)
    sigmoid_focal_loss_backward = staticmethod(sigmoid_focal_loss_backward)
    ms_deform_attn_forward = staticmethod(ms_deform_attn_forward)
    ms_deform_attn_backward = staticmethod(ms_deform_attn_backward)

    @staticmethod
    def get_compiler_version() -> str:  # for mmcv's environment report
        return 'not compiled, tjls_mm.compat stands in'

    get_compiling_cuda_version = get_compiler_version

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise RuntimeError(
                f"mmcv's compiled operator '{name}' is not installed. {_GET_OPS}."
            )

        missing.__name__ = name
        return missing


_MENDED = 'RoIAlign', 'MultiScaleDeformableAttention', 'SigmoidFocalLoss'
"""Layers of ``mmcv.ops`` that the stand-ins let run."""

_CALLED = {
    'TOODHead': 'deform_conv',
    'CLRHead': 'line_nms',
    'ScoreHLRSampler': 'nms_match',
}
"""Classes that call an operator without a layer of ``mmcv.ops``."""


def operator_problems(model: nn.Module) -> Iterator[str]:
    """A line for each part of a built model that needs a missing operator."""
    for name, operator in missing_operators(model):
        part, _, layer = name.partition('.')
        owner = getattr(model, part) if part else model
        place = '.'.join(filter(None, ('model', part)))
        yield (
            f'{place} ({type(owner).__name__}{layer and f", layer {layer}"}) needs '
            f"mmcv's compiled operator '{operator}', which is not installed. "
            f'{_GET_OPS}, or choose a detector or settings without it.'
        )


def missing_operators(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Modules of a built model that cannot run, on CPU or GPU, and what they lack.

    Yields:
        Dotted name of the module, '' for the model, and the operator. None where mmcv
        has its compiled operators.
    """
    if not isinstance(sys.modules.get('mmcv._ext'), _MissingOps):
        return
    for name, module in model.named_modules():
        samplers = getattr(module, 'bbox_sampler', None) or []
        parts = [module, *(samplers if isinstance(samplers, list) else [samplers])]
        # Ordered, each once: a class and its base need the same operator.
        for operator in dict.fromkeys(op for part in parts for op in _needed(part)):
            yield name, operator


def _needed(part: object) -> Iterator[str]:
    for kind in type(part).__mro__:
        source = kind.__module__
        if kind.__name__ in _CALLED:
            yield _CALLED[kind.__name__]
        elif source.startswith('mmcv.ops.') and kind.__name__ not in _MENDED:
            if hasattr(sys.modules[source], 'ext_module'):
                yield source.rpartition('.')[2]
    if getattr(part, 'use_deform', False):  # mmcv's SAConv2d
        yield 'deform_conv'
    if type(part).__name__ == 'RoIAlign' and part.pool_mode == 'max':
        yield 'roi_align for pool_mode=max'
    test_cfg = getattr(part, 'test_cfg', None)
    if isinstance(test_cfg, dict) and 'soft_nms' in str(test_cfg.get('nms')):
        yield 'softnms'


def mend_mmcv() -> None:
    """Provide ``mmcv._ext`` where mmcv was installed without compiled ops."""
    if 'mmcv._ext' in sys.modules:
        return
    spec = importlib.util.find_spec('mmcv')
    if spec is None or _find_compiled('mmcv._ext', spec):
        return
    module = _MissingOps('mmcv._ext', 'Stand-in by tjls_mm.compat.')
    module.__spec__ = ModuleSpec('mmcv._ext', None)
    sys.modules['mmcv._ext'] = module


def mend_ssd_head() -> None:
    """Let mmdet's SSD predict: it reads an attribute that it never sets.

    open-mmlab/mmdetection#11780, versions 3.2 to 3.5, which only ask whether that loss
    has class channels of its own: SSD's does not.
    """
    from mmdet.models.dense_heads import SSDHead

    if not hasattr(SSDHead, 'loss_cls'):
        SSDHead.loss_cls = None


mend_torchvision()
mend_mmcv()
