"""The operators that mmdet calls on GPUs only, called here with tensors of the CPU."""

import pytest
import torch
import torch.nn.functional as F
from test_compat import needs_stand_in

pytestmark = needs_stand_in
N_CLASSES = 4


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
def test_focal_loss_is_mmdets_own(gamma):
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss, sigmoid_focal_loss

    logits = (random(6, N_CLASSES) * 8).float()
    target = torch.tensor([0, 3, N_CLASSES, 1, N_CLASSES, 2])
    one_hot = F.one_hot(target, N_CLASSES + 1)[:, :N_CLASSES]
    weight = torch.rand(6, generator=torch.Generator().manual_seed(0))
    results = []
    for loss_of, labels in (
        (sigmoid_focal_loss, target),
        (py_sigmoid_focal_loss, one_hot),
    ):
        leaf = logits.clone().requires_grad_()
        loss = loss_of(leaf, labels, weight, gamma=gamma, alpha=0.3, avg_factor=3.0)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_focal_loss_in_half_precision():
    from mmcv.ops import sigmoid_focal_loss

    logits = (random(6, N_CLASSES) * 8).half()
    target = torch.tensor([0, 3, N_CLASSES, 1, N_CLASSES, 2])
    got = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    expected = sigmoid_focal_loss(logits.float(), target, 2.0, 0.25, None, 'none')
    assert torch.equal(got, expected.half())


def test_focal_loss_with_weights_of_classes_is_refused():
    from mmcv.ops import sigmoid_focal_loss

    target, weight = torch.zeros(6, dtype=torch.long), torch.ones(N_CLASSES)
    with pytest.raises(RuntimeError, match='weights of classes.*make ops'):
        sigmoid_focal_loss(random(6, N_CLASSES), target, 2.0, 0.25, weight)


def test_deformable_attention_is_mmcvs_own():
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    shapes = torch.tensor([[6, 8], [3, 4]])
    starts = torch.tensor([0, 48])
    tensors = random(2, 60, 2, 4), random(2, 5, 2, 2, 3, 2), random(2, 5, 2, 2, 3)
    grad_output = random(2, 5, 8)
    results = []
    for attend in (
        lambda v, loc, w: MultiScaleDeformableAttnFunction.apply(
            v, shapes, starts, loc, w, 64
        ),
        lambda v, loc, w: multi_scale_deformable_attn_pytorch(v, shapes, loc, w),
    ):
        leaves = [t.clone().requires_grad_() for t in tensors]
        output = attend(*leaves)
        output.backward(grad_output)
        results.append([output.detach(), *(leaf.grad for leaf in leaves)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
