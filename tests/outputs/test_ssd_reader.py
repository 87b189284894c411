"""Outputs of SSD: boxes equal to mmdet's, features, entropies, branches."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config

from tjls_mm.errors import TrainingDiverged
from tjls_mm.models import add_joint_parts, fill_context_banks
from tjls_mm.outputs.readers import DropoutMasks, find_reader

ROOT = Path(__file__).resolve().parents[2]
BRANCHES = dict(discriminator=dict(type='tjls_mm.DiscriminatorHead'))


def build(joint: bool = True, **head):
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/ssd_r18_160.py').model
    cfg.backbone.base_channels = 8
    cfg.neck.update(in_channels=(16, 32, 64), out_channels=(16, 32, 64, 64))
    cfg.bbox_head.update(in_channels=(16, 32, 64, 64), **head)
    if joint:
        bottleneck = dict(type='tjls_mm.BatchTransformer', tokens='images')
        vector = dict(type='tjls_mm.ConfidenceFlatten')
        cfg = add_joint_parts(cfg, bottleneck, BRANCHES, vector)
    model = MODELS.build(cfg)
    model.init_weights()
    # Other weights than a born head's, whose boxes are all below the threshold.
    for conv in model.bbox_head.cls_convs:
        torch.nn.init.normal_(conv[-1].weight, std=0.05)
    fill_context_banks(model, [batch()])
    return model.eval()


def batch(n: int = 4) -> dict:
    """Images of different original shapes."""
    rng = torch.Generator().manual_seed(3)
    samples = []
    for i in range(n):
        height, width = 120 + 30 * i, 260 - 20 * i
        meta = dict(
            img_id=i,
            image_id=f'x/{i}',
            img_shape=(160, 160),
            ori_shape=(height, width),
            scale_factor=(160 / width, 160 / height),
        )
        samples.append(DetDataSample(metainfo=meta))
    images = torch.randint(0, 256, (n, 3, 160, 160), generator=rng, dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def masks(n: int = 4, passes: int = 0, seed: int = 0) -> DropoutMasks:
    return DropoutMasks([f'x/{i}' for i in range(n)], passes, 0.5, seed)


@torch.no_grad()
def read(model, names, draws=None, data=None):
    data = model.data_preprocessor(copy.deepcopy(data or batch()), False)
    return find_reader(model).read(model, data, names, draws or masks())


@pytest.mark.parametrize('joint', [True, False])
@torch.no_grad()
def test_boxes_are_those_that_the_detector_predicts(joint):
    model = build(joint)
    expected = [r.pred_instances for r in model.test_step(copy.deepcopy(batch()))]
    assert sum(map(len, expected)) > 20
    before = vars(model.bbox_head).keys()
    found = read(model, ['boxes'])['boxes']
    assert vars(model.bbox_head).keys() == before, 'nothing stays patched'
    for one, other in zip(found, expected, strict=True):
        for field in ('bboxes', 'scores', 'labels'):
            assert torch.equal(one[field], other[field])
        own = one.probs.gather(1, one.labels[:, None])[:, 0]
        assert torch.equal(own, one.scores)
        assert one.probs.shape == (len(one), 5) and (one.probs.sum(1) <= 1).all()


@torch.no_grad()
def test_class_rows_are_a_prior_of_the_softmax_without_background():
    model = build()
    data = model.data_preprocessor(batch(), False)
    conf, _ = model.bbox_head(model.extract_feat(data['inputs']))
    for i, boxes in enumerate(read(model, ['boxes'])['boxes']):
        priors = torch.cat([c[i].permute(1, 2, 0).reshape(-1, 6) for c in conf])
        known = {tuple(row.tolist()) for row in priors.softmax(-1)[:, :-1]}
        assert {tuple(row.tolist()) for row in boxes.probs} <= known


@torch.no_grad()
def test_an_image_without_boxes_has_none():
    model = build()
    model.bbox_head.test_cfg = dict(copy.deepcopy(model.test_cfg), score_thr=1.0)
    model.bbox_head.test_cfg = Config(model.bbox_head.test_cfg)
    out = read(model, ['boxes', 'box_feature'])
    assert [tuple(b.probs.shape) for b in out['boxes']] == [(0, 5)] * 4
    assert [tuple(f.shape) for f in out['box_feature']] == [(0, 16)] * 4


@torch.no_grad()
def test_features_are_means_over_locations():
    model = build()
    data = model.data_preprocessor(batch(), False)
    maps = model.extract_feat(data['inputs'])
    out = read(model, ['feature', 'box_feature', 'boxes'])
    assert out['feature'].shape == (4, 16 + 32 + 64 + 64)
    assert torch.allclose(out['feature'][:, 16:48], maps[1].mean((2, 3)))
    for i, (boxes, features) in enumerate(
        zip(out['boxes'], out['box_feature'], strict=True)
    ):
        assert features.shape == (len(boxes), 16)
        # Sampled by brute force: 40 x 40 points of a box, in cells of the map.
        scale = torch.tensor(data['data_samples'][i].scale_factor).repeat(2)
        cells = boxes.bboxes * scale * (maps[0].shape[-1] / 160)
        for box, feature in list(zip(cells, features, strict=True))[:5]:
            steps = (torch.arange(40) + 0.5) / 40
            x = (box[0] + (box[2] - box[0]) * steps).floor().long().clamp(0, 19)
            y = (box[1] + (box[3] - box[1]) * steps).floor().long().clamp(0, 19)
            brute = maps[0][i][:, y][:, :, x].mean((1, 2))
            assert torch.allclose(feature, brute, atol=0.05 * maps[0].abs().max())


@torch.no_grad()
def test_a_whole_image_as_a_box_has_the_mean_of_its_map():
    from mmengine.structures import InstanceData

    from tjls_mm.outputs.readers.ssd import box_features

    data = dict(inputs=torch.zeros(1, 3, 40, 40), data_samples=batch(1)['data_samples'])
    data['data_samples'][0].set_metainfo(dict(scale_factor=(0.5, 2.0)))
    level = torch.randn(1, 7, 5, 5)
    boxes = [InstanceData(bboxes=torch.tensor([[0, 0, 80.0, 20.0], [16, 0, 32, 4]]))]
    (found,) = box_features(level, boxes, data)
    assert torch.allclose(found[0], level[0].mean((1, 2)), atol=1e-6)
    assert torch.allclose(found[1], level[0, :, 0, 1], atol=1e-6), 'one cell'


@torch.no_grad()
def test_entropies_of_passes_are_those_of_each_prior():
    model = build()
    names = ['predictive_entropy', 'mutual_information']
    out = read(model, names, masks(passes=3))
    maps = model.extract_feat(model.data_preprocessor(batch(), False)['inputs'])
    factors = masks(passes=3).draw(16 + 32 + 64 + 64, 'cpu')
    assert factors.unique().tolist() == [0, 2]
    probabilities = []
    for f in factors.double():
        parts = f.split([16, 32, 64, 64], 1)
        dropped = [m * p[..., None, None] for m, p in zip(maps, parts, strict=True)]
        conf, _ = model.bbox_head([m.float() for m in dropped])
        priors = [c.permute(0, 2, 3, 1).reshape(4, -1, 6) for c in conf]
        probabilities.append(torch.cat(priors, 1).double().softmax(-1))
    p = torch.stack(probabilities)  # (T, B, priors, K + 1)
    total = -(p.mean(0) * p.mean(0).log()).sum(-1).mean(1)
    single = -(p * p.log()).sum(-1).mean(2).mean(0)
    torch.testing.assert_close(out[names[0]].double(), total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        out[names[1]].double(), total - single, rtol=1e-3, atol=1e-5
    )
    assert (out[names[1]] > 0).all() and (out[names[0]] < np.log(6)).all()
    other = read(model, names, masks(passes=3, seed=1))
    assert not torch.equal(other[names[0]], out[names[0]])


@torch.no_grad()
def test_branches_say_their_outputs():
    model = build()
    assert 'logit' in find_reader(model).provides(model)
    data = model.data_preprocessor(batch(), False)
    maps = model.extract_feat(data['inputs'])
    conf = torch.cat([c.flatten(1) for c in model.bbox_head(maps)[0]], 1)
    expected = model.branches['discriminator'](conf)
    assert torch.equal(read(model, ['logit'])['logit'], expected)
    assert torch.equal(read(model, ['logit', 'boxes'])['logit'], expected)
    plain = build(joint=False)
    reader = find_reader(plain)
    assert 'logit' not in reader.provides(plain)
    assert 'method.branches' in reader.remedy('logit')
    assert 'boxes' in reader.remedy('probability')
    assert "provides = ('loss',)" in reader.remedy('loss')


@torch.no_grad()
def test_one_pass_of_the_backbone_whatever_is_asked_for():
    model = build()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    names = find_reader(model).provides(model)
    out = read(model, names, masks(passes=2))
    assert calls == [1] and set(out) == set(names)


def test_weights_that_are_not_finite_are_no_images_without_boxes():
    model = build()
    model.bbox_head.cls_convs[0][-1].weight.data[0, 0] = torch.nan
    with pytest.raises(TrainingDiverged, match="class logits of 'x/0'"):
        read(model, ['boxes'])
