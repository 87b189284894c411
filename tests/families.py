"""mmdet's detectors made tiny: its own configs with ResNet-18 and 64 channels.

No test of its own; every test that goes over all families takes them from here.
"""

import copy
import functools
import logging

import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch.nn.modules.batchnorm import _BatchNorm

from tjls_mm import compat  # noqa: F401  before mmdet
from tjls_mm.registry import MODELS

SIDE = 96
"""Pixels of the images that these detectors are tried on."""

CONFIGS = {
    'ssd': 'pascal_voc/ssd300_voc0712',
    'retinanet': 'retinanet/retinanet_r18_fpn_1x_coco',
    'atss': 'atss/atss_r50_fpn_1x_coco',
    'gfl': 'gfl/gfl_r50_fpn_1x_coco',
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'paa': 'paa/paa_r50_fpn_1x_coco',
    'tood': 'tood/tood_r50_fpn_1x_coco',
    'vfnet': 'vfnet/vfnet_r50_fpn_1x_coco',
    'reppoints': 'reppoints/reppoints-moment_r50_fpn_1x_coco',
    'yolof': 'yolof/yolof_r50-c5_8xb8-1x_coco',
    'rtmdet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco',
    'yolox': 'yolox/yolox_tiny_8xb8-300e_coco',
    'faster_rcnn': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
    'cascade_rcnn': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
    'detr': 'detr/detr_r50_8xb2-150e_coco',
    'conditional_detr': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
    'dab_detr': 'dab_detr/dab-detr_r50_8xb2-50e_coco',
    'deformable_detr': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    'deformable_detr_two_stage': (
        'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco'
    ),
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco',
}
DENSE = tuple(CONFIGS)[:12]
TWO_STAGE = ('faster_rcnn', 'cascade_rcnn')
QUERY = tuple(CONFIGS)[14:]
NEED_DEFORMABLE_CONVOLUTION = ('tood', 'vfnet', 'reppoints')
"""They need mmcv's compiled operators."""
UNSUPPORTED = {
    'yolov3': 'yolo/yolov3_d53_8xb8-320-273e_coco',
    'centernet': 'centernet/centernet_r18_8xb16-crop512-140e_coco',
    'sparse_rcnn': 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco',
    'tridentnet': 'tridentnet/tridentnet_r50-caffe_1x_coco',
}


@functools.cache
def original(name: str) -> ConfigDict:
    return get_config(f'mmdet::{ {**CONFIGS, **UNSUPPORTED}[name] }.py').model


def family(name: str, n_classes: int = 5, **changes) -> ConfigDict:
    """Config of the model of a family, without pretrained weights; ``changes`` last."""
    model = copy.deepcopy(original(name))
    _walk(model, n_classes)
    if name == 'ssd':
        model.bbox_head.anchor_generator.update(
            input_size=SIDE,
            strides=[8, 16, 32, 48],
            ratios=([2], [2], [2], [2]),
            min_sizes=[12, 24, 40, 60],
            max_sizes=[24, 40, 60, 84],
        )
        model.neck = dict(
            type='SSDNeck',
            in_channels=(32, 64, 128),
            out_channels=(32, 64, 128, 64),
            level_strides=(2,),
            level_paddings=(1,),
            l2_norm_scale=None,
        )
        model.backbone = _resnet(out_indices=(1, 2, 3))
        model.bbox_head.in_channels = (32, 64, 128, 64)
    elif name not in ('rtmdet', 'yolox', *UNSUPPORTED):
        indices = model.backbone.out_indices
        model.backbone = _resnet(out_indices=indices)
        _narrow(model, [16 * 2**i for i in indices])
    model.backbone.pop('init_cfg', None)
    if name == 'ssd':  # its own scale needs its own pretrained weights
        model.data_preprocessor.std = [58.395, 57.12, 57.375]
    if 'batch_augments' in model.get('data_preprocessor', {}):
        model.data_preprocessor.batch_augments = None
    model.update(changes)
    return model


def _resnet(out_indices) -> ConfigDict:
    return ConfigDict(
        type='ResNet',
        depth=18,
        base_channels=16,
        out_indices=tuple(out_indices),
        # As mmdet's own configs have it: batch statistics stand still.
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
    )


def _walk(part, n_classes: int) -> None:
    """Set the number of classes wherever there is one."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == 'num_classes' and isinstance(value, int) and value > 1:
                part[key] = n_classes
            else:
                _walk(value, n_classes)
    elif isinstance(part, (list, tuple)):
        for value in part:
            _walk(value, n_classes)


def _narrow(model: ConfigDict, widths: list[int]) -> None:
    """64 channels behind the backbone, two layers of a transformer, 60 queries."""
    neck = model.neck
    neck.in_channels = widths[0] if isinstance(neck.in_channels, int) else widths
    neck.out_channels = 64
    if neck.type == 'DilatedEncoder':
        neck.block_mid_channels = 16
    head = model.get('bbox_head') or {}
    if 'encoder' in model:
        _narrow_transformer(model)
        return
    heads = [head, model.get('rpn_head') or {}]
    roi = model.get('roi_head') or {}
    if roi:
        roi.bbox_roi_extractor.out_channels = 64
        found = roi.bbox_head
        for one in found if isinstance(found, list) else [found]:
            one.in_channels = 64
            one.fc_out_channels = 64
        model.train_cfg.rpn_proposal.max_per_img = 50
        model.test_cfg.rpn.max_per_img = 50
        stages = model.train_cfg.rcnn
        for one in stages if isinstance(stages, list) else [stages]:
            one.sampler.num = 32
    for one in heads:
        for key in ('in_channels', 'feat_channels', 'point_feat_channels'):
            if key in one:
                one[key] = 64


def _narrow_transformer(model: ConfigDict) -> None:
    # Some of mmdet's position encodings have 256 numbers whatever the config says.
    fixed = 'Conditional', 'DABDETR', 'DeformableDETR', 'DINO'
    width = 256 if model.type.startswith(fixed) else 64
    model.num_queries = 60
    model.neck.out_channels = width
    for part in ('encoder', 'decoder'):
        model[part].num_layers = 2
        for value in model[part].layer_cfg.values():
            if isinstance(value, dict):
                if 'embed_dims' in value:
                    value.embed_dims = width
                if 'feedforward_channels' in value:
                    value.feedforward_channels = 128
    model.positional_encoding.num_feats = width // 2
    model.bbox_head.embed_dims = width
    if 'dn_cfg' in model:
        model.dn_cfg.group_cfg.num_dn_queries = 20
    if model.get('test_cfg', {}).get('max_per_img'):
        model.test_cfg.max_per_img = min(60, model.test_cfg.max_per_img)


def build(config: dict, seed: int = 0) -> torch.nn.Module:
    """A detector of a config with the weights of a seed."""
    config = copy.deepcopy(config)
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # a line per weight
    try:
        with DefaultScope.overwrite_default_scope('mmdet'), torch.random.fork_rng():
            torch.manual_seed(seed)
            model = MODELS.build(config)
            model.init_weights()
        if type(model).__name__.endswith('RTMDet'):
            # A born one's boxes are points, which no truth overlaps.
            for conv in model.bbox_head.rtm_reg:
                torch.nn.init.constant_(conv.bias, 2.0)
    finally:
        logging.disable(disabled)
    return model


@torch.no_grad()
def settle(model: torch.nn.Module) -> torch.nn.Module:
    """Give batch norm the statistics of a batch: a born RTMDet sees nothing in eval."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    data = model.data_preprocessor(batch([True] * 4, seed=7), False)
    model._forward(data['inputs'], data['data_samples'])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def batch(labelled: list[bool], seed: int = 0, n_classes: int = 5) -> dict:
    """Raw images and samples as a loader gives them, two boxes each, all in view.

    Pool images hold boxes too, which nothing may read.
    """
    from mmdet.structures import DetDataSample

    rng = torch.Generator().manual_seed(seed)
    inputs, samples = [], []
    for i, known in enumerate(labelled):
        image = torch.randint(0, 256, (3, SIDE, SIDE), generator=rng).to(torch.uint8)
        corner = torch.rand(2, 2, generator=rng) * SIDE * 0.4
        size = SIDE * (0.2 + 0.4 * torch.rand(2, 2, generator=rng))
        truth = InstanceData(
            bboxes=torch.cat([corner, corner + size], 1),
            labels=torch.randint(0, n_classes, (2,), generator=rng),
        )
        meta = dict(
            image_id=f'image{i}',
            img_id=i,
            is_labelled=known,
            img_shape=(SIDE, SIDE),
            ori_shape=(SIDE, SIDE),
            batch_input_shape=(SIDE, SIDE),
            pad_shape=(SIDE, SIDE),
            scale_factor=(1.0, 1.0),
        )
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = truth
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        inputs.append(image)
        samples.append(sample)
    return {'inputs': inputs, 'data_samples': samples}
