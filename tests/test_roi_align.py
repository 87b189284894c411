"""RoIAlign without compiled operators: the same averages, the same gradients."""

import itertools
import math
import zipfile

import pytest
import torch
from families import TWO_STAGE, batch, build, family
from test_compat import WHEEL, needs_stand_in, needs_wheel, run_python

from tjls_mm import roi_align
from tjls_mm.errors import InputError, TrainingDiverged

# On a map of 10 x 12 cells: inside, one cell, whole, past each border, outside, empty.
ROIS = torch.tensor(
    [
        [0, 1.3, 2.1, 7.9, 6.4],
        [1, 4.2, 4.4, 4.9, 5.3],
        [1, 0, 0, 12, 10],
        [0, -3.2, -1.7, 2.4, 3.1],
        [0, 9.5, 7.5, 20.3, 16.2],
        [1, 40, 40, 50, 50],
        [1, -50, -40, -30, -20],
        [0, 5.5, 5.5, 5.5, 5.5],
        [0, 2, 3, 2, 8],
    ],
    dtype=torch.float64,
)
OPTIONS = list(itertools.product((0, 2), (True, False), (1.0, 0.5)))


def forward(maps, rois, shape=(3, 2), ratio=0, aligned=True, scale=1.0, pool_mode=1):
    output = maps.new_full((len(rois), maps.shape[1], *shape), math.nan)
    unused = maps.new_zeros(0)
    roi_align.roi_align_forward(
        maps, rois, output, unused, unused, *shape, scale, ratio, pool_mode, aligned
    )
    return output


def backward(grads, rois, map_shape, ratio=0, aligned=True, scale=1.0):
    grad_input = grads.new_zeros(map_shape)
    unused, shape = grads.new_zeros(0), grads.shape[2:]
    roi_align.roi_align_backward(
        grads, rois, unused, unused, grad_input, *shape, scale, ratio, 1, aligned
    )
    return grad_input


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def interpolate(cells, y, x):
    """One bilinear sample of a map, (C, H, W)."""
    height, width = cells.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros_like(cells[:, 0, 0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = torch.lerp(cells[:, top, left], cells[:, top, right], x - left)
    below = torch.lerp(cells[:, down, left], cells[:, down, right], x - left)
    return torch.lerp(above, below, y - top)


def by_hand(maps, rois, shape, ratio, aligned, scale):
    """RoIAlign as the paper says it, sample by sample."""
    output = maps.new_zeros(len(rois), maps.shape[1], *shape)
    for r, (image, *box) in enumerate(rois.tolist()):
        left, top, right, bottom = (v * scale - 0.5 * aligned for v in box)
        size = [bottom - top, right - left]
        if not aligned:
            size = [max(s, 1.0) for s in size]
        steps = [s / n for s, n in zip(size, shape, strict=True)]
        counts = [ratio or math.ceil(step) for step in steps]
        samples = list(itertools.product(*map(range, counts)))
        for i, j in itertools.product(*map(range, shape)):
            for a, b in samples:
                y = top + (i + (a + 0.5) / counts[0]) * steps[0]
                x = left + (j + (b + 0.5) / counts[1]) * steps[1]
                value = interpolate(maps[int(image)], y, x)
                output[r, :, i, j] += value / len(samples)
    return output


@pytest.mark.parametrize(('ratio', 'aligned', 'scale'), OPTIONS)
def test_averages_of_bilinear_samples(ratio, aligned, scale):
    maps = random(2, 3, 10, 12)
    options = {'ratio': ratio, 'aligned': aligned, 'scale': scale}
    expected = by_hand(maps, ROIS, (3, 2), **options)
    torch.testing.assert_close(forward(maps, ROIS, **options), expected)


@pytest.mark.parametrize(('ratio', 'aligned', 'scale'), OPTIONS)
def test_gradient_is_the_adjoint(ratio, aligned, scale):
    """Forward is linear: <forward(maps), grads> = <maps, backward(grads)>."""
    maps, grads = random(2, 3, 10, 12), random(len(ROIS), 3, 3, 2)
    options = {'ratio': ratio, 'aligned': aligned, 'scale': scale}
    out = (forward(maps, ROIS, **options) * grads).sum()
    back = (backward(grads, ROIS, maps.shape, **options) * maps).sum()
    torch.testing.assert_close(out, back)


@needs_stand_in
def test_gradient_check_through_mmcv():
    from mmcv.ops import RoIAlign

    maps, layer = random(2, 2, 10, 12).requires_grad_(), RoIAlign((3, 2))
    assert torch.autograd.gradcheck(lambda m: layer(m, ROIS), maps)


def test_backward_adds():
    grads = random(len(ROIS), 3, 3, 2)
    grad_input = torch.ones(2, 3, 10, 12, dtype=grads.dtype)
    unused = grads.new_zeros(0)
    roi_align.roi_align_backward(
        grads, ROIS, unused, unused, grad_input, 3, 2, 1.0, 0, 1, aligned=True
    )
    expected = backward(grads, ROIS, grad_input.shape) + 1
    torch.testing.assert_close(grad_input, expected)


def test_no_rois():
    assert forward(random(2, 3, 10, 12), ROIS[:0]).shape == (0, 3, 3, 2)
    assert not backward(random(0, 3, 3, 2), ROIS[:0], (2, 3, 10, 12)).any()


def test_only_rois_without_area():
    maps = random(2, 3, 10, 12)
    assert not forward(maps, ROIS[7:]).any()
    assert not backward(random(2, 3, 3, 2), ROIS[7:], maps.shape).any()


@pytest.mark.parametrize('at_once', [2, 64])
def test_several_rois_at_once_as_on_a_gpu(at_once, monkeypatch):
    maps, grads = random(2, 3, 10, 12), random(len(ROIS), 3, 3, 2)
    alone = forward(maps, ROIS), backward(grads, ROIS, maps.shape)
    monkeypatch.setitem(roi_align.ROIS_AT_ONCE, 'cpu', at_once)
    together = forward(maps, ROIS), backward(grads, ROIS, maps.shape)
    torch.testing.assert_close(together, alone)


def test_memory_format_does_not_matter():
    maps = random(2, 3, 10, 12)
    other = maps.to(memory_format=torch.channels_last)
    assert torch.equal(forward(maps, ROIS), forward(other, ROIS))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_only_at_the_end(dtype):
    maps, rois = random(2, 3, 10, 12, dtype=dtype), ROIS.to(dtype)
    out = forward(maps, rois)
    assert out.dtype == dtype
    assert torch.equal(out, forward(maps.float(), rois.float()).to(dtype))
    grads = random(len(rois), 3, 3, 2, dtype=dtype)
    assert torch.equal(
        backward(grads, rois, maps.shape),
        backward(grads.float(), rois.float(), maps.shape).to(dtype),
    )


def test_autocast_does_not_lower_the_precision():
    maps, rois = random(2, 3, 10, 12, dtype=torch.float32), ROIS.float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = forward(maps, rois)
    assert torch.equal(inside, forward(maps, rois))


def test_maximum_is_refused():
    with pytest.raises(InputError, match="pool_mode='avg'"):
        forward(random(2, 3, 10, 12), ROIS, pool_mode=0)


def test_rois_of_a_diverged_training_are_refused():
    rois = ROIS.clone()
    rois[3, 2] = math.nan
    with pytest.raises(TrainingDiverged, match='not finite'):
        forward(random(2, 3, 10, 12), rois)


# --- Against the compiled operator ---

COMPARE = """
    import itertools

    import mmcv._ext as compiled
    import torch

    from tjls_mm import roi_align

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)


    def make_rois(n, height, width):
        center = torch.rand(n, 2, generator=generator) * 1.4 - 0.2
        size = torch.rand(n, 2, generator=generator) ** 2
        image = (torch.rand(n, 1, generator=generator) * 2).floor()
        corners = torch.cat([center - size / 2, center + size / 2], 1)
        corners *= torch.tensor([width, height, width, height])
        corners[: n // 10, 2:] = corners[: n // 10, :2]  # no area
        corners[n // 10 : n // 5] += 3 * max(width, height)  # outside
        return torch.cat([image, corners], 1)


    for size, ratio, aligned, scale, bins in itertools.product(
        ((10, 12), (33, 50), (100, 168)),
        (0, 2),
        (True, False),
        (1.0, 0.25),
        ((7, 7), (3, 5)),
    ):
        rois = make_rois(50, *size)
        rois[:, 1:] /= scale
        options = dict(
            aligned_height=bins[0],
            aligned_width=bins[1],
            spatial_scale=scale,
            sampling_ratio=ratio,
            pool_mode=1,
            aligned=aligned,
        )
        maps = torch.randn(2, 4, *size, generator=generator)
        grads = torch.randn(50, 4, *bins, generator=generator)
        unused, errors = torch.zeros(0), []
        for name, first, out_shape in (
            ('roi_align_forward', maps, grads.shape),
            ('roi_align_backward', grads, maps.shape),
        ):
            got, expected = torch.zeros(out_shape), torch.zeros(out_shape)
            for ops, out in ((roi_align, got), (compiled, expected)):
                rest = [out, unused, unused]
                if name == 'roi_align_backward':
                    rest = [unused, unused, out]
                getattr(ops, name)(first, rois, *rest, **options)
            errors.append(float((got - expected).abs().max() / expected.abs().max()))
        case = size, ratio, aligned, scale, bins
        assert errors[0] <= 1e-5 and errors[1] <= 2e-6, (case, errors)
        print(case)
"""


@needs_wheel
def test_same_as_compiled(tmp_path):
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(tmp_path)
    assert len(run_python(COMPARE, tmp_path).splitlines()) == 3 * 2 * 2 * 2 * 2


# --- Two-stage detectors ---


@pytest.mark.parametrize('name', TWO_STAGE)
def test_two_stage_detectors_learn(name):
    model = build(family(name)).train()
    data = model.data_preprocessor(batch([True, True]), training=True)
    losses = model(**data, mode='loss')
    total, losses = model.parse_losses(losses)
    assert all(value.isfinite() for value in losses.values()), losses
    total.backward()
    for part in (model.roi_head, model.rpn_head, model.neck, model.backbone.layer4):
        grads = [p.grad for p in part.parameters() if p.grad is not None]
        assert any(grad.any() for grad in grads)
        assert all(grad.isfinite().all() for grad in grads)
    model.eval()
    with torch.no_grad():
        results = model(**data, mode='predict')
    assert len(results) == 2
