"""The discriminator."""

import torch
import torch.nn.functional as F

from tjls_mm.models import DiscriminatorHead


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
    logits = torch.tensor([2.0, -1.0])
    out = head.loss(logits, torch.tensor([True, False]))
    expected = 0.5 * (F.softplus(torch.tensor(-2.0)) + F.softplus(torch.tensor(-1.0)))
    torch.testing.assert_close(out['loss_sampler'], expected / 2)
    assert out['sampler_acc'] == 1
    assert head.loss(-logits, torch.tensor([True, False]))['sampler_acc'] == 0
