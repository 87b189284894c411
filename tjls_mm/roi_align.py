"""RoIAlign in PyTorch, in the form of mmcv's compiled operators.

Each bin averages bilinear samples on a grid, and the weight of a sample is the product
of a weight along y and one along x. So a RoI costs two matrix products with its crop of
the map, whatever the number of samples: ``by_row @ crop @ by_column.T``.

Source: He et al., Mask R-CNN, Sec. 3; mmcv's ``csrc/pytorch/cpu/roi_align.cpp``, whose
order of operations the positions of the samples follow.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from tjls_mm.errors import InputError, TrainingDiverged

AVERAGE = 1
"""``pool_mode`` of mmcv's operators for 'avg'; 0 is 'max'."""

ROIS_AT_ONCE = {'cpu': 1}
"""RoIs that share a crop around all of them, by type of device, else 64.

A CPU saves arithmetic with a crop for each, a GPU saves calls.
"""


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` with the averages of the bins of each RoI.

    Args:
        input: (B, C, H, W), any float dtype, on any device.
        rois: (R, 5), index of the image and xyxy in pixels of the image.
        output: (R, C, aligned_height, aligned_width), overwritten.
        argmax_y, argmax_x: Not used, they belong to maximum pooling.
        aligned_height, aligned_width: Number of bins.
        spatial_scale: Cells of the map per pixel of the image.
        sampling_ratio: Samples per bin and axis; 0 for one per cell, rounded up.
        pool_mode: 1, average.
        aligned: Whether the centre of cell 0 lies at 0.5, as in the images; else at 0,
            and a RoI is at least one cell long.

    Raises:
        InputError: For another ``pool_mode``.
        TrainingDiverged: If a RoI is not finite.
    """
    _require_average(pool_mode)
    with torch.autocast(input.device.type, enabled=False):
        maps = _cells(input)
        pooled = maps.new_empty(len(rois), aligned_height, aligned_width, maps.shape[3])
        shape = aligned_height, aligned_width
        crops = _crops(maps, rois, shape, spatial_scale, sampling_ratio, aligned)
        for rows, crop, by_row, by_column in crops:
            strips = by_row.flatten(0, 1) @ crop  # (n * bins, w * C)
            strips = strips.view(*by_row.shape[:2], by_column.shape[2], -1)
            torch.matmul(by_column[:, None], strips, out=pooled[rows])
    output.copy_(pooled.permute(0, 3, 1, 2))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of the map, (B, C, H, W), to ``grad_input``.

    ``grad_output`` is (R, C, aligned_height, aligned_width), the others and the errors
    are those of ``roi_align_forward``.
    """
    _require_average(pool_mode)
    with torch.autocast(grad_output.device.type, enabled=False):
        grads = _cells(grad_output)
        n_images, channels, *size = grad_input.shape
        maps = grads.new_zeros(n_images, *size, channels)
        shape = aligned_height, aligned_width
        crops = _crops(maps, rois, shape, spatial_scale, sampling_ratio, aligned)
        for rows, crop, by_row, by_column in crops:
            strips = by_column.mT[:, None] @ grads[rows]  # (n, bins, w, C)
            crop.addmm_(by_row.flatten(0, 1).T, strips.view(-1, crop.shape[1]))
    grad_input += maps.permute(0, 3, 1, 2)


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise InputError(
            "RoIAlign: expected pool_mode='avg', found 'max', which needs mmcv's "
            "compiled operators. Write pool_mode='avg' in the roi_layer of the config."
        )


def _cells(maps: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C), contiguous: a crop's rows are matrix rows then.

    At least float32: half a precision would blur where a sample lies.
    """
    dtype = torch.promote_types(maps.dtype, torch.float32)
    return maps.permute(0, 2, 3, 1).to(dtype).contiguous()


def _crops(
    maps: Tensor,
    rois: Tensor,
    shape: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """For each few RoIs of one image their rows, their crop and its weights.

    The crop, (h, w * C), is a view of ``maps``, (B, H, W, C). The weights of n RoIs are
    (n, bins, h) along y and (n, bins, w) along x.
    """
    if len(rois) == 0:
        return
    corners = rois[:, 1:].to(maps.dtype) * spatial_scale - (0.5 if aligned else 0.0)
    start, length = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not torch.isfinite(length).all():
        raise TrainingDiverged('RoIAlign: a region of interest is not finite.')
    length = length.clamp_min(0.0 if aligned else 1.0)
    n_images, height, width, channels = maps.shape
    x, y = (
        _weights(start[:, i], length[:, i], shape[1 - i], size, sampling_ratio)
        for i, size in enumerate((width, height))
    )
    # The last wait for a GPU.
    edges = torch.stack([rois[:, 0].long(), *y[:2], *x[:2]]).tolist()
    at_once = ROIS_AT_ONCE.get(maps.device.type, 64)
    lines = maps.view(n_images, height, width * channels)
    for rows in _runs(edges[0], at_once):
        image, tops, bottoms, lefts, rights = (edge[rows] for edge in edges)
        y_span = slice(min(tops), max(bottoms))
        left, right = min(lefts), max(rights)
        crop = lines[image[0], y_span, left * channels : right * channels]
        yield rows, crop, y[2][rows, :, y_span], x[2][rows, :, left:right]


def _runs(values: list[int], longest: int) -> Iterator[slice]:
    """Where one value stands in a row, in pieces of at most ``longest``."""
    start = 0
    for _, run in itertools.groupby(values):
        end = start + len(list(run))
        for first in range(start, end, longest):
            yield slice(first, min(first + longest, end))
        start = end


def _weights(
    start: Tensor, length: Tensor, bins: int, size: int, sampling_ratio: int
) -> tuple[Tensor, Tensor, Tensor]:
    """How much of each cell, along one axis, every bin takes.

    Args:
        start, length: (R,), of the RoIs, in cells.
        bins: Number of bins.
        size: Cells of the map.
        sampling_ratio: Samples per bin; 0 for one per cell, rounded up.

    Returns:
        First cell of a RoI and the one after its last, (R,), int64, and the weights,
        (R, bins, size).
    """
    step = length / bins
    n_samples = torch.ceil(step)
    if sampling_ratio > 0:
        n_samples = torch.full_like(step, sampling_ratio)
    divisor = n_samples.clamp_min(1)[:, None]
    i = torch.arange(int(divisor.max()), device=start.device, dtype=start.dtype)
    within = (i + 0.5) * step[:, None] / divisor  # (R, samples)
    bin_start = start[:, None] + torch.arange(bins, device=i.device) * step[:, None]
    position = bin_start[:, :, None] + within[:, None]  # (R, bins, samples)

    live = (i < n_samples[:, None])[:, None] & (position >= -1) & (position <= size)
    share = live / divisor[:, None]
    position = position.clamp(0, size - 1)
    low = position.floor()
    high_share = (position - low) * share
    low = low.long()
    high = (low + 1).clamp_max(size - 1)
    weights = start.new_zeros(len(start), bins, size)
    weights.scatter_add_(2, low, share - high_share)
    weights.scatter_add_(2, high, high_share)

    first = torch.where(live, low, size - 1).flatten(1).amin(1)
    stop = torch.where(live, high, 0).flatten(1).amax(1).clamp_min(first) + 1
    return first, stop, weights
