"""Outputs of mmdet's detectors, family by family."""

import copy
import functools
import sys

import families
import pytest
import torch
from families import CONFIGS, DENSE, NEED_DEFORMABLE_CONVOLUTION, QUERY, SIDE, TWO_STAGE
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from tjls_mm.errors import TrainingDiverged
from tjls_mm.models import add_joint_parts, fill_context_banks
from tjls_mm.outputs.readers import DropoutMasks, find_reader, no_reader
from tjls_mm.outputs.readers.detector import box_features, mirrored, valid_means
from tjls_mm.registry import MODELS

SHAPES = (SIDE, SIDE), (SIDE - 32, SIDE - 8), (SIDE - 20, SIDE)
"""Of the images of a batch, height and width."""
FACTORED = ('atss', 'fcos', 'paa', 'yolox')
"""Their scores are not a probability alone."""
ONE_OF_EACH = ('ssd', 'fcos', 'paa', 'yolox', 'faster_rcnn', 'detr', 'dino')
JOINT = (
    dict(type='tjls_mm.BatchTransformer', hidden=32),
    dict(discriminator=dict(type='tjls_mm.DiscriminatorHead')),
)
"""A bottleneck and branches."""
ENTROPIES = ['predictive_entropy', 'mutual_information']


def lacks(operator: str) -> bool:
    return 'missing' in getattr(sys.modules['mmcv._ext'], operator).__qualname__


def skip_without_operators(name: str) -> None:
    if name in NEED_DEFORMABLE_CONVOLUTION and lacks('deform_conv_forward'):
        pytest.skip('needs deformable convolution')
    if name in (*TWO_STAGE, 'mask_rcnn') and lacks('roi_align_forward'):
        pytest.skip('needs RoIAlign')


def config(name: str):
    if name != 'mask_rcnn':
        return families.family(name)
    model = families.family('faster_rcnn', type='MaskRCNN')
    extractor = copy.deepcopy(model.roi_head.bbox_roi_extractor)
    model.roi_head.update(
        mask_roi_extractor=extractor,
        mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=64, num_classes=5),
    )
    model.test_cfg.rcnn.mask_thr_binary = 0.5
    return model


@functools.cache
def built(name: str, joint: bool = False) -> torch.nn.Module:
    """A detector that finds something and tells images apart, with random weights."""
    parts = JOINT if joint else (None, {})
    model = families.build(add_joint_parts(config(name), *parts))
    for part in ('bbox_head', 'roi_head'):
        test_cfg = getattr(getattr(model, part, None), 'test_cfg', None)
        if test_cfg is not None and 'score_thr' in test_cfg:
            test_cfg.score_thr = 0.0
            test_cfg.max_per_img = 40
    if name in DENSE:
        rng = torch.Generator().manual_seed(0)
        for weight in model.bbox_head.parameters():
            if weight.dim() == 4:
                weight.data += 0.03 * torch.randn(weight.shape, generator=rng)
    if name in ('rtmdet', 'yolox'):  # else features vanish from layer to layer
        families.settle(model)
    fill_context_banks(model, [batch(seed=3)])
    return model.eval()


def detector(name: str, joint: bool = False) -> torch.nn.Module:
    skip_without_operators(name)
    return built(name, joint)


def batch(shapes=SHAPES, seed: int = 0, same: bool = False) -> dict:
    """Images of some shapes, which differ from those of the files."""
    data = families.batch([False] * len(shapes), seed)
    if same:
        data['inputs'] = data['inputs'][:1] * len(shapes)
    for i, (height, width) in enumerate(shapes):
        data['inputs'][i] = data['inputs'][i][:, :height, :width]
        data['data_samples'][i].set_metainfo(
            dict(
                img_shape=(height, width),
                ori_shape=(2 * height, 4 * width),
                scale_factor=(0.25, 0.5),
            )
        )
    return data


@torch.no_grad()
def read(model, names, data=None, passes=0, seed=0, dropout=0.5):
    data = model.data_preprocessor(data or batch(), False)
    ids = [sample.metainfo['image_id'] for sample in data['data_samples']]
    masks = DropoutMasks(ids, passes, dropout, seed)
    return find_reader(model).read(model, data, names, masks)


@pytest.mark.parametrize('name', [*CONFIGS, 'mask_rcnn'])
@torch.no_grad()
def test_boxes_are_those_that_the_detector_predicts(name):
    model = detector(name)
    expected = [result.pred_instances for result in model.test_step(batch())]
    before = {part: set(vars(part)) for part in model.modules()}
    found = read(model, ['boxes'])['boxes']
    assert {part: set(vars(part)) for part in model.modules()} == before
    assert all(map(len, expected)) and sum(map(len, expected)) > 20
    for one, other in zip(found, expected, strict=True):
        if name == 'paa':  # class by class
            other = other[other.scores.argsort(descending=True, stable=True)]
        for field in ('bboxes', 'scores', 'labels'):
            assert torch.equal(one[field], other[field])
        assert (one.scores.diff() <= 0).all()
        assert one.probs.shape == (len(one), 5) and (one.probs >= 0).all()
        own = one.probs.gather(1, one.labels[:, None])[:, 0]
        if name in FACTORED:
            assert not torch.equal(own, one.scores)
            upper = own.sqrt() if name == 'paa' else own
            assert (upper >= one.scores).all()
        else:
            assert torch.equal(own, one.scores)


@pytest.mark.parametrize('name', [*ONE_OF_EACH, 'tood'])
@torch.no_grad()
def test_joint_detectors_have_boxes_and_what_their_branches_say(name):
    model = detector(name, joint=True)
    data = model.data_preprocessor(batch(), False)
    expected = model.outputs_of(data['inputs'], data['data_samples'])['logit']
    assert len(expected.unique()) == len(SHAPES)
    reader = find_reader(model)
    assert type(reader) is type(find_reader(detector(name)))
    for names in (['logit'], reader.provides(model)):
        out = read(model, names, passes=2)
        assert set(out) == set(names)
        torch.testing.assert_close(out['logit'], expected, rtol=1e-4, atol=1e-4)
    results = [result.pred_instances for result in model.test_step(batch())]
    for one, other in zip(out['boxes'], results, strict=True):
        if name == 'paa':
            other = other[other.scores.argsort(descending=True, stable=True)]
        for field in ('bboxes', 'scores', 'labels'):
            assert torch.equal(one[field], other[field])


@pytest.mark.parametrize('name', [*DENSE, *QUERY])
@torch.no_grad()
def test_a_prior_is_a_row_of_what_the_head_says(name):
    model = detector(name)
    head = model.bbox_head
    data = model.data_preprocessor(batch(), False)
    feats = model.extract_feat(data['inputs'])
    if name in DENSE:
        levels = [
            level.permute(0, 2, 3, 1).reshape(len(level), -1, head.cls_out_channels)
            for level in head(feats)[0]
        ]
        rows, sigmoid = torch.cat(levels, 1), head.use_sigmoid_cls
    else:
        given = model.forward_transformer(feats, data['data_samples'])
        rows, sigmoid = head(**given)[0][-1], head.loss_cls.use_sigmoid
    if name != 'tood':  # probabilities as they are
        rows = rows.sigmoid() if sigmoid else rows.softmax(-1)[..., :-1]
    has_limit = name in DENSE and 'nms_pre' in head.test_cfg
    for limit in (head.test_cfg.nms_pre, 30) if has_limit else (None,):
        before = dict(head.test_cfg)
        if limit:
            head.test_cfg.nms_pre = limit
        found = read(model, ['boxes'])['boxes']
        head.test_cfg.update(before)
        for own, boxes in zip(rows, found, strict=True):
            torch.testing.assert_close(own[boxes.priors], boxes.probs)


@pytest.mark.parametrize('name', TWO_STAGE)
@torch.no_grad()
def test_boxes_of_one_proposal_have_its_probabilities(name):
    for boxes in read(detector(name), ['boxes'])['boxes']:
        assert boxes.priors.max() < 50
        assert len(boxes.priors.unique()) < len(boxes)
        for prior in boxes.priors.unique():
            own = boxes.probs[boxes.priors == prior]
            assert torch.equal(own, own[:1].expand_as(own))


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_boxes_of_the_mirrored_image_are_mapped_back(name):
    model = detector(name)
    plain = read(model, ['boxes'])['boxes']
    data = batch()
    data['inputs'] = [image.flip(-1) for image in data['inputs']]
    # The mirror image of a mirrored image is the image.
    again = read(model, ['flip_boxes'], data)['flip_boxes']
    for one, other, (_, width) in zip(plain, again, SHAPES, strict=True):
        x1, y1, x2, y2 = one.bboxes.unbind(1)
        expected = torch.stack([4 * width - x2, y1, 4 * width - x1, y2], 1)
        torch.testing.assert_close(other.bboxes, expected, rtol=0, atol=1e-3)
        for field in ('scores', 'labels', 'probs', 'priors'):
            assert torch.equal(one[field], other[field])


def test_only_what_is_no_padding_is_mirrored():
    samples = batch()['data_samples']
    images = torch.rand(3, 3, SIDE, SIDE)
    flipped = mirrored(images, samples)
    assert torch.equal(mirrored(flipped, samples), images)
    assert torch.equal(flipped[1, :, :64, :88], images[1, :, :64, :88].flip(-1))
    assert torch.equal(flipped[1, :, 64:], images[1, :, 64:])
    assert torch.equal(flipped[1, :, :, 88:], images[1, :, :, 88:])


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_an_image_does_not_depend_on_its_mates(name):
    model = detector(name)
    names = ['boxes', 'feature', 'box_feature', *ENTROPIES]
    both = read(model, names, batch(SHAPES[:2]), passes=2)
    other = batch(SHAPES[:2], seed=5)
    for key, value in batch(SHAPES[:2]).items():
        other[key][0] = value[0]
    mixed = read(model, names, other, passes=2)
    twice = read(model, names, batch(SHAPES[:1] * 2, same=True), passes=2)
    for found in (mixed, twice):
        for key in ('feature', *ENTROPIES):
            torch.testing.assert_close(found[key][0], both[key][0])
        for field in ('scores', 'bboxes', 'probs'):
            one, two = found['boxes'][0][field], both['boxes'][0][field]
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4)
    # A batch of another size may round otherwise.
    alone = read(model, names, batch(SHAPES[:1]), passes=2)
    for key in ('feature', *ENTROPIES):
        torch.testing.assert_close(alone[key][0], both[key][0], rtol=1e-3, atol=1e-3)
    assert len(alone['boxes'][0]) == len(both['boxes'][0])
    assert not torch.equal(mixed['feature'][1], both['feature'][1])


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_passes_follow_their_seed_and_dropout(name):
    model = detector(name)
    one, two = (read(model, ENTROPIES, passes=3, seed=seed) for seed in (0, 1))
    assert (one['mutual_information'] > 0).all()
    assert (one['mutual_information'] < one['predictive_entropy']).all()
    assert not torch.equal(one['predictive_entropy'], two['predictive_entropy'])
    again = read(model, ENTROPIES, passes=3)
    assert all(torch.equal(again[key], one[key]) for key in ENTROPIES)


@pytest.mark.parametrize('name', CONFIGS)
def test_passes_without_dropout_are_all_the_same(name):
    out = [read(detector(name), ENTROPIES, passes=t, dropout=0.0) for t in (1, 3)]
    for key in ENTROPIES:
        torch.testing.assert_close(out[0][key], out[1][key], rtol=1e-5, atol=1e-5)
    assert out[1]['mutual_information'].max() < 1e-5


@pytest.mark.parametrize('name', QUERY)
@torch.no_grad()
def test_entropies_of_queries_are_of_the_decoder_that_predicts(name):
    model = detector(name)
    out = read(model, ENTROPIES, passes=1, dropout=0.0)
    data = model.data_preprocessor(batch(), False)
    feats = model.extract_feat(data['inputs'])
    logits = model.bbox_head(**model.forward_transformer(feats, data['data_samples']))
    logits = logits[0][-1].double()
    if model.bbox_head.loss_cls.use_sigmoid:
        p = torch.stack([logits.sigmoid(), 1 - logits.sigmoid()])
        expected = -(p * p.log()).sum((0, 3)).mean(1)
    else:
        p = logits.softmax(-1)
        expected = -(p * p.log()).sum(2).mean(1)
    torch.testing.assert_close(
        out['predictive_entropy'].double(), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('name', ['ssd', 'retinanet'])
@torch.no_grad()
def test_entropies_of_passes_are_means_over_priors_of_the_image(name):
    model = detector(name)
    head, sigmoid = model.bbox_head, name == 'retinanet'
    shape = SHAPES[0]  # of the whole batch: no padding
    out = read(model, ENTROPIES, batch([shape] * 2), passes=3)
    data = model.data_preprocessor(batch([shape] * 2), False)
    feats = model.extract_feat(data['inputs'])
    widths = [level.shape[1] for level in feats]
    factors = DropoutMasks(['image0', 'image1'], 3, 0.5, 0).draw(sum(widths), 'cpu')
    probabilities = []
    for factor in factors:
        parts = factor.split(widths, 1)
        maps = [m * p[..., None, None] for m, p in zip(feats, parts, strict=True)]
        logits = torch.cat(
            [
                level.permute(0, 2, 3, 1).reshape(2, -1, head.cls_out_channels)
                for level in head(tuple(maps))[0]
            ],
            1,
        ).double()
        probabilities.append(logits.sigmoid() if sigmoid else logits.softmax(-1))
    p = torch.stack(probabilities)  # (T, B, priors, C)

    def of(p):
        sums = -p * p.log() - (1 - p) * (1 - p).log() if sigmoid else -p * p.log()
        return sums.sum(-1)

    total, single = of(p.mean(0)).mean(1), of(p).mean(2).mean(0)
    torch.testing.assert_close(out[ENTROPIES[0]].double(), total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        out[ENTROPIES[1]].double(), total - single, rtol=1e-3, atol=1e-5
    )


def sample(image: tuple[int, int], padded: tuple[int, int], scale=(1.0, 1.0)):
    meta = dict(img_shape=image, batch_input_shape=padded, scale_factor=scale)
    return DetDataSample(metainfo=meta)


def test_padding_does_not_enter_a_feature():
    level = torch.randn(2, 7, 6, 8)
    feature = valid_means(
        [level, level[..., :1, :1]],
        [sample((48, 64), (48, 64)), sample((17, 9), (48, 64))],
    )
    assert feature.shape == (2, 14)
    torch.testing.assert_close(feature[0, :7], level[0].mean((1, 2)))
    torch.testing.assert_close(feature[1, :7], level[1, :, :3, :2].mean((1, 2)))
    assert torch.equal(feature[1, 7:], level[1, :, 0, 0])


def test_a_box_feature_is_a_mean_over_the_box():
    level = torch.randn(1, 7, 5, 5)
    corners = [[0, 0, 80.0, 20.0], [16, 0, 32, 4], [8, 1, 40, 6], [3, 3, 3, 3]]
    boxes = [InstanceData(bboxes=torch.tensor(corners))]
    scaled = [sample((40, 40), (40, 40), (0.5, 2.0))]
    (found,) = box_features([level], boxes, scaled)
    torch.testing.assert_close(found[0], level[0].mean((1, 2)))
    torch.testing.assert_close(found[1], level[0, :, 0, 1])
    steps = (torch.arange(400) + 0.5) / 400
    x, y = ((4 + 16 * steps) / 8).long(), ((2 + 10 * steps) / 8).long()
    brute = level[0][:, y][:, :, x].mean((1, 2))
    torch.testing.assert_close(found[2], brute, rtol=1e-3, atol=1e-3)
    assert torch.isfinite(found[3]).all(), 'a box without area'


def test_larger_boxes_are_described_by_coarser_levels():
    feats = [torch.full((1, 4, 32 >> i, 32 >> i), float(i)) for i in range(3)]
    sides = [0, 30, 55, 57, 111, 113, 250]
    boxes = [InstanceData(bboxes=torch.tensor([[0.0, 0, s, s] for s in sides]))]
    (found,) = box_features(feats, boxes, [sample((256, 256), (256, 256))])
    assert found[1:, 0].round(decimals=4).tolist() == [0, 0, 0, 0, 1, 2]
    uneven = [feats[0], torch.ones(1, 8, 16, 16)]
    (found,) = box_features(uneven, boxes, [sample((256, 256), (256, 256))])
    assert found.shape == (7, 4), 'of the finest level'


@pytest.mark.parametrize('name', ['ssd', 'yolox', 'paa', 'faster_rcnn'])
def test_an_image_without_boxes_has_none(name):
    model = copy.deepcopy(detector(name))
    part = model.roi_head if name == 'faster_rcnn' else model.bbox_head
    part.test_cfg.score_thr = 1.1
    out = read(model, ['boxes', 'flip_boxes', 'box_feature'])
    for key in ('boxes', 'flip_boxes'):
        assert [tuple(b.probs.shape) for b in out[key]] == [(0, 5)] * 3
        assert [len(b.priors) for b in out[key]] == [0] * 3
    assert [len(f) for f in out['box_feature']] == [0] * 3


@pytest.mark.parametrize('name', ['ssd', 'yolox', 'faster_rcnn', 'dino'])
def test_all_outputs_take_one_pass_of_the_backbone_and_one_for_the_mirror(name):
    model = detector(name)
    calls = []
    handle = model.backbone.register_forward_hook(lambda *_: calls.append(1))
    names = find_reader(model).provides(model)
    out = read(model, names, passes=2)
    assert len(calls) == 2 and set(out) == set(names)
    calls.clear()
    read(model, [name for name in names if name != 'flip_boxes'], passes=2)
    assert len(calls) == 1
    handle.remove()


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_weights_that_are_not_finite_are_no_images_without_boxes(name):
    model = copy.deepcopy(detector(name))
    heads = [model.rpn_head] if name == 'faster_rcnn' else [model.bbox_head]
    for weight in heads[0].parameters():
        weight.data.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="class logits of 'image0'"):
        read(model, ['boxes'])


@pytest.mark.parametrize('name', families.UNSUPPORTED)
def test_other_detectors_need_a_reader_of_their_own(name):
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(families.family(name))
    assert find_reader(model) is None
    assert type(model).__name__ in no_reader(model)
    assert 'POOL_READERS' in no_reader(model)


def test_what_a_detector_has_not_is_said_with_what_to_write():
    model = detector('ssd')
    reader = find_reader(model)
    assert 'logit' not in reader.provides(model)
    assert 'method.branches' in reader.remedy('logit')
    assert 'boxes' in reader.remedy('probability')
    assert "provides = ('loss',)" in reader.remedy('loss')
