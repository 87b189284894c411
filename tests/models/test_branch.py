"""A branch of a user's own trains beside the task."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from test_joint_cls_head import batch, build, losses, outputs_of, total

from tjls_mm.errors import InputError
from tjls_mm.models import Branch
from tjls_mm.registry import MODELS

SCOPE = 'mmpretrain'


@MODELS.register_module(force=True)
class Brightness(Branch):
    """How large the features of an image are: fifteen lines of a user's file."""

    provides = ('brightness',)

    def __init__(self, in_features, feat_channels, init_cfg=None):
        super().__init__(in_features, feat_channels, init_cfg)
        self.fc = torch.nn.Linear(in_features, 1)

    def loss(self, inputs, is_labelled, samples):
        assert is_labelled.all() and all('gt_label' in s for s in samples)
        target = inputs.vector.detach().mean(1)
        return {'loss_brightness': (self.fc(inputs.vector)[:, 0] - target).abs().mean()}

    def outputs(self, inputs):
        return {'brightness': self.fc(inputs.vector)[:, 0]}


@pytest.mark.parametrize('discriminator', [False, True])
def test_a_users_branch_trains_beside_the_task(discriminator):
    branches = dict(brightness=dict(type='tjls_mm.Brightness'))
    model = build(discriminator=discriminator, branches=branches).train()
    learner = model.head
    # It needs no pool; the discriminator does.
    assert learner.uses_pool == discriminator
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1))
    before = learner.branches.brightness.fc.weight.clone()
    log = model.train_step(batch(labelled=4 if discriminator else None), wrapper)
    assert not torch.equal(learner.branches.brightness.fc.weight, before)
    assert {'loss_cls', 'loss_brightness'} <= log.keys()
    feats = model.eval().extract_feat(torch.zeros(2, 3, 16, 16))
    inputs = learner.branch_inputs(feats, learner.pre_logits(feats))
    assert learner.branch_outputs(inputs)['brightness'].shape == (2,)
    if discriminator:
        assert outputs_of(model, feats)[0].shape == (2,)


def test_turns_of_branches_with_and_without_the_pool():
    branches = dict(brightness=dict(type='tjls_mm.Brightness'))
    model = build(discriminator=True, branches=branches).train()
    data = batch(labelled=4)
    task = losses(model, data, 'task')
    assert task.keys() == {'loss_cls', 'loss_brightness'}
    sampler = losses(model, data, 'sampler')
    assert sampler.keys() == {'loss_sampler', 'sampler_acc'}
    together = total(task) + total(sampler)
    torch.testing.assert_close(total(losses(model, data, 'joint')), together)


@pytest.mark.parametrize('name', ['loss_cls', 'loss_sampler'])
def test_a_loss_that_would_replace_another_is_refused(name, monkeypatch):
    branches = dict(brightness=dict(type='tjls_mm.Brightness'))
    model = build(discriminator=True, branches=branches).train()
    zero = model.head.fc.weight.sum()
    kind = type(model.head.branches.brightness)
    monkeypatch.setattr(kind, 'loss', lambda *args: {name: zero})
    with pytest.raises(InputError, match=f"Two losses are called '{name}'"):
        losses(model, batch(labelled=4))
