"""The graph bottleneck against a slow transcription, and its independence."""

import os

import pytest
import torch
from torch import nn

from tjls_mm.models import BatchGCN
from tjls_mm.registry import MODELS


def randomised(**kwargs) -> BatchGCN:
    torch.manual_seed(0)
    module = BatchGCN(**{'features': 6, 'hidden': 8, 'dropout': 0.0, **kwargs})
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def graph_loop(convolutions, nodes: torch.Tensor) -> torch.Tensor:
    """Update of every node, element by element."""
    n = len(nodes)
    links = torch.zeros(n, n)
    for i in range(n):
        for j in range(n):
            if i != j:
                cosine = torch.dot(nodes[i], nodes[j]) / (
                    nodes[i].norm() * nodes[j].norm()
                )
                links[i, j] = max(cosine.item(), 0)
    adjacency = torch.zeros(n, n)
    for j in range(n):
        degree = max(links[:, j].sum().item(), 1e-6)
        for i in range(n):
            adjacency[i, j] = 1 if i == j else links[i, j] / degree
    x = nodes
    for layer, is_last in ((convolutions.conv1, False), (convolutions.conv2, True)):
        out = torch.zeros(n, layer.out_features)
        for i in range(n):
            for j in range(n):
                out[i] += adjacency[i, j] * (layer.weight @ x[j])
            out[i] += layer.bias
        x = out if is_last else out.clamp(min=0)
    return x


@pytest.mark.parametrize('negative', [False, True])
@torch.no_grad()
def test_equals_its_equations(negative):
    module = randomised(features=[6, 10])
    maps = [torch.randn(5, 6, 3, 3), torch.randn(5, 10)]
    if not negative:
        maps = [x.abs() for x in maps]
    for x, level, out in zip(maps, module.levels, module(maps), strict=True):
        pooled = x.flatten(2).mean(2) if x.ndim > 2 else x
        update = graph_loop(level, pooled)
        expected = x + update.reshape(*update.shape, *[1] * (x.ndim - 2))
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_images_without_anything_in_common_keep_to_themselves():
    module = randomised()
    x = torch.eye(6)[:3]
    torch.testing.assert_close(module(x), torch.cat([module(row[None]) for row in x]))


@pytest.mark.parametrize('shape', [(6,), (6, 3, 3)])
@torch.no_grad()
def test_bank_of_batch_mates_makes_eval_equal_train(shape):
    module = randomised()
    x = torch.randn(5, *shape)
    trained = module.train()(x)
    module.eval()
    for i in range(5):
        with module.recording():
            module(x[[j for j in range(5) if j != i]])
        torch.testing.assert_close(module(x)[i], trained[i], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_batch_mates_matter_in_train_mode_and_never_in_eval_mode():
    module = randomised()
    x = torch.randn(4, 6)
    other = x.clone()
    other[3] = torch.randn(6)
    assert (module.train()(x)[0] - module(other)[0]).abs().max() > 1e-4
    module.eval()
    with module.recording():
        module(torch.randn(7, 6))
    assert torch.equal(module(x)[:3], module(other)[:3])
    torch.testing.assert_close(module(x)[:1], module(x[:1]), atol=1e-6, rtol=1e-6)
    order = torch.randperm(4)
    torch.testing.assert_close(module(x)[order], module(x[order]))


def test_adjacency_passes_no_gradient():
    module = randomised()
    x = torch.randn(4, 6).abs().requires_grad_()
    (grad,) = torch.autograd.grad(module(x).square().sum(), x)
    links = (x / x.norm(dim=1, keepdim=True)).detach()
    links = (links @ links.t()).fill_diagonal_(0)
    adjacency = (links / links.sum(0)).fill_diagonal_(1)
    level = module.levels[0]
    hidden = torch.relu(adjacency @ x @ level.conv1.weight.t() + level.conv1.bias)
    out = x + adjacency @ hidden @ level.conv2.weight.t() + level.conv2.bias
    (expected,) = torch.autograd.grad(out.square().sum(), x)
    torch.testing.assert_close(grad, expected)


@torch.no_grad()
def test_dropout_is_for_training_only():
    module = randomised(dropout=0.3).train()
    x = torch.randn(4, 6)
    assert not torch.equal(module(x), module(x))
    with pytest.warns(UserWarning, match='depends on the other'):
        batch_context = randomised(dropout=0.3, eval_context='batch').eval()
    torch.testing.assert_close(batch_context(x), randomised()(x))


def test_empty_bank_says_how_to_fill_it():
    with pytest.raises(RuntimeError, match='ContextBankHook'):
        randomised().eval()(torch.randn(2, 6))


def test_default_size_and_name():
    module = MODELS.build(dict(type='tjls_mm.BatchGCN', features=512))
    count = sum(p.numel() for p in module.parameters())
    assert count == 512 * 128 + 128 + 128 * 512 + 512
    assert module.levels[0].dropout.p == 0.3


def _gathered(rank: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR='127.0.0.1')
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    module = randomised(gather=True)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    torch.save(module(x[rank * 2 : rank * 2 + 2]).detach(), f'{folder}/{rank}.pth')
    torch.distributed.destroy_process_group()


def test_gathering_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(_gathered, (str(tmp_path),), nprocs=2)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    parts = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    torch.testing.assert_close(torch.cat(parts), randomised()(x).detach())
