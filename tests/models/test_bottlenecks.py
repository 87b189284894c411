"""Batch bottlenecks against slow transcriptions of their equations."""

import math
import os

import pytest
import torch
from torch import nn

from tjls_mm.models import BatchTransformer, fill_context_banks
from tjls_mm.models.batch_transformer import ACTIVATIONS


def randomised(**kwargs) -> BatchTransformer:
    torch.manual_seed(0)
    module = BatchTransformer(**kwargs)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Row by row, element by element sums."""
    return torch.stack([layer.weight @ row + layer.bias for row in x])


def attention_loop(q, k, v, heads: int) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V for every query, key and head in turn."""
    d = q.shape[1] // heads
    dv = v.shape[1] // heads
    out = torch.zeros(len(q), v.shape[1])
    for h in range(heads):
        for i in range(len(q)):
            scores = [
                (q[i, h * d : (h + 1) * d] * k[j, h * d : (h + 1) * d]).sum()
                / math.sqrt(d)
                for j in range(len(k))
            ]
            weights = torch.softmax(torch.stack(scores), 0)
            for j in range(len(k)):
                out[i, h * dv : (h + 1) * dv] += (
                    weights[j] * v[j, h * dv : (h + 1) * dv]
                )
    return out


def images_loop(encoder, pooled: torch.Tensor, heads: int) -> torch.Tensor:
    x = pooled
    for block in encoder:
        normed = block.norm1(x)
        attended = attention_loop(
            linear(block.query, normed),
            linear(block.key, normed),
            linear(block.value, normed),
            heads,
        )
        x = x + linear(block.out, attended)
        hidden = block.activation(linear(block.ffn1, block.norm2(x)))
        x = x + linear(block.ffn2, hidden)
    return x


def channels_loop(encoder, tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """Eq. 1 and 2 for the tokens (F, B) of one location."""
    x = tokens
    for block in encoder:
        normed = block.norm1(x)
        q, k = linear(block.query, normed), linear(block.key, normed)
        if block.value is None:
            d = q.shape[1] // heads
            parts = [
                attention_loop(
                    q[:, h * d : (h + 1) * d], k[:, h * d : (h + 1) * d], normed, 1
                )
                for h in range(heads)
            ]
            x = x + sum(parts) / heads
        else:
            attended = attention_loop(q, k, linear(block.value, normed), heads)
            x = x + linear(block.out, attended)
        hidden = block.activation(linear(block.ffn1, block.norm2(x)))
        x = x + linear(block.ffn2, hidden)
    return x


@pytest.mark.parametrize('depth, heads', [(1, 1), (2, 1), (1, 4)])
@pytest.mark.parametrize('activation', ['sigmoid', 'relu'])
@torch.no_grad()
def test_images_equals_its_equations(depth, heads, activation):
    module = randomised(
        features=[6, 10], depth=depth, heads=heads, hidden=8, activation=activation
    )
    maps = [torch.randn(5, 6, 3, 3), torch.randn(5, 10, 2, 2)]
    for x, encoder, out in zip(maps, module.encoders, module(maps), strict=True):
        pooled = x.mean((2, 3))
        expected = x + (images_loop(encoder, pooled, heads) - pooled)[..., None, None]
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('depth, heads', [(1, 1), (2, 1), (1, 4)])
@pytest.mark.parametrize('value_projection', [True, False])
@pytest.mark.parametrize('layer_norm', [True, False])
@torch.no_grad()
def test_channels_equals_its_equations(depth, heads, value_projection, layer_norm):
    module = randomised(
        features=[6, 10],
        tokens='channels',
        batch_size=5,
        depth=depth,
        heads=heads,
        hidden=8,
        value_projection=value_projection,
        layer_norm=layer_norm,
    )
    maps = [torch.randn(5, 6, 2, 3), torch.randn(5, 10, 1, 1)]
    for x, out in zip(maps, module(maps), strict=True):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                tokens = x[:, :, row, column].t()
                expected = channels_loop(module.encoders[0], tokens, heads).t()
                torch.testing.assert_close(
                    out[:, :, row, column], expected, atol=1e-5, rtol=1e-5
                )


LAYOUTS = [
    dict(tokens='images'),
    dict(tokens='images', depth=2, heads=2),
    dict(tokens='channels', batch_size=4),
    dict(tokens='channels', batch_size=4, depth=2, heads=2),
]


@pytest.mark.parametrize('layout', LAYOUTS)
@torch.no_grad()
def test_bank_of_batch_mates_makes_eval_equal_train(layout):
    module = randomised(features=[6, 10], hidden=8, **layout)
    maps = [torch.randn(4, 6, 3, 3), torch.randn(4, 10, 1, 1)]
    trained = module.train()(maps)
    for i in range(4) if layout['tokens'] == 'images' else [0]:
        module.eval()
        mates = [j for j in range(4) if j != i]
        with module.recording():
            module([x[mates] for x in maps])
        alone = module([x[i : i + 1] for x in maps])
        for one, batch in zip(alone, trained, strict=True):
            torch.testing.assert_close(one[0], batch[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('layout', LAYOUTS)
@torch.no_grad()
def test_batch_mates_matter_in_train_mode_and_never_in_eval_mode(layout):
    module = randomised(features=6, hidden=8, **layout)
    x = torch.randn(4, 6, 3, 3)
    other = x.clone()
    other[3] += torch.randn(6, 3, 3)
    change = module.train()(x)[0] - module(other)[0]
    assert change.abs().max() > 1e-4
    module.eval()
    with module.recording():
        module(torch.randn(3, 6, 3, 3))
    assert torch.equal(module(x)[0], module(other)[0])
    torch.testing.assert_close(module(x)[:1], module(x[:1]), atol=1e-6, rtol=1e-6)
    before = module(x)
    with module.recording():
        module(torch.randn(3, 6, 3, 3))
    assert (module(x) - before).abs().max() > 1e-4, 'another bank, same output'


@torch.no_grad()
def test_images_is_permutation_equivariant_and_takes_any_batch_size():
    module = randomised(features=6, hidden=8)
    for size in (1, 5, 9):
        x = torch.randn(size, 6)
        order = torch.randperm(size)
        torch.testing.assert_close(module(x)[order], module(x[order]))


def test_empty_bank_says_how_to_fill_it():
    module = BatchTransformer(features=6).eval()
    with pytest.raises(RuntimeError, match='ContextBankHook'):
        module(torch.randn(2, 6))


def test_eval_context_batch_warns_and_attends_to_the_batch():
    with pytest.warns(UserWarning, match='depends on the other'):
        module = randomised_with_batch_context()
    x = torch.randn(4, 6)
    expected = module.train()(x)
    torch.testing.assert_close(module.eval()(x), expected)


def randomised_with_batch_context() -> BatchTransformer:
    return randomised(features=6, hidden=8, eval_context='batch')


def test_channels_refuses_another_batch_size():
    module = BatchTransformer(features=6, tokens='channels', batch_size=4)
    with pytest.raises(ValueError, match='batches of 4 images and got 3'):
        module(torch.randn(3, 6))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(tokens='pixels'), 'tokens must be one of'),
        (dict(activation='gelu'), 'activation must be one of'),
        (dict(heads=3), 'heads must divide hidden'),
        (dict(tokens='channels'), 'needs batch_size'),
        (dict(value_projection=False), "needs tokens='channels'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchTransformer(features=6, **arguments)


def test_bank_travels_with_the_checkpoint(tmp_path):
    module = randomised(features=[6, 10], hidden=8).eval()
    with module.recording():
        module([torch.randn(3, 6, 2, 2), torch.randn(3, 10, 1, 1)])
    torch.save(module.state_dict(), tmp_path / 'weights.pth')
    other = BatchTransformer(features=[6, 10], hidden=8).eval()
    other.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))
    x = [torch.randn(2, 6, 2, 2), torch.randn(2, 10, 1, 1)]
    for one, two in zip(module(x), other(x), strict=True):
        assert torch.equal(one, two)


def test_authors_options_have_their_parameter_count():
    # Table A.2: W_K and W_Q 33,024, feed-forward 33,024; the other 524,800 of the
    # table are a Linear(1024, 512) of the published code that nothing calls.
    module = BatchTransformer(
        features=512,
        tokens='channels',
        batch_size=128,
        value_projection=False,
        activation='relu',
    )
    assert sum(p.numel() for p in module.parameters()) == 66_048
    assert 15_620_005 - 15_029_157 == 66_048 + 524_800


@pytest.mark.parametrize('layout', LAYOUTS)
def test_recomputing_in_the_backward_pass_changes_no_gradient(layout):
    grads = []
    for recompute in (False, True):
        module = randomised(features=6, hidden=8, recompute=recompute, **layout)
        torch.manual_seed(1)
        x = torch.randn(4, 6, 3, 3, requires_grad=True)
        module(x).square().sum().backward()
        grads.append([x.grad, *(p.grad for p in module.parameters())])
    for one, two in zip(*grads, strict=True):
        if one is not None:  # a key's bias cancels in the softmax
            torch.testing.assert_close(one, two)


def test_runs_under_bfloat16_autocast():
    for layout in LAYOUTS:
        module = randomised(features=6, hidden=8, **layout)
        x = torch.randn(4, 6, 3, 3)
        with torch.autocast('cpu', torch.bfloat16):
            out = module(x)
        torch.testing.assert_close(out.float(), module(x), atol=0.1, rtol=0.1)


def _gathered(rank: int, layout: dict, folder: str) -> None:
    os.environ.update(MASTER_ADDR='127.0.0.1')
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    module = randomised(features=6, hidden=8, gather=True, **layout)
    x, target = _batch()
    rows = slice(rank * 2, rank * 2 + 2)
    own = x[rows].clone().requires_grad_()
    out = module(own)
    ((out - target[rows]) ** 2).mean().backward()
    grads = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    torch.save((out.detach(), own.grad, grads), f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


def _batch():
    rng = torch.Generator().manual_seed(3)
    return torch.randn(4, 6, 2, 2, generator=rng), torch.randn(
        4, 6, 2, 2, generator=rng
    )


@pytest.mark.parametrize('layout', [LAYOUTS[1], LAYOUTS[2]])
def test_gathering_two_processes_equal_one(layout, tmp_path):
    torch.multiprocessing.spawn(_gathered, (layout, str(tmp_path)), nprocs=2)
    module = randomised(features=6, hidden=8, **layout)
    x, target = _batch()
    x.requires_grad_()
    out = module(x)
    ((out - target) ** 2).mean().backward()
    parts = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), out.detach())
    # Each process averages over its half, so one image weighs double there.
    torch.testing.assert_close(torch.cat([p[1] for p in parts]) / 2, x.grad)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            mean = (parts[0][2][name] + parts[1][2][name]) / 2
            torch.testing.assert_close(mean, parameter.grad, atol=1e-6, rtol=1e-4)


def test_fill_context_banks_leaves_the_mode_and_needs_no_bank():
    class Plain(nn.Module):
        pass

    model = Plain().train()
    fill_context_banks(model, [])
    assert model.training and set(ACTIVATIONS) == {'sigmoid', 'relu'}


@torch.no_grad()
def test_a_scaled_update_is_a_share_of_the_whole():
    maps = [torch.randn(4, 6, 3, 3)]
    whole, part = (
        randomised(features=[6], hidden=8, update_scale=scale) for scale in (1.0, 0.25)
    )
    (full,), (quarter,) = whole(maps), part(maps)
    torch.testing.assert_close(quarter - maps[0], 0.25 * (full - maps[0]))
    with pytest.raises(ValueError, match='update_scale'):
        BatchTransformer(6, tokens='channels', batch_size=4, update_scale=0.5)
