"""Joint learning over mmdet's families of detectors."""

import copy

import families
import pytest
import torch
from families import CONFIGS, DENSE, TWO_STAGE, family
from torch import nn

from tjls_mm.compat import missing_operators
from tjls_mm.errors import InputError
from tjls_mm.models import add_joint_parts, fill_context_banks

BRANCHES = dict(discriminator=dict(type='tjls_mm.DiscriminatorHead', normalize=False))
TRANSFORMER = dict(type='tjls_mm.BatchTransformer', hidden=32)
MIXED = [False, True, False, True]
ALL = list(CONFIGS)


def build(name: str, bottleneck: dict | None = None, branches=BRANCHES, vector=None):
    """A joint detector, with the weights of the plain one."""
    config = family(name)
    model = families.build(add_joint_parts(config, bottleneck, branches, vector))
    if any(missing_operators(model)):
        pytest.skip('needs operators that are not compiled here')
    return model


def plain(name: str) -> nn.Module:
    return families.build(family(name))


def freeze_statistics(*models: nn.Module) -> None:
    """Training without what depends on batch mates or draws numbers."""
    for model in models:
        model.train()
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
            if isinstance(part, nn.Dropout):
                part.p = 0.0
            if isinstance(part, nn.MultiheadAttention):
                part.dropout = 0.0


def losses(model, data: dict, turn: str = 'joint') -> dict[str, torch.Tensor]:
    model.turn = turn
    data = model.data_preprocessor(copy.deepcopy(data), True)
    torch.manual_seed(0)
    found = model.loss(data['inputs'], data['data_samples'])
    parts = {}
    for name, value in found.items():
        value = value if isinstance(value, (list, tuple)) else [value]
        parts[name] = torch.stack([part.sum() for part in value])
    return parts


def of_task(parts: dict) -> dict:
    return {k: v for k, v in parts.items() if 'sampler' not in k}


def rows(data: dict, index: list[int]) -> dict:
    return {key: [values[i] for i in index] for key, values in data.items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def outputs(model, data: dict) -> torch.Tensor:
    data = model.data_preprocessor(copy.deepcopy(data), False)
    with torch.no_grad():
        return model.outputs_of(data['inputs'], data['data_samples'])['logit']


@pytest.mark.parametrize('name', ALL)
def test_the_task_of_a_joint_detector_is_mmdets(name):
    joint, theirs = build(name), plain(name)
    ours = joint.state_dict()
    for key, weight in theirs.state_dict().items():
        assert torch.equal(ours[key], weight), key
    for model in (joint, theirs):
        model.train()
    full = families.batch([True] * 3)
    # Statistics of batch norm and dropout included.
    assert same(of_task(losses(joint, full)), losses(theirs, full))
    freeze_statistics(joint, theirs)
    mixed = families.batch(MIXED)
    of_mixed, alone = of_task(losses(joint, mixed)), losses(theirs, rows(mixed, [1, 3]))
    assert of_mixed.keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(of_mixed[key], value, rtol=1e-6, atol=0)


@pytest.mark.parametrize('name', ALL)
def test_labels_reach_the_task_loss_of_labelled_images_and_nothing_else(name):
    model = build(name, TRANSFORMER)
    freeze_statistics(model)
    data = families.batch(MIXED)
    clean = losses(model, data)
    poisoned = copy.deepcopy(data)
    for row in (0, 2):
        truth = poisoned['data_samples'][row].gt_instances
        truth.bboxes = truth.bboxes * 0 + torch.tensor([0.0, 0.0, 1e6, float('nan')])
        truth.labels = truth.labels * 0 + 10**6
    assert same(losses(model, poisoned), clean)
    # Other labels of the labelled images change no logit of the discriminator.
    other = copy.deepcopy(data)
    for row in (1, 3):
        truth = other['data_samples'][row].gt_instances
        truth.bboxes, truth.labels = truth.bboxes.flip(1).sort(1)[0], 4 - truth.labels
    changed = losses(model, other)
    assert torch.equal(changed['loss_sampler'], clean['loss_sampler'])
    assert not same(changed, clean)


@pytest.mark.parametrize('name', ALL)
def test_gradients_of_each_turn(name):
    model = build(name, TRANSFORMER).train()
    data = families.batch(MIXED)

    def reached(turn: str) -> set[str]:
        model.zero_grad(set_to_none=True)
        parts = losses(model, data, turn)
        sum(v.sum() for k, v in parts.items() if 'loss' in k).backward()
        return {
            key
            for key, weight in model.named_parameters()
            if weight.grad is not None and weight.grad.abs().sum() > 0
        }

    task, sampler = reached('task'), reached('sampler')
    assert any(key.startswith('backbone') for key in sampler & task)
    assert any(key.startswith('bottleneck') for key in sampler & task)
    assert any(key.startswith('branches') for key in sampler - task)
    assert not any(key.startswith('branches') for key in task)
    if name in DENSE + TWO_STAGE:
        boxes = ('reg', 'bbox_pred', 'retina_reg', 'rpn_reg', 'bbox_convs', 'roi_head')
        assert not [key for key in sampler if any(word in key for word in boxes)]


@pytest.mark.parametrize('name', ALL)
def test_with_a_bank_evaluation_does_not_depend_on_batch_mates(name):
    model = build(name, TRANSFORMER)
    # Weights of a trained bottleneck, so that attention tells something.
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for weight in model.bottleneck.parameters():
            nn.init.normal_(weight, std=0.3)
    reference = families.batch([True, False, True], seed=5)
    families.settle(model)
    fill_context_banks(model, [reference])
    data = families.batch([True, False, True, False])
    together = outputs(model, data)
    assert together.std() > 0
    alone = torch.cat([outputs(model, rows(data, [i])) for i in range(4)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)
    turned = outputs(model, rows(data, [3, 1, 2, 0]))
    torch.testing.assert_close(turned, together[[3, 1, 2, 0]], rtol=1e-4, atol=1e-4)


def test_with_nothing_beside_the_task_it_is_mmdets_own_class():
    config = family('retinanet')
    ours = families.build(
        dict(config, type='tjls_mm.JointDetector', detector=config.type)
    )
    theirs = families.build(config)
    assert type(ours) is type(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert isinstance(build('retinanet'), type(theirs))


@pytest.mark.parametrize('name', sorted(families.UNSUPPORTED))
def test_what_cannot_be_reached_is_refused_with_what_to_write(name):
    with pytest.raises(InputError, match='cannot be trained jointly.*ConfidenceTap'):
        families.build(add_joint_parts(families.original(name), None, BRANCHES))


def test_the_advice_for_another_detector_works():
    from mmdet.models import YOLOV3
    from mmdet.registry import MODELS

    from tjls_mm.models import JointDetectorMixin

    class Tap:
        """YOLOv3: boxes and classes of a prior in one tensor."""

        sizes, is_lossless = None, True

        def __init__(self, head):
            self.head, self.feat_channels = head, head.in_channels
            self.channels = [3 * head.num_classes] * 3

        def read(self, outs):
            parts = [m.unflatten(1, (3, -1))[:, :, 5:] for m in outs[0]]
            return [part.flatten(1, 2) for part in parts]

        def write(self, outs, maps):
            both = zip(outs[0], maps, strict=True)
            boxes = [(m.unflatten(1, (3, -1))[:, :, :5], c) for m, c in both]
            joined = [torch.cat([b, c.unflatten(1, (3, -1))], 2) for b, c in boxes]
            return (tuple(part.flatten(1, 2) for part in joined),)

        def first(self, outs, n_images):
            return (tuple(level[:n_images] for level in outs[0]),)

    @MODELS.register_module(force=True)
    class MyYOLOV3(JointDetectorMixin, YOLOV3):
        def build_tap(self, config):
            return Tap(self.bbox_head)

    config = copy.deepcopy(families.original('yolov3'))
    config.update(type='MyYOLOV3', backbone=dict(config.backbone, init_cfg=None))
    model = MODELS.build(add_joint_parts(config, TRANSFORMER, BRANCHES)).train()
    freeze_statistics(model)
    mixed = families.batch(MIXED)
    parts = losses(model, mixed)
    assert parts['loss_sampler'] > 0
    with torch.no_grad():  # of a born transformer the residual alone
        for block in model.bottleneck.encoders:
            block[0].out.weight.zero_(), block[0].out.bias.zero_()
            block[0].ffn2.weight.zero_(), block[0].ffn2.bias.zero_()
    of_mixed, alone = of_task(losses(model, mixed)), losses(model, rows(mixed, [1, 3]))
    for key, value in of_mixed.items():
        torch.testing.assert_close(value, alone[key], rtol=1e-5, atol=1e-5)


def test_averaged_weights_have_a_tap_of_their_own():
    model = build('retinanet', TRANSFORMER).train()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in twin.bottleneck.parameters():
            weight.add_(1)
    data = families.batch(MIXED)
    expected = losses(model, data)
    assert not same(losses(twin, data), expected)
    assert same(losses(model, data), expected)
    assert twin.tap.head is twin.bbox_head


@pytest.mark.parametrize('name', ['retinanet', 'faster_rcnn'])
def test_padding_is_not_part_of_the_vector(name):
    model = build(name).eval()
    data = families.batch([True, True])
    small = rows(data, [0])
    small['data_samples'][0].set_metainfo(dict(img_shape=(64, 80)))
    small['inputs'][0] = small['inputs'][0][:, :64, :80]
    seen = model.data_preprocessor(copy.deepcopy(small), False)
    with torch.no_grad(), model.watching(seen['data_samples']) as passed:
        model.confidences(model.extract_feat(seen['inputs']), passed.samples)
        tight = model.vector(passed.maps)
        # The same maps beside 200 % of padding.
        padded = [
            nn.functional.pad(m, (0, m.shape[3], 0, m.shape[2])) for m in passed.maps
        ]
        wide = model.vector(padded, [(0.5, 0.5)])
    torch.testing.assert_close(wide, tight)


@pytest.mark.parametrize(
    'kind', ['ConfidenceStats', 'ConfidenceGrid', 'ConfidenceFlatten']
)
def test_vectors(kind):
    model = build('ssd', vector=dict(type=f'tjls_mm.{kind}'))
    data = model.data_preprocessor(families.batch(MIXED), True)
    model.train()
    with torch.no_grad(), model.watching(data['data_samples']) as seen:
        model.confidences(model.extract_feat(data['inputs']), seen.samples)
        vector = model.branch_inputs(seen).vector
    assert vector.shape == (4, model.vector.out_features)
    if model.vector.standardize:
        # The first batch is standardised by itself.
        torch.testing.assert_close(
            vector.mean(0), torch.zeros_like(vector[0]), atol=1e-4, rtol=0
        )
    else:
        expected = torch.cat([m.flatten(1) for m in seen.maps], 1)
        assert torch.equal(vector, expected)


def test_running_statistics_follow_the_batches():
    from tjls_mm.models import ConfidenceStats

    vector = ConfidenceStats([2], momentum=0.05).train()
    means = []
    for step in range(1, 4):
        maps = [torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(step))]
        vector(maps)
        means.append(vector._describe(maps, None).mean(0))
    # Up to 1 / momentum batches every batch weighs the same.
    torch.testing.assert_close(vector.mean, torch.stack(means).mean(0))
    vector.eval()
    before = vector.mean.clone()
    vector(maps)
    assert torch.equal(vector.mean, before)


def test_a_grid_and_an_unknown_size_are_refused():
    with pytest.raises(InputError, match='queries have no place'):
        build('detr', vector=dict(type='tjls_mm.ConfidenceGrid'))
    with pytest.raises(InputError, match='needs the sizes of the maps'):
        build('retinanet', vector=dict(type='tjls_mm.ConfidenceFlatten'))


def test_images_tell_each_other_nothing_of_their_padding():
    model = build('retinanet', TRANSFORMER).train()
    freeze_statistics(model)
    mix = model.bottleneck
    maps = [torch.randn(2, 45, 4, 4) for _ in range(5)]
    padded = [nn.functional.pad(m, (0, 4, 0, 4), value=9.0) for m in maps]
    with torch.no_grad():
        for tight, wide in zip(mix(maps), mix(padded, [(0.5, 0.5)] * 2), strict=True):
            torch.testing.assert_close(wide[..., :4, :4], tight)


@pytest.mark.parametrize('turn', ['joint', 'alternate'])
def test_the_pull_of_the_sampler_is_its_gradient_beside_the_tasks(turn):
    branches = copy.deepcopy(BRANCHES)
    pulls = []
    for weight, scale in ((0.5, 1.0), (1.0, 1.0), (0.5, 0.1), (0.5, 0.0)):
        branches['discriminator'].update(loss_weight=weight, gradient_scale=scale)
        model = build('retinanet', branches=branches).train()
        freeze_statistics(model)
        for one in ('joint',) if turn == 'joint' else ('task', 'sampler'):
            parts = losses(model, families.batch(MIXED), one)
            sum(v.sum() for k, v in parts.items() if 'loss' in k).backward()
        pulls.append(model.sampler_pull)
    assert pulls[0] > 0 and pulls[3] is None
    assert pulls[1] == pytest.approx(2 * pulls[0], rel=1e-4)
    assert pulls[2] == pytest.approx(0.1 * pulls[0], rel=1e-4)


@pytest.mark.parametrize('name', ['retinanet', 'detr'])
def test_a_transformer_may_start_as_the_plain_detector(name):
    model, theirs = build(name, dict(TRANSFORMER, zero_init=True)), plain(name)
    freeze_statistics(model, theirs)
    full = families.batch([True] * 3)
    parts = losses(model, full)
    assert same(of_task(parts), losses(theirs, full))
    sum(v.sum() for k, v in parts.items() if 'loss' in k).backward()
    last = model.bottleneck.encoders[0][0]
    assert last.out.weight.grad.abs().sum() > 0 and last.ffn2.weight.grad.any()
