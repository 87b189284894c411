"""The discriminator."""

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement

from tjls_mm.models import BranchInputs, DiscriminatorHead


def samples(count: int, held_out=()) -> list:
    return [
        BaseDataElement(metainfo=dict(is_held_out=i in held_out)) for i in range(count)
    ]


def test_normalises_in_training_and_scoring_alike():
    head = DiscriminatorHead(6)
    x = torch.randn(4, 6)
    torch.testing.assert_close(head.train()(x), head.eval()(3 * x))
    expected = head.logit(F.normalize(x, dim=1))[:, 0]
    torch.testing.assert_close(head(x), expected)


def test_classifier_variant_has_the_papers_layers():
    # Linear(512, 512), ReLU, Linear(512, 1): what JLS adds in Table A.2.
    head = DiscriminatorHead(512, hidden_features=(512,))
    count = sum(p.numel() for p in head.parameters())
    assert count == 15_029_157 - 14_765_988 == 11_483_301 - 11_220_132


def test_loss_is_weighted_cross_entropy_towards_one_for_labelled():
    head = DiscriminatorHead(2, loss_weight=0.5)
    inputs = BranchInputs(torch.randn(2, 2), ())
    logits = head(inputs.vector)
    is_labelled = logits > logits.mean()  # one of each
    with torch.no_grad():
        head.logit.bias -= logits.mean()  # so that both are told right
    out = head.loss(inputs, is_labelled, samples(2))
    signs = torch.where(is_labelled, 1.0, -1.0)
    expected = F.softplus(-signs * head(inputs.vector)).mean()
    torch.testing.assert_close(out['loss_sampler'], 0.5 * expected)
    assert out['sampler_acc'] == 1
    assert head.loss(inputs, ~is_labelled, samples(2))['sampler_acc'] == 0


def test_held_out_images_enter_no_loss():
    head = DiscriminatorHead(3)
    inputs = BranchInputs(torch.randn(4, 3), ())
    is_labelled = torch.tensor([True, True, False, False])
    found = head.loss(inputs, is_labelled, samples(4, held_out=[1]))
    rows = torch.tensor([0, 2, 3])
    expected = head.loss(inputs.rows(rows), is_labelled[rows], samples(3))
    torch.testing.assert_close(found['loss_sampler'], expected['loss_sampler'])
    nothing = head.loss(inputs, is_labelled, samples(4, held_out=range(4)))
    assert nothing['loss_sampler'] == 0
    nothing['loss_sampler'].backward()
    assert not head.logit.weight.grad.any()
