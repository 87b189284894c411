"""The joint classifier: counts, gradients, equality with mmpretrain's, invariance."""

import copy
import warnings

import pytest
import torch
from conftest import config_path
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample

from tjls_mm.models import WideResNet, add_joint_parts, fill_context_banks
from tjls_mm.registry import MODELS

SCOPE = 'mmpretrain'
BOTTLENECKS = {
    'jls': None,
    'images': dict(type='tjls_mm.BatchTransformer', tokens='images'),
    'channels': dict(type='tjls_mm.BatchTransformer', tokens='channels', batch_size=8),
    'gcn': dict(type='tjls_mm.BatchGCN'),
}
DISCRIMINATOR = dict(type='tjls_mm.DiscriminatorHead', hidden_features=(512,))


def model_config(head: dict, preprocessor: str = 'tjls_mm.JointClsDataPreprocessor'):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type=preprocessor, mean=[120] * 3, std=[60] * 3),
        backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(num_classes=5, in_channels=64, **head),
    )


def build(bottleneck='jls', discriminator=True, seed=0, branches=None, **settings):
    torch.manual_seed(seed)
    chosen = BOTTLENECKS[bottleneck] and {**BOTTLENECKS[bottleneck], **settings}
    head = dict(
        type='tjls_mm.JointClsHead',
        bottleneck=chosen,
        branches={
            **(dict(discriminator=DISCRIMINATOR) if discriminator else {}),
            **(branches or {}),
        },
    )
    model = MODELS.build(model_config(head))
    model.init_weights()
    return model


def batch(n: int = 8, labelled: int | None = None, seed: int = 0) -> dict:
    """Images and samples; the first ``labelled`` of them have a label."""
    rng = torch.Generator().manual_seed(seed)
    samples = []
    for i in range(n):
        is_labelled = labelled is None or i < labelled
        sample = DataSample(metainfo=dict(img_id=str(i), is_labelled=is_labelled))
        if is_labelled:
            sample.set_gt_label(int(torch.randint(0, 5, (), generator=rng)))
        samples.append(sample)
    images = torch.randint(0, 256, (n, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def losses(model, data, turn='joint') -> dict:
    model.head.turn = turn
    data = model.data_preprocessor(copy.deepcopy(data), True)
    return model.loss(data['inputs'], data['data_samples'])


def total(parts: dict) -> torch.Tensor:
    return sum(value for name, value in parts.items() if 'loss' in name)


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def from_config(name: str, bottleneck: dict | None = None):
    cfg = Config.fromfile(config_path(name))
    bottleneck = bottleneck or cfg.method.get('bottleneck')
    branches = cfg.method.get('branches', {})
    return MODELS.build(add_joint_parts(cfg.model, bottleneck, branches))


@torch.no_grad()
def outputs_of(model, feats) -> tuple:
    """Logit, features and class scores."""
    features = model.head.pre_logits(feats)
    inputs = model.head.branch_inputs(feats, features)
    logit = model.head.branch_outputs(inputs)['logit']
    return logit, features, model.head(feats)


@pytest.mark.parametrize(
    'name, plain, jls, tjls',
    [
        ('vgg16_cifar100', 14_765_988, 15_029_157, 15_620_005),
        ('resnet18_cifar100', 11_220_132, 11_483_301, 12_074_149),
    ],
)
def test_parameter_counts_of_the_paper(name, plain, jls, tjls):
    # Table A.2, 100 classes
    assert count(from_config(f'{name}_random')) == plain
    assert count(from_config(f'{name}_jls')) == jls
    # The authors' options; the other 524,800 of the table are a Linear(1024, 512) of
    # the published code that nothing calls.
    authors = dict(
        type='tjls_mm.BatchTransformer',
        tokens='channels',
        batch_size=128,
        value_projection=False,
        activation='relu',
    )
    assert count(from_config(f'{name}_tjls', bottleneck=authors)) == tjls - 524_800


def test_wide_resnet_is_that_of_its_paper():
    # Zagoruyko and Komodakis give 36.5 million for WRN-28-10.
    assert count(WideResNet()) + 640 * 100 + 100 == 36_536_884
    (out,) = WideResNet(depth=10, widen_factor=1).eval()(torch.zeros(2, 3, 32, 32))
    assert out.shape == (2, 64, 8, 8) and (out >= 0).all()
    dropouts = [m.p for m in WideResNet().modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts == [0.3] * 12
    with pytest.raises(ValueError, match='6 n'):
        WideResNet(depth=29)


def test_vgg16_gives_512_features_of_an_image():
    model = from_config('vgg16_cifar10_jls').eval()
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        (features,) = model.extract_feat(torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, 512)


def test_without_discriminator_training_equals_mmpretrains_exactly():
    ours = build(discriminator=False)
    torch.manual_seed(0)
    theirs = MODELS.build(
        model_config(dict(type='LinearClsHead'), 'ClsDataPreprocessor')
    )
    theirs.init_weights()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), 'the same seed gives the same weights'
    wrappers = [
        OptimWrapper(torch.optim.SGD(m.parameters(), 1e-2, 0.9)) for m in (ours, theirs)
    ]
    for step in range(4):
        logs = [
            m.train().train_step(copy.deepcopy(batch(seed=step)), w)
            for m, w in zip((ours, theirs), wrappers, strict=True)
        ]
        assert torch.equal(logs[0]['loss'], logs[1]['loss'])
    for a, b in zip(
        ours.state_dict().values(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    results = [m.test_step(copy.deepcopy(batch(seed=9))) for m in (ours, theirs)]
    for a, b in zip(*results, strict=True):
        assert torch.equal(a.pred_score, b.pred_score)


@pytest.mark.parametrize('bottleneck', list(BOTTLENECKS))
def test_only_the_class_layer_has_its_initialisation(bottleneck):
    model = build(bottleneck)
    assert model.head.fc.weight.std() < 0.02
    # torch's own for Linear(512, ...): far wider than 0.01
    assert model.head.branches.discriminator.hidden[0].weight.std() > 0.05
    if model.head.bottleneck is not None:
        widest = max(p.std() for p in model.head.bottleneck.parameters() if p.ndim == 2)
        assert widest > 0.04


def reached(model, loss: torch.Tensor) -> set[str]:
    """Parts of the model that a loss has a non-zero gradient for."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name.replace('head.', '').replace('branches.', '').split('.')[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }


@pytest.mark.parametrize('name', ['images', 'channels', 'gcn'])
def test_gradients_reach_what_they_should_and_nothing_else(name):
    model = build(name).train()
    data = batch(labelled=4)
    task = reached(model, total(losses(model, data, 'task')))
    assert task == {'backbone', 'fc', 'bottleneck'}
    sampler = reached(model, total(losses(model, data, 'sampler')))
    assert sampler == {'backbone', 'bottleneck', 'discriminator'}


@pytest.mark.parametrize('name', list(BOTTLENECKS))
def test_joint_loss_is_the_sum_of_both_turns(name):
    settings = dict(dropout=0.0) if name == 'gcn' else {}
    model = build(name, **settings).train()
    data = batch(labelled=4)
    parts = losses(model, data, 'task')
    parts.update(losses(model, data, 'sampler'))
    joint = losses(model, data, 'joint')
    assert joint.keys() == parts.keys() == {'loss_cls', 'loss_sampler', 'sampler_acc'}
    torch.testing.assert_close(total(joint), total(parts))


def test_losses_are_those_of_the_objective():
    model = build('jls').eval()  # batch norm must not mix the images
    data = batch(labelled=3)
    found = losses(model, data)
    images = torch.stack(data['inputs']).float().sub(120).div(60)
    features = model.neck(model.backbone(images))[-1]
    labels = torch.cat([s.gt_label for s in data['data_samples'][:3]])
    scores = torch.log_softmax(model.head.fc(features[:3]), 1)
    task = -sum(scores[i, label] for i, label in enumerate(labels)) / 3
    torch.testing.assert_close(found['loss_cls'], task)
    p = torch.sigmoid(model.head.branches.discriminator(features))
    sampler = -(torch.log(p[:3]).sum() + torch.log(1 - p[3:]).sum()) / 8
    torch.testing.assert_close(found['loss_sampler'], 0.5 * sampler)


def test_a_label_of_a_pool_image_changes_no_loss():
    model = build('images').train()
    data = batch(labelled=4)
    expected = losses(model, data)
    for sample in data['data_samples'][4:]:
        sample.set_gt_label(3)  # poison that no data set of ours would give
    found = losses(model, data)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_batches_of_one_kind_train():
    model = build('images').train()
    only_pool = losses(model, batch(labelled=0))
    assert total(only_pool) == only_pool['loss_sampler'] > 0
    assert 'loss_cls' not in only_pool
    assert losses(model, batch(labelled=8))['loss_cls'] > 0


@pytest.mark.parametrize('name', list(BOTTLENECKS))
@torch.no_grad()
def test_an_image_is_the_same_alone_in_any_batch_and_order(name):
    model = build(name).eval()
    fill_context_banks(model, [batch(7, labelled=0, seed=9)])
    images = torch.stack(batch()['inputs']).float().sub(120).div(60)

    def outputs(x):
        return outputs_of(model, model.extract_feat(x))

    together = outputs(images)
    order = torch.randperm(8)
    for rows in ([0], [5, 2, 7], order):
        for one, all_ in zip(outputs(images[rows]), together, strict=True):
            tolerance = 1e-5 * max(1, all_.abs().max())
            assert (one - all_[rows]).abs().max() <= tolerance
    # Batches of one shape: bit for bit.
    for one, all_ in zip(outputs(images[order]), together, strict=True):
        assert torch.equal(one, all_[order])


@pytest.mark.parametrize('name', ['images', 'gcn'])
@torch.no_grad()
def test_eval_context_batch_reproduces_evaluation_by_batches(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        model = build(name, eval_context='batch').eval()
    assert any('depends on the other' in str(w.message) for w in caught)
    feats = model.extract_feat(torch.stack(batch()['inputs']).float())
    together = model.head(feats)
    # What training computes from the same features, its dropout aside.
    for module in model.head.bottleneck.modules():
        module.training = not isinstance(module, torch.nn.Dropout)
    torch.testing.assert_close(model.head(feats), together)
    model.eval()
    alone = model.head([f[:1] for f in feats])
    assert (alone - together[:1]).abs().max() > 1e-6


@pytest.mark.parametrize('name', list(BOTTLENECKS))
@torch.no_grad()
def test_predicts(name):
    model = build(name).eval()
    fill_context_banks(model, [batch(7, seed=9)])
    results = model.test_step(batch(3))
    for result in results:
        torch.testing.assert_close(result.pred_score.sum(), torch.tensor(1.0))
        assert result.pred_label == result.pred_score.argmax()


@pytest.mark.parametrize('name', list(BOTTLENECKS))
def test_mixed_precision_keeps_the_discriminator_in_float32(name):
    settings = dict(dropout=0.0) if name == 'gcn' else {}
    model = build(name, **settings).train()
    data = batch(labelled=4)
    with torch.autocast('cpu', torch.bfloat16):
        half = losses(model, data)
    full = losses(model, data)
    assert half['loss_sampler'].dtype == torch.float32
    torch.testing.assert_close(total(half), total(full), rtol=0.1, atol=0.1)
    total(half).backward()
    assert all(
        torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None
    )


def test_any_backbone_of_mmpretrain():
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            data_preprocessor=dict(type='tjls_mm.JointClsDataPreprocessor'),
            backbone=dict(type='MobileNetV2', widen_factor=0.25),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='tjls_mm.JointClsHead',
                num_classes=5,
                in_channels=1280,
                bottleneck=BOTTLENECKS['images'],
                branches=dict(discriminator=DISCRIMINATOR),
            ),
        )
    ).train()
    found = losses(model, batch(labelled=4))
    total(found).backward()
    assert model.backbone.conv1.conv.weight.grad.abs().sum() > 0
