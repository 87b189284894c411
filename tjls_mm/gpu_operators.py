"""mmcv's compiled operators that mmdet calls on GPUs only, in PyTorch.

On a CPU mmdet and mmcv choose the same functions by themselves.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill ``output`` with the focal loss of each class, as mmcv's operator for GPUs.

    Args:
        input: (N, K), logits.
        target: (N,), int64, class or K for background.
        weight: Empty: mmdet weighs the loss afterwards.
        output: (N, K), overwritten.
        gamma, alpha: Of Lin et al., Focal Loss for Dense Object Detection, Eq. 5.
    """
    _require_no_weight(weight)
    output.copy_(_focal_loss(input.float(), target, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Fill ``grad_input``, (N, K), with the derivative of each loss by its logit."""
    _require_no_weight(weight)
    loss = functools.partial(_focal_loss, target=target, gamma=gamma, alpha=alpha)
    _fill_gradients(loss, [input.float()], [grad_input])


def _focal_loss(input: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    positive = target[:, None] == torch.arange(input.shape[1], device=input.device)
    against = torch.where(positive, -input, input)  # logit of the wrong answer
    share = torch.where(positive, alpha, 1 - alpha)
    return share * against.sigmoid() ** gamma * F.softplus(against)


def _require_no_weight(weight: Tensor) -> None:
    if weight.numel():
        raise RuntimeError(
            "Focal loss with weights of classes needs mmcv's compiled operators: run "
            '`make ops`, or leave the weights out of loss_cls.'
        )


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Deformable attention, (B, Q, heads * D), as mmcv's operator for GPUs.

    Args:
        value: (B, cells, heads, D), the maps of all levels in one row.
        value_spatial_shapes: (levels, 2), height and width.
        value_level_start_index: Not used, it follows from the shapes.
        sampling_locations: (B, Q, heads, levels, points, 2), x and y in [0, 1].
        attention_weights: (B, Q, heads, levels, points).
        im2col_step: Not used.
    """
    out = _attend(value_spatial_shapes, value, sampling_locations, attention_weights)
    return out.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the gradients of ``value``, locations and weights, each of its shape."""
    _fill_gradients(
        functools.partial(_attend, value_spatial_shapes),
        [value, sampling_locations, attention_weights],
        [grad_value, grad_sampling_loc, grad_attn_weight],
        grad_output,
    )


def _attend(shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    # Numbers: mmcv would wait for the GPU at each level.
    shapes = shapes.tolist()
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def _fill_gradients(
    function: Callable[..., Tensor],
    inputs: list[Tensor],
    grads: list[Tensor],
    grad_output: Tensor | None = None,
) -> None:
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in inputs]
        output = function(*inputs)
        if grad_output is None:
            grad_output = torch.ones_like(output)
        found = torch.autograd.grad(output, inputs, grad_output.to(output.dtype))
    for grad, value in zip(grads, found, strict=True):
        grad.copy_(value)
