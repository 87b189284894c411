"""Outputs of classifiers: probabilities, features, stochastic passes."""

import copy

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from tjls_mm.models import fill_context_banks
from tjls_mm.models.branch import Branch
from tjls_mm.outputs.readers import DropoutMasks, find_reader
from tjls_mm.registry import MODELS

SCOPE = 'mmpretrain'
PASSES = ('pass_probability', 'predictive_entropy', 'mutual_information')


def build(kind: str = 'joint'):
    torch.manual_seed(0)
    head = dict(type='LinearClsHead', num_classes=5, in_channels=64)
    if kind != 'plain':
        head.update(
            type='tjls_mm.JointClsHead',
            bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
            branches=dict(discriminator=dict(type='tjls_mm.DiscriminatorHead')),
        )
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            data_preprocessor=dict(
                type='tjls_mm.JointClsDataPreprocessor', mean=[120] * 3, std=[60] * 3
            ),
            backbone=dict(
                type='ResNet_CIFAR', depth=18, base_channels=8, out_indices=(3,)
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=head,
        )
    )
    model.init_weights()
    torch.nn.init.normal_(model.head.fc.weight, std=0.5)
    fill_context_banks(model, [batch()])
    return model.eval()


def batch(n: int = 6) -> dict:
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 3, 16, 16), generator=rng, dtype=torch.uint8)
    samples = [DataSample(metainfo=dict(image_id=f'{i}')) for i in range(n)]
    return dict(inputs=list(images), data_samples=samples)


@torch.no_grad()
def read(model, names, rows=range(6), passes=0, seed=0):
    data = {key: [value[i] for i in rows] for key, value in batch().items()}
    masks = DropoutMasks([f'{i}' for i in rows], passes, 0.5, seed)
    data = model.data_preprocessor(copy.deepcopy(data), False)
    return find_reader(model).read(model, data, names, masks)


@pytest.mark.parametrize('kind', ['joint', 'plain'])
@torch.no_grad()
def test_probabilities_are_those_that_the_classifier_predicts(kind):
    model = build(kind)
    expected = torch.stack([r.pred_score for r in model.test_step(batch())])
    assert expected.std() > 0.01
    assert torch.equal(read(model, ['probability'])['probability'], expected)


@pytest.mark.parametrize('kind', ['joint', 'plain'])
@torch.no_grad()
def test_feature_is_what_the_class_layer_sees(kind):
    model = build(kind)
    seen = []
    model.head.fc.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    model.test_step(batch())
    assert torch.equal(read(model, ['feature'])['feature'], seen[0])


def test_passes_drop_features_by_image_and_seed_alone():
    model = build()
    out = read(model, PASSES, passes=8)
    p = out['pass_probability'].double()
    assert p.shape == (6, 8, 5)
    total = -(p.mean(1) * p.mean(1).log()).sum(-1)
    single = -(p * p.log()).sum(-1).mean(1)
    torch.testing.assert_close(
        out['predictive_entropy'].double(), total, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        out['mutual_information'].double(), total - single, rtol=1e-3, atol=1e-6
    )
    order = [4, 1, 5, 0, 2, 3]
    shuffled = read(model, PASSES, order, passes=8)
    assert all(torch.equal(shuffled[name], out[name][order]) for name in PASSES)
    alone = read(model, PASSES, [3], passes=8)
    torch.testing.assert_close(alone['pass_probability'][0], out['pass_probability'][3])
    again = read(model, PASSES, passes=8, seed=1)
    assert not torch.equal(again['pass_probability'], out['pass_probability'])
    # The first passes of many are those of few.
    few = read(model, PASSES, passes=3)['pass_probability']
    assert torch.equal(few, out['pass_probability'][:, :3])


def test_dropout_keeps_the_mean():
    factors = DropoutMasks([f'{i}' for i in range(50)], 20, 0.2, 0).draw(64, 'cpu')
    assert factors.shape == (20, 50, 64)
    assert set(np.unique(factors).tolist()) == {0.0, 1.25}
    assert factors.mean() == pytest.approx(1, abs=0.01)
    rows = factors.flatten(0, 1)
    assert len(rows.unique(dim=0)) == len(rows), 'each image and pass has its own'


@torch.no_grad()
def test_branches_say_their_outputs_and_the_backbone_runs_once():
    model = build()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    names = find_reader(model).provides(model)
    out = read(model, names, passes=2)
    assert calls == [1] and set(out) == set(names)
    logit = model.head.branches['discriminator'](out['feature'])
    assert torch.equal(out['logit'], logit)


class Norm(Branch):
    provides = ('norm', 'double')

    def loss(self, inputs, is_labelled, samples):
        return {}

    def outputs(self, inputs):
        norm = inputs.vector.norm(dim=1)
        return {'norm': norm, 'double': torch.stack([norm, norm], 1)}


def test_a_branch_of_ones_own_adds_a_name():
    model = build()
    model.head.branches['norm'] = Norm(64)
    assert {'logit', 'norm'} <= set(find_reader(model).provides(model))
    model.head.branches['discriminator'].outputs = None  # is not asked
    out = read(model, ['norm', 'feature'])
    assert set(out) == {'norm', 'feature'}
    assert torch.equal(out['norm'], out['feature'].norm(dim=1))
    assert read(model, ['double'])['double'].shape == (6, 2)


def test_what_is_missing_has_a_remedy():
    plain = build('plain')
    reader = find_reader(plain)
    assert set(reader.provides(plain)) == {'probability', 'feature', *PASSES}
    assert 'method.branches' in reader.remedy('logit')
    assert 'is of detectors' in reader.remedy('boxes')
    assert "provides = ('predicted_loss',)" in reader.remedy('predicted_loss')
    assert find_reader(torch.nn.Linear(1, 1)) is None
