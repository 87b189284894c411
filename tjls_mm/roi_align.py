"""RoIAlign in PyTorch, in the form of mmcv's compiled operators.

Each bin averages bilinear samples on a grid, and the weight of a sample is the product
of a weight along y and one along x. So a RoI costs two matrix products with its crop
of the map, whatever the number of samples: ``by_row @ crop @ by_column.T``.

Source: He et al., Mask R-CNN, Sec. 3; mmcv's ``csrc/pytorch/cpu/roi_align.cpp``, whose
order of operations the positions of the samples follow.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from tjls_mm.errors import InputError, TrainingDiverged

AVERAGE = 1
"""``pool_mode`` of mmcv's operators for 'avg'; 0 is 'max'."""


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
        for bins, (crop, by_row, by_column) in zip(pooled, crops, strict=True):
            strips = by_row @ crop  # (bins, w * C)
            strips = strips.view(aligned_height, by_column.shape[1], -1)
            torch.matmul(by_column, strips, out=bins)
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
        for bins, (crop, by_row, by_column) in zip(grads, crops, strict=True):
            strips = by_column.T @ bins  # (bins, w, C)
            crop.addmm_(by_row.T, strips.view(aligned_height, -1))
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
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each RoI its crop, (h, w * C), a view of ``maps``, (B, H, W, C), and weights.

    These are (bins, h) along y and (bins, w) along x.
    """
    if len(rois) == 0:
        return
    corners = rois[:, 1:].to(maps.dtype) * spatial_scale - (0.5 if aligned else 0.0)
    start, length = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not torch.isfinite(length).all():
        raise TrainingDiverged('RoIAlign: a region of interest is not finite.')
    length = length.clamp_min(0.0 if aligned else 1.0)
    _, height, width, channels = maps.shape
    x, y = (
        _weights(start[:, i], length[:, i], shape[1 - i], size, sampling_ratio)
        for i, size in enumerate((width, height))
    )
    rows = maps.view(len(maps), height, width * channels)
    # The only wait for a GPU.
    edges = torch.stack([rois[:, 0].long(), *y[:2], *x[:2]], dim=1).tolist()
    for (image, top, bottom, left, right), by_row, by_column in zip(
        edges, y[2], x[2], strict=True
    ):
        crop = rows[image, top:bottom, left * channels : right * channels]
        yield crop, by_row[:, : bottom - top], by_column[:, : right - left]


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
        First cell of a RoI and the one after its last, (R,), int64, and the weights of
        the cells from the first on, (R, bins, S), S the most cells of any RoI.
    """
    step = length / bins
    n_samples = torch.ceil(step)
    if sampling_ratio > 0:
        n_samples = torch.full_like(step, sampling_ratio)
    n_samples = n_samples.clamp_min(1)[:, None]  # a RoI of length 0 is cleared below
    i = torch.arange(int(n_samples.max()), device=start.device, dtype=start.dtype)
    within = (i + 0.5) * step[:, None] / n_samples  # (R, samples)
    bin_start = start[:, None] + torch.arange(bins, device=i.device) * step[:, None]
    position = bin_start[:, :, None] + within[:, None]  # (R, bins, samples)

    live = (i < n_samples)[:, None] & (position >= -1) & (position <= size)
    if sampling_ratio <= 0:
        live &= (length > 0)[:, None, None]
    position = position.clamp(0, size - 1)
    low = position.floor()
    part = live / n_samples[:, None]
    high_part = (position - low) * part
    low = low.long()
    high = (low + 1).clamp_max(size - 1)

    first = torch.where(live, low, size - 1).flatten(1).amin(1)
    stop = torch.where(live, high, first[:, None, None]).flatten(1).amax(1) + 1
    n_cells = int((stop - first).max())
    weights = start.new_zeros(len(start), bins, n_cells)
    for cell, share in ((low, part - high_part), (high, high_part)):
        # What is not live weighs nothing, wherever it goes.
        cell = (cell - first[:, None, None]).clamp(0, n_cells - 1)
        weights.scatter_add_(2, cell, share)
    return first, stop, weights
