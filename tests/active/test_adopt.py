"""A config of mmdet's becomes a trial's: what is mended, and what is refused."""

import copy
import json
import re

import pytest
import torch
from conftest import ROOT
from families import CONFIGS, NEED_DEFORMABLE_CONVOLUTION, family
from mmengine.config import Config
from test_coco_trial import coco

from tjls_mm.active.adopt import adopt_config
from tjls_mm.active.config_file import read_config
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.schedule import build_schedulers
from tjls_mm.active.settings import walk
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import JointDataset
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.registry import IMAGE_SOURCES, build_own
from tjls_mm.stage_folder import TrialFolder

CLASSES = ('ball', 'crate', 'cone', 'star', 'ring')


@pytest.fixture(scope='session')
def coco_data(demo_data):
    """The demo data set with files of COCO beside those of VOC."""
    for name, image_set, first in (('pool', 'trainval', 1), ('test', 'test', 99)):
        content = coco(demo_data, image_set, first)
        (demo_data / f'{name}.json').write_text(json.dumps(content))
    return demo_data


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    """Batch norm is the same whatever machine runs the tests."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


_READ = {}


def _read(text: str, path) -> Config:
    """A config file's content, read once: mmdet's bases take a quarter of a second."""
    if text not in _READ:
        _READ[text] = Config.fromfile(path)
    return _READ[text]


@pytest.fixture
def own_config(coco_data, tmp_path):
    """Function that makes a user's config on the data set, in VOC's or COCO's form."""
    voc = dict(
        type='tjls_mm.VOCFiles',
        data_root=str(coco_data),
        pool_sets=['VOCdemo/trainval'],
        test_sets=['VOCdemo/test'],
        classes=CLASSES,
    )
    files = dict(
        type='tjls_mm.CocoFiles',
        data_root=str(coco_data),
        pool_files=['pool.json'],
        test_files=['test.json'],
        image_dirs='VOCdemo/JPEGImages',
    )

    def make(base: str, form: str = 'coco', lines: str = '', **options) -> Config:
        path = tmp_path / 'mine.py'
        path.write_text(
            f"_base_ = 'mmdet::{base}.py'\n"
            f'data_source = {files if form == "coco" else voc}\n'
            'active_learning = dict(initial=8, budget=6, stages=2)\n'
            f"method = dict(query=dict(type='tjls_mm.Random'))\n{lines}"
        )
        cfg = copy.deepcopy(_read(path.read_text(), path))
        cfg.merge_from_dict({'work_dir': str(tmp_path / 'work'), **options})
        return cfg

    return make


RETINANET = CONFIGS['retinanet']
RTMDET, YOLOX = CONFIGS['rtmdet'], 'yolox/yolox_s_8xb8-300e_coco'


def adopted(cfg: Config) -> tuple[Config, str]:
    """The adopted config and its notes, one a line."""
    cfg, notes = adopt_config(cfg)
    return cfg, '\n'.join(notes)


def kinds(pipeline) -> list[str]:
    return [transform['type'].split('.')[-1] for transform in pipeline]


def derive(cfg: Config, tmp_path, n_labelled: int = 8) -> Config:
    """The first stage of an adopted config, on this data set of 48 images."""
    folder = TrialFolder(tmp_path / 'work')
    inputs = StageInputs(0, folder.stage(0), n_labelled, 48 - n_labelled, folder.test)
    return TrialPlan(cfg).deriver.derive(inputs)


@pytest.mark.parametrize('form', ['coco', 'voc'])
@pytest.mark.parametrize('name', CONFIGS)
def test_every_family_becomes_a_trial(name, form, own_config, tmp_path):
    given = own_config(CONFIGS[name], form)
    cfg, notes = adopted(given)
    assert notes.count('\n') < 12 and f'{len(CLASSES)} classes' in notes
    for _, key, value in walk(cfg.model):
        assert key != 'num_classes' or value == 5
    paths = [v for _, _, v in walk(cfg.to_dict()) if isinstance(v, str)]
    assert not [v for v in paths if v.startswith('data/')]
    assert adopt_config(cfg) == (cfg, []), 'once is enough'
    if form == 'coco' and name not in NEED_DEFORMABLE_CONVOLUTION or name == 'ssd':
        cfg.model = family(name)
        stage = derive(cfg, tmp_path)
        build_schedulers(stage.param_scheduler)
        assert stage.val_dataloader.dataset.type == 'tjls_mm.DetImageSet'
        assert not [t for t in stage.train_dataloader.dataset if t == 'filter_cfg']
        metric = {'coco': 'CocoMetric', 'voc': 'VOCMetric'}[form]
        assert stage.test_evaluator.type == metric


SMALL = """
model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.125, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=32),
    bbox_head=dict(in_channels=32, feat_channels=32, exp_on_reg=True),
    data_preprocessor=dict(pad_size_divisor=32),
    test_cfg=dict(score_thr=0.0),
)
train_dataloader = dict(batch_size=4, num_workers=0)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_epochs=2)
param_scheduler = [dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=1000)]
custom_hooks = [
    dict(type='EMAHook', ema_type='ExpMomentumEMA', update_buffers=True, priority=49),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=280,
        switch_pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(128, 128), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(96, 96)),
            dict(type='YOLOXHSVRandomAug'),
            dict(type='Pad', size=(96, 96), pad_val=dict(img=(114, 114, 114))),
            dict(type='PackDetInputs'),
        ],
    ),
]
"""


def test_a_trial_with_mmdets_rtmdet(own_config, tmp_path, capsys):
    """Its config, the data, the budgets and a method: two stages, evaluated."""
    own_config(RTMDET, lines=f'{SMALL}work_dir = {str(tmp_path / "work")!r}')
    cfg = read_config(str(tmp_path / 'mine.py'))
    said = capsys.readouterr().out
    assert said.startswith('adopted from mmdet') and 'PipelineSwitchHook' in said
    assert cfg.val_dataloader.batch_size == 1, 'images of several sizes'
    run_stages(cfg)
    folder = TrialFolder(tmp_path / 'work')
    record = json.loads(folder.stage(1).metrics.read_text())
    assert 'coco/bbox_mAP' in record['metrics']
    assert len(read_image_ids(folder.stage(1).labelled)) == record['n_labelled'] == 14


def test_a_config_of_a_trial_stays_as_it_is(tiny_config):
    cfg = tiny_config()
    before = cfg.to_dict()
    assert adopt_config(cfg) == (cfg, []) and cfg.to_dict() == before


def test_what_is_missing_is_shown(own_config, tmp_path):
    own_config(RETINANET)
    (tmp_path / 'bare.py').write_text(f"_base_ = 'mmdet::{RETINANET}.py'\n")
    with pytest.raises(InputError, match='without data_source, active_learning, meth'):
        read_config(str(tmp_path / 'bare.py'))


def test_a_new_style_config_is_refused(tmp_path):
    lines = 'from mmdet.models import RetinaNet\nmodel = dict(type=RetinaNet)\n'
    (tmp_path / 'new.py').write_text(lines)
    with pytest.raises(InputError, match='model.type is a class.*text config'):
        read_config(str(tmp_path / 'new.py'))


def test_the_method_comes_from_a_file_of_ours(own_config, tmp_path):
    base = own_config(RETINANET).filename
    text = (tmp_path / 'mine.py').read_text()
    method = ROOT / 'configs' / '_base_' / 'methods' / 'random.py'
    text = text.replace("_base_ = '", "_base_ = ['").replace(
        ".py'\n", f".py', {str(method)!r}]\n", 1
    )
    text = ''.join(
        line for line in text.splitlines(True) if not line.startswith('method')
    )
    (tmp_path / 'mine.py').write_text(text)
    assert 'Random' in read_config(base).method.query.type


def test_a_pipeline_treats_images_alike_whatever_boxes_they_have(own_config):
    cfg = own_config(RETINANET)
    load, annotations, *_, pack = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [
        load,
        {**annotations, 'with_mask': True},
        dict(type='CachedMosaic', img_scale=(96, 96), max_cached_images=20),
        dict(
            type='RandomChoice',
            transforms=[[dict(type='mmdet.RandomCrop', crop_size=(9, 9))]],
        ),
        dict(type='MinIoURandomCrop', min_crop_size=0.4),
        dict(type='CachedMixUp', img_scale=(96, 96)),
        dict(type='MixUp', img_scale=(96, 96)),
        dict(type='RandomShift'),
        dict(type='RandomCenterCropPad'),
        dict(type='CopyPaste'),
        dict(type='Albu', transforms=[dict(type='RandomCrop', height=9, width=9)]),
        dict(type='FilterAnnotations', by_mask=True),
        pack,
    ]
    cfg, notes = adopted(cfg)
    mended = cfg.train_dataloader.dataset.pipeline
    assert kinds(mended) == [
        *('LoadImageFromFile', 'LoadAnnotations', 'Mosaic', 'RandomChoice'),
        *('BoxBlindRandomCrop', 'Albu', 'FilterAnnotations', 'PackDetInputs'),
    ]
    assert not mended[1].with_mask
    assert mended[2] == dict(type='Mosaic', img_scale=(96, 96))
    assert mended[3].transforms[0][0].allow_negative_crop
    assert mended[4].min_crop_size == 0.4
    assert mended[5].transforms[0] == dict(type='RandomCrop', height=9, width=9)
    assert not mended[5].skip_img_without_anno
    assert not mended[6].keep_empty and not mended[6].by_mask
    named = re.findall(r'^pipeline: (.*)$', notes, re.MULTILINE)
    assert len(named) == 11, 'each change is said'


@pytest.mark.parametrize('base', [CONFIGS['ssd'], CONFIGS['detr'], RTMDET, YOLOX])
def test_an_image_looks_the_same_with_and_without_its_boxes(base, own_config, tmp_path):
    """Nothing in the pixels of a training image may tell whether it is labelled."""
    cfg, _ = adopted(own_config(base, 'voc'))
    source = build_own(IMAGE_SOURCES, cfg.data_source)
    write_image_ids(tmp_path / 'list.txt', source.list_images('pool')[:4])
    pipeline = cfg.train_dataloader.dataset.pipeline
    listed = str(tmp_path / 'list.txt')
    both = JointDataset(
        {**source.labelled_dataset(listed), 'pipeline': pipeline},
        {**source.pool_dataset(listed), 'pipeline': source.pool_pipeline(pipeline)},
    )
    counts = []
    for seed in range(6):
        one, two = both[(seed % 4, seed)], both[(4 + seed % 4, seed)]
        assert torch.equal(one['inputs'], two['inputs'])
        counts.append(len(one['data_samples'].gt_instances))
        assert not len(two['data_samples'].gt_instances)
    assert sum(counts)


def test_rtmdet_trains_with_the_pipeline_it_would_switch_to(own_config):
    cfg, notes = adopted(own_config(RTMDET))
    train = kinds(cfg.train_dataloader.dataset.pipeline)
    assert 'RandomCrop' in train and not [k for k in train if 'Cached' in k]
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook']
    assert 'PipelineSwitchHook' in notes and 'BN for SyncBN' in notes
    assert not [v for _, _, v in walk(cfg.model) if v == 'SyncBN']
    # 8 x 32 images by its name, where its auto_scale_lr says 16.
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=256)
    assert cfg.param_scheduler[1].eta_min_ratio == pytest.approx(0.05)


def test_yolox_keeps_mosaic_and_draws_sizes_by_image(own_config):
    cfg, notes = adopted(own_config(YOLOX))
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert kinds(pipeline)[:4] == [
        *('LoadImageFromFile', 'LoadAnnotations', 'Mosaic', 'RandomAffine')
    ]
    assert 'MixUp' not in kinds(pipeline) and 'RandomChoiceResize' in kinds(pipeline)
    assert (480, 480) in pipeline[6].scales and (800, 800) in pipeline[6].scales
    assert cfg.model.data_preprocessor.batch_augments is None
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook']
    for name in ('MixUp', 'YOLOXModeSwitch', 'SyncNorm', 'BatchSyncRandomResize'):
        assert name in notes


def test_tood_starts_with_its_final_assigner(own_config):
    cfg = own_config(CONFIGS['tood'])
    assert cfg.model.train_cfg.initial_epoch > 0
    cfg.custom_hooks = [dict(type='SetEpochInfoHook')]
    cfg, notes = adopted(cfg)
    assert cfg.model.train_cfg.initial_epoch == 0 and cfg.custom_hooks == []
    assert 'final assigner' in notes


@pytest.mark.parametrize(
    'hook', [dict(type='MeanTeacherHook'), dict(type='EMAHook', begin_epoch=3)]
)
def test_hooks_that_count_epochs_are_refused(hook, own_config):
    cfg = own_config(RETINANET, custom_hooks=[hook])
    with pytest.raises(InputError, match=f'{hook["type"]} counts epochs.*begin_iter'):
        adopt_config(cfg)


@pytest.mark.parametrize(
    'base, match',
    [
        ('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco', 'loss_mask learns masks'),
        ('htc/htc_r50_fpn_1x_coco', 'semantic_head learns masks'),
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco', 'panoptic_head learns'),
        ('rpn/rpn_r50_fpn_1x_coco', "'RPN' is more, or less"),
        ('fast_rcnn/fast-rcnn_r50_fpn_1x_coco', 'proposals of a file'),
        ('dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco', 'in no checkpoint'),
    ],
)
def test_more_than_boxes_is_refused(base, match, own_config):
    with pytest.raises(InputError, match=match):
        adopt_config(own_config(base))


def test_data_sets_of_different_pipelines_are_refused(own_config):
    cfg = own_config(RETINANET)
    part = cfg.train_dataloader.dataset
    parts = [part, {**part, 'pipeline': part.pipeline[:-1]}]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    with pytest.raises(InputError, match='joins data sets of different pipelines'):
        adopt_config(cfg)


def test_masks_of_a_two_stage_detector_are_left_out(own_config):
    cfg, notes = adopted(own_config('mask_rcnn/mask-rcnn_r50_fpn_1x_coco'))
    assert 'mask_head' not in cfg.model.roi_head and 'mask_head removed' in notes
    assert cfg.val_evaluator.metric == 'bbox'


def test_an_rpn_keeps_its_one_class(own_config):
    options = {'model.rpn_head.num_classes': 1}
    cfg, _ = adopted(own_config(CONFIGS['faster_rcnn'], **options))
    assert cfg.model.rpn_head.num_classes == 1
    assert cfg.model.roi_head.bbox_head.num_classes == 5


def test_as_many_boxes_as_there_are_queries_and_classes(own_config):
    few = {'model.num_queries': 50}
    cfg, _ = adopted(own_config(CONFIGS['detr'], **few))
    assert cfg.model.test_cfg.max_per_img == 50
    cfg, notes = adopted(
        own_config(CONFIGS['dino'], **few, **{'model.test_cfg.max_per_img': 300})
    )
    assert cfg.model.test_cfg.max_per_img == 250 and 'max_per_img=250' in notes


def test_the_rate_belongs_to_a_number_of_images(own_config, tmp_path):
    small = {'train_dataloader.batch_size': 4}
    cfg, notes = adopted(own_config(RETINANET, **small))
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)
    assert 'lr 0.01 is for 16 labelled images an update, 0.0025 for the 4' in notes
    cfg.model = family('retinanet')
    assert 'scaled to it' in TrialPlan(cfg).deriver.batches(1).describe()
    cfg, notes = adopted(own_config(RETINANET, lines='auto_scale_lr = None'))
    assert cfg.auto_scale_lr is None and 'lr' not in notes.split()
    four = {**small, 'optim_wrapper.accumulative_counts': 4}
    cfg, notes = adopted(own_config(RETINANET, **four))
    assert cfg.auto_scale_lr.base_batch_size == 4, 'an update of 16 images as it was'
    assert '0.0025' not in notes


def test_numbers_in_the_name_of_a_checkpoint_are_not_the_configs(own_config):
    name = 'resnet_strikes_back/retinanet_r50-rsb-pre_fpn_1x_coco'
    cfg, _ = adopted(own_config(name))
    assert '8xb256' in cfg.model.backbone.init_cfg.checkpoint
    assert cfg.auto_scale_lr.base_batch_size == 16


def test_milestones_after_the_end_are_refused_with_what_to_write(own_config):
    name = 'yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco'
    short = {'train_cfg.max_epochs': 12}
    with pytest.raises(InputError, match=r'milestones \[24, 28\] lie after.*end='):
        adopt_config(own_config(name, **short))
    places = [0, 1]
    cfg = own_config(name, **short)
    kinds = [one.type for one in cfg.param_scheduler]
    place = places[kinds.index('MultiStepLR')]
    cfg, _ = adopted(own_config(name, **short, **{f'param_scheduler.{place}.end': 30}))
    repeats = cfg.train_cfg.max_epochs / 12
    found = cfg.param_scheduler[place].milestones
    assert found == pytest.approx([24 / 30 * 12 * repeats, 28 / 30 * 12 * repeats])


def test_a_crop_that_pads_test_images_stays(own_config):
    cfg, _ = adopted(own_config('centernet/centernet_r18_8xb16-crop512-140e_coco'))
    assert 'RandomCenterCropPad' in kinds(cfg.val_dataloader.dataset.pipeline)
    assert 'RandomCenterCropPad' not in kinds(cfg.train_dataloader.dataset.pipeline)


def test_channels_want_images_of_one_size(own_config, tmp_path):
    cfg, _ = adopted(own_config(RETINANET))
    cfg.model = family('retinanet')
    cfg.method.bottleneck = dict(type='tjls_mm.BatchTransformer', tokens='channels')
    with pytest.raises(InputError, match="tokens='channels'.*several sizes"):
        TrialPlan(cfg)


def test_a_schedule_fits_a_small_stage(own_config, tmp_path):
    cfg, notes = adopted(own_config(RETINANET))
    cfg.model = family('retinanet')
    stage = derive(cfg, tmp_path)
    assert stage.train_cfg.max_iters == 12 * 8 // 2
    assert stage.train_cfg.val_interval is None
    warm_up, steps = stage.param_scheduler
    assert warm_up.end == 5 and steps.milestones == [32, 44]
    long = derive(cfg, tmp_path, n_labelled=40_000)
    assert long.param_scheduler[0].end == 500
    cfg, notes = adopted(own_config(CONFIGS['ssd']))
    assert cfg.train_cfg.max_epochs == 240 and 'epochs times 10' in notes
    assert cfg.param_scheduler[1].milestones == [160, 200]
    thrice = {'train_cfg.max_epochs': 36}
    cfg, notes = adopted(own_config(RETINANET, **thrice))
    assert cfg.param_scheduler[1].milestones == [24, 33] and '12 epochs scaled' in notes
    mine = [
        dict(type='LinearLR', by_epoch=True, end=2, start_factor=0.1),
        dict(type='MultiStepLR', milestones=[30]),
    ]
    cfg, notes = adopted(own_config(RETINANET, param_scheduler=mine, **thrice))
    assert cfg.param_scheduler[0].end == 2 and 'scaled to the' not in notes
    low = {'optim_wrapper.optimizer.lr': 1e-4}
    cfg, notes = adopted(own_config(RTMDET, **low))
    assert cfg.param_scheduler[1].eta_min_ratio == 0.05 and '5 % of the rate' in notes


def test_images_of_several_sizes_are_scored_one_by_one(own_config):
    four = {'val_dataloader.batch_size': 4, 'score_dataloader': dict(batch_size=8)}
    cfg, notes = adopted(own_config(RETINANET, **four))
    assert cfg.val_dataloader.batch_size == cfg.score_dataloader.batch_size == 1
    assert 'several sizes' in notes
    for base, size in ((RTMDET, 4), (CONFIGS['yolox'], 4), (CONFIGS['ssd'], 4)):
        cfg, notes = adopted(own_config(base, **four))
        assert cfg.val_dataloader.batch_size == size and 'several' not in notes


def test_the_metric_is_that_of_the_data_unless_it_is_named(own_config, coco_data):
    cfg, _ = adopted(own_config(RETINANET))
    assert cfg.val_evaluator.type == 'CocoMetric'
    assert cfg.val_evaluator.ann_file == str(coco_data / 'test.json')
    # CocoMetric would go by the file's order: it takes boxes from the samples.
    cfg, _ = adopted(own_config(RETINANET, **{'data_source.classes': CLASSES[::-1]}))
    assert cfg.val_evaluator.ann_file is None
    assert 'instances' in cfg.val_dataloader.dataset.pipeline[-1].meta_keys
    cfg, _ = adopted(own_config(RETINANET, 'voc', **{'val_evaluator.ann_file': None}))
    assert cfg.val_evaluator.type == 'CocoMetric'
    own = [dict(type='VOCMetric', metric='mAP', eval_mode='area')]
    cfg, _ = adopted(own_config(RETINANET, lines=f'val_evaluator = {own}'))
    assert cfg.val_evaluator.eval_mode == 'area'


def test_loaders_without_workers_keep_none(own_config):
    none = {'train_dataloader.num_workers': 0, 'val_dataloader.num_workers': 0}
    cfg, _ = adopted(own_config(RETINANET, **none))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert 'persistent_workers' not in loader
    cfg, notes = adopted(own_config(RETINANET, lines='randomness = dict(seed=3)'))
    assert cfg.randomness.seed == 3 and 'seed' not in notes


PAGE = ROOT / 'docs' / 'own_detector.md'
COMMON = (
    *('data:', 'batches:', 'evaluation:', 'randomness:', 'optim_wrapper:'),
    *('model: 5 classes', 'train_cfg: a stage', 'param_scheduler:'),
    'hooks: SetEpochInfoHook',  # TOOD's in one of the package sets
)
"""Notes that the page explains for all families."""


def test_the_page_lists_what_every_family_needs(own_config):
    table = '| config | passes | images an update | beside that |\n|---|---|---|---|\n'
    for base in CONFIGS.values():
        cfg, notes = adopt_config(own_config(base))
        row = [
            f'`{base}`',
            str(cfg.train_cfg.max_epochs),
            str(cfg.auto_scale_lr.base_batch_size),
            '<br>'.join(n for n in notes if not n.startswith(COMMON)) or 'nothing',
        ]
        table += f'| {" | ".join(row)} |\n'
    text = PAGE.read_text(encoding='utf-8')
    assert text.endswith(table), f'{PAGE.name} must end with\n{table}'


def test_the_example_of_the_page_plans_a_trial(coco_data, tmp_path):
    example = (ROOT / 'configs' / 'detection' / 'example_own_detector.py').read_text()
    code = example.partition('\n')[2].replace("'../_base_", "'configs/_base_")
    assert f'```python\n{code}```' in PAGE.read_text(encoding='utf-8')
    lines = [line for line in code.splitlines() if line]
    assert len(lines) <= 12
    code = code.replace("'configs", f"'{ROOT}/configs").replace(
        "'images'", "'VOCdemo/JPEGImages'"
    )
    code = code.replace("'data/helmets'", repr(str(coco_data))).replace(
        'initial=200, budget=100', 'initial=20, budget=5'
    )
    (tmp_path / 'mine.py').write_text(code)
    cfg = read_config(str(tmp_path / 'mine.py'))
    plan = TrialPlan(cfg)
    assert plan.source.classes == CLASSES and not plan.learner.uses_pool
    cosine = derive(cfg, tmp_path, n_labelled=20).param_scheduler[1]
    assert (cosine.begin, cosine.end) == (125, 250), 'stretched to 100 passes'
