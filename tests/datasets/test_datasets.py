"""Data sets, and that no annotation of the pool is opened."""

import builtins
import io
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import VOCDataset
from mmengine.config import Config
from PIL import Image

from tjls_mm.datasets import (
    BoxBlindRandomCrop,
    DetImageSet,
    Instance,
    JointBatchSampler,
    JointDataset,
    VOCFiles,
)
from tjls_mm.datasets.image_checks import image_size
from tjls_mm.errors import InputError, raise_first
from tjls_mm.image_ids import image_path, read_image_ids, write_image_ids
from tjls_mm.randomness import seeded_pipeline
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, build_own

CLASSES = ('ball', 'crate', 'cone', 'star', 'ring')
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
AUGMENT = [
    dict(type='Expand', mean=[0, 0, 0], to_rgb=True, ratio_range=(1, 2)),
    dict(type='tjls_mm.BoxBlindRandomCrop'),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]


@pytest.fixture
def source(demo_data):
    return VOCFiles(
        str(demo_data), ['VOCdemo/trainval'], ['VOCdemo/test'], classes=CLASSES
    )


@pytest.fixture
def joint(source, tmp_path):
    ids = source.list_images('pool')
    write_image_ids(tmp_path / 'l.txt', ids[:10])
    write_image_ids(tmp_path / 'u.txt', ids[10:])
    labelled = source.labelled_dataset(str(tmp_path / 'l.txt'))
    pool = source.pool_dataset(str(tmp_path / 'u.txt'))
    return dict(
        labelled=dict(labelled, pipeline=LOAD + AUGMENT),
        pool=dict(pool, pipeline=source.pool_pipeline(LOAD + AUGMENT)),
    )


def test_entries_equal_those_of_mmdets_voc_data_set(source, demo_data, tmp_path):
    ids = source.list_images('test')
    write_image_ids(tmp_path / 'list.txt', ids)
    ours = DATASETS.build(source.labelled_dataset(str(tmp_path / 'list.txt')))
    (tmp_path / 'names.txt').write_text(
        ''.join(i.split('/')[1] + '\n' for i in ids), encoding='utf-8'
    )
    theirs = VOCDataset(
        ann_file=str(tmp_path / 'names.txt'),
        data_root=str(demo_data),
        data_prefix=dict(sub_data_root='VOCdemo'),
        metainfo=dict(classes=CLASSES),
    )
    assert len(ours) == len(theirs) == 16
    for i in range(16):
        one, two = ours.get_data_info(i), theirs.get_data_info(i)
        assert one['image_id'] == 'VOCdemo/' + two['img_id'] == ids[i]
        assert one['img_id'] == source.img_id(ids[i]) and one['is_labelled']
        assert one['instances'] == two['instances']
        assert (one['width'], one['height']) == (two['width'], two['height'])
        assert os.path.samefile(one['img_path'], two['img_path'])


def test_samples_carry_their_facts(source, joint):
    dataset = JointDataset(**joint)
    assert (dataset.n_labelled, dataset.n_pool, len(dataset)) == (10, 38, 48)
    for index, is_labelled in ((0, True), (9, True), (10, False), (47, False)):
        sample = dataset[(index, 1)]['data_samples']
        assert sample.is_labelled is is_labelled
        assert source.img_id(sample.image_id) == sample.img_id
        assert sample.is_held_out is False
        assert is_labelled or len(sample.gt_instances) == 0
    assert dataset.metainfo['classes'] == CLASSES


def test_a_sample_depends_on_its_seed_only(joint):
    dataset = JointDataset(**joint)
    one = dataset[(3, 77)]
    np.random.seed(5)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    two = dataset[(3, 77)]
    assert torch.equal(one['inputs'], two['inputs'])
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())
    assert not torch.equal(one['inputs'], dataset[(3, 78)]['inputs'])


MOSAIC = [
    dict(type='Mosaic', img_scale=(64, 64)),
    dict(type='RandomAffine', border=(-32, -32)),
    dict(type='PackDetInputs'),
]


def test_mosaic_is_that_of_mmdet_and_depends_on_its_seed_only(joint):
    labelled = joint['labelled']
    theirs = DATASETS.build(
        dict(
            type='mmdet.MultiImageMixDataset',
            dataset={**labelled, 'pipeline': LOAD},
            pipeline=MOSAIC,
        )
    )
    ours = JointDataset({**labelled, 'pipeline': LOAD + MOSAIC})
    for seed in (0, 7):
        with seeded_pipeline(seed):
            two = theirs[4]
        ours[(2, 99)]  # no history
        one = ours[(4, seed)]
        assert torch.equal(one['inputs'], two['inputs'])
        boxes = [sample['data_samples'].gt_instances.bboxes for sample in (one, two)]
        assert torch.equal(boxes[0].tensor, boxes[1].tensor)
    assert not torch.equal(ours[(4, 0)]['inputs'], ours[(4, 1)]['inputs'])


def test_images_are_mixed_with_their_own_kind(source, joint, tmp_path):
    for name in ('labelled', 'pool'):
        pipeline = LOAD + MOSAIC
        pipeline = pipeline if name == 'labelled' else source.pool_pipeline(pipeline)
        joint[name] = {**joint[name], 'pipeline': pipeline}
    both, alone = JointDataset(**joint), JointDataset(joint['labelled'])
    for seed in range(5):
        assert len(both[(10 + seed, seed)]['data_samples'].gt_instances) == 0
        assert torch.equal(both[(3, seed)]['inputs'], alone[(3, seed)]['inputs'])
    # What is held out is in no mosaic but its own.
    first, second, *_ = source.list_images('pool')
    write_image_ids(tmp_path / 'l.txt', [first])
    single = JointDataset(joint['labelled'])
    write_image_ids(tmp_path / 'l.txt', [first, second])
    write_image_ids(tmp_path / 'h.txt', [second])
    held_out = JointDataset(**joint, held_out=str(tmp_path / 'h.txt'))
    for seed in range(5):
        assert torch.equal(single[(0, seed)]['inputs'], held_out[(0, seed)]['inputs'])


def test_pool_images_are_mixed_with_those_that_training_may_see(source, joint):
    for name in ('labelled', 'pool'):
        joint[name] = {**joint[name], 'pipeline': LOAD + MOSAIC}
    joint['pool']['pipeline'] = source.pool_pipeline(LOAD + MOSAIC)
    dataset = JointDataset(**joint)
    stand_in = SimpleNamespace(dataset=dataset, seed=0)
    sampler = JointBatchSampler(stand_in, 2, pool_ratio=0.5)
    partners = set(map(int, dataset.pool.partners))
    assert len(partners) == 5
    # After one batch already, whose mosaics may hold any of them.
    assert sampler.pool_images_seen(1) == partners
    redrawn = JointBatchSampler(stand_in, 2, pool_ratio=0.5, redraw_pool=True)
    assert redrawn.pool_images_seen(1) == set(range(38))


def test_a_dropped_image_is_an_error_not_a_replacement(joint):
    joint['labelled']['pipeline'] = [
        *LOAD,
        dict(type='FilterAnnotations', min_gt_bbox_wh=(999, 999), keep_empty=True),
        *AUGMENT,
    ]
    with pytest.raises(RuntimeError, match=r'dropped image VOCdemo/\d+'):
        JointDataset(**joint)[(2, 0)]


def test_no_annotation_of_the_pool_is_opened(source, joint, monkeypatch):
    opened = []
    real_open, real_io_open = builtins.open, io.open

    def spy(real):
        def wrapper(file, *args, **kwargs):
            opened.append(str(file))
            return real(file, *args, **kwargs)

        return wrapper

    monkeypatch.setattr(builtins, 'open', spy(real_open))
    monkeypatch.setattr(io, 'open', spy(real_io_open))
    dataset = DATASETS.build(joint['pool'])
    for i in range(len(dataset)):
        dataset[i]
    source.list_images('pool')
    assert any(name.endswith('.jpg') for name in opened)
    assert not [name for name in opened if name.endswith('.xml')]


def test_the_pool_asks_for_no_instances(source, joint, monkeypatch):
    def refuse(self, image_id):
        raise AssertionError('an annotation was asked for')

    monkeypatch.setattr(VOCFiles, 'instances', refuse)
    ids = source.list_images('pool')
    assert list(source.image_problems('pool', ids)) == []
    source.open_image(ids[0])
    dataset = DATASETS.build(joint['pool'])
    for i in range(len(dataset)):
        entry = dataset.get_data_info(i)
        assert 'instances' not in entry and entry['is_labelled'] is False
        assert len(dataset[i]['data_samples'].gt_instances) == 0
    with pytest.raises(AssertionError, match='asked for'):
        DATASETS.build(joint['labelled'])


def test_held_out_images_are_told(source, joint, tmp_path):
    ids = source.list_images('pool')
    write_image_ids(tmp_path / 'held_out.txt', [ids[2], ids[7]])
    dataset = JointDataset(**joint, held_out=str(tmp_path / 'held_out.txt'))
    held_out = [
        i for i in range(len(dataset)) if dataset[(i, 0)]['data_samples'].is_held_out
    ]
    assert held_out == [2, 7] and dataset.get_data_info(7)['is_held_out'] is True
    write_image_ids(tmp_path / 'held_out.txt', [ids[20]])
    with pytest.raises(InputError, match=f"labelled image_ids, found .'{ids[20]}'"):
        JointDataset(**joint, held_out=str(tmp_path / 'held_out.txt'))


@pytest.mark.parametrize('name', ['LoadAnnotations', 'mmdet.LoadAnnotations'])
def test_pipelines_of_unlabelled_images(source, name):
    load = dict(type=name, with_bbox=True, with_mask=True, box_type=None)
    pipeline = [
        LOAD[0],
        dict(type='RandomApply', transforms=[load, AUGMENT[3]], prob=0.5),
        dict(type='TestTimeAug', transforms=[[AUGMENT[2]], [load], [AUGMENT[5]]]),
    ]
    empty = dict(
        type=name.replace('LoadA', 'LoadEmptyA'), with_bbox=True, with_mask=True
    )
    for found, first, second in (
        (source.pool_pipeline(pipeline), [empty], [[empty]]),
        (source.score_pipeline(pipeline), [], []),
    ):
        assert found[0] == LOAD[0]
        assert found[1]['transforms'] == [*first, AUGMENT[3]]
        assert found[2]['transforms'] == [[AUGMENT[2]], *second, [AUGMENT[5]]]
    assert pipeline[1]['transforms'][0] == load, 'the argument is as it was'
    pack = dict(type='PackDetInputs', meta_keys=('img_id', 'instances'))
    assert source.score_pipeline([pack])[0]['meta_keys'] == ['img_id']
    assert source.pool_pipeline(None) == source.score_pipeline([]) == []


def test_a_test_pipeline_of_mmdet_scores_the_pool(source, tmp_path):
    # mmdet's VOC and COCO configs load annotations to evaluate.
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
    pipeline = [
        LOAD[0],
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        LOAD[1],
        dict(type='PackDetInputs', meta_keys=keys),
    ]
    ids = source.list_images('pool')
    write_image_ids(tmp_path / 'u.txt', ids)
    cfg = source.pool_dataset(str(tmp_path / 'u.txt'))
    dataset = DATASETS.build(
        dict(cfg, pipeline=source.score_pipeline(pipeline), test_mode=True)
    )
    sample = dataset[3]['data_samples']
    assert sample.img_id == source.img_id(ids[3]) and 'instances' not in sample
    assert len(sample.gt_instances) == 0


def test_numbers_of_images_differ(source):
    ids = source.list_images('pool') + source.list_images('test')
    numbers = {source.img_id(image_id) for image_id in ids}
    assert len(numbers) == len(ids) and max(numbers) < 2**53
    assert source.img_id('VOC2007/000004') == 4082951320575644, 'the same for ever'


def spoil(data, image_id, old, new):
    part, name = image_id.split('/')
    path = data / part / 'Annotations' / f'{name}.xml'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('<xmin>', '<xmin>-', 'leaves its image of 160 x 1.. pixels.*bad_boxes'),
        ('<xmax>', '<xmax>9', 'leaves its image'),
        ('<xmax>', '<xmax>0.', 'has no area'),
        ('<name>', '<name>x', r"\(test image\): class 'x.*is unknown"),
        ('<xmin>', '<xmin>1e999', 'is not a VOC annotation'),
        ('</object>', '', 'is not a VOC annotation'),
    ],
)
def test_bad_annotations_of_voc(copied_data, old, new, message):
    source = VOCFiles(
        str(copied_data), ['VOCdemo/trainval'], ['VOCdemo/test'], classes=CLASSES
    )
    ids = source.list_images('test')
    assert list(source.annotation_problems(ids, 'test')) == []
    spoil(copied_data, ids[3], old, new)
    (problem,) = source.annotation_problems(ids, 'test')
    assert re.search(message, problem) and ids[3].split('/')[1] in problem
    source.bad_boxes = 'drop'
    if 'box (' in problem:
        whole = source.instances(ids[3])
        assert list(source.annotation_problems(ids, 'test')) == []
        assert len(source.usable_instances(ids[3])) == len(whole) - 1
        counts = source.count_labels([ids[3]])['boxes']
        assert sum(counts.values()) == len(whole) - 1


@pytest.mark.parametrize(
    'written, is_good',
    [
        ((1, 1, 10, 10), True),
        ((0, 0, 10, 10), True),  # tools that count from 0
        ((1, 1, 11, 10), False),
        ((-1, 1, 5, 5), False),
        ((5, 1, 5, 5), False),
    ],
)
def test_boxes_that_voc_tolerates(source, written, is_good):
    box = Instance('ball', tuple(value - 1 for value in written), False, written)
    assert (source.box_problem(box, (10, 10)) is None) == is_good


def test_rotated_photos_have_the_size_they_are_loaded_with(tmp_path):
    image = Image.new('RGB', (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    assert image_size(str(tmp_path / 'a.jpg')) == (10, 20)


def test_every_problem_is_told_and_the_first_raised(copied_data):
    source = VOCFiles(
        str(copied_data), ['VOCdemo/trainval'], ['VOCdemo/test'], classes=CLASSES
    )
    ids = source.list_images('test')
    for image_id in ids[:3]:
        (copied_data / f'{image_id.replace("/", "/Annotations/")}.xml').unlink()
    problems = list(source.annotation_problems(ids, 'test'))
    assert len(problems) == 3 and all('does not exist' in text for text in problems)
    with pytest.raises(InputError, match=f'{ids[0].split("/")[1]}.xml does not exist'):
        raise_first(source.annotation_problems(ids, 'test'))
    assert raise_first(source.annotation_problems(ids[3:], 'test')) is None


def test_unusable_images_are_counted(copied_data):
    source = VOCFiles(str(copied_data), ['VOCdemo/trainval'], ['VOCdemo/test'])
    ids = source.list_images('pool')
    paths = [Path(source.image_path(image_id)) for image_id in ids]
    paths[0].unlink()
    paths[1].write_bytes(b'')
    for path in paths[2:7]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (problem,) = source.image_problems('pool', ids)
    lines = problem.splitlines()
    assert '7 of 48 images of the pool set' in lines[0]
    assert lines[1] == f'  {paths[0]} does not exist'
    assert lines[2] == f'  {paths[1]} is empty'
    assert lines[3].startswith(f'  {paths[2]} cannot be read as an image')
    assert lines[6] == '  and 2 more' and 'Put whole files in their place' in lines[7]
    with pytest.raises(InputError, match='does not exist. Put the whole file there'):
        source.image_size(ids[0])
    with pytest.raises(InputError, match='is empty. Put the whole file there'):
        source.image_size(ids[1])


def test_lists_for_mmdets_own_data_set(source, tmp_path):
    ids = source.list_images('pool')
    source.write_annotation_lists(tmp_path, {'labelled': ids[:5], 'pool': ids[5:]})
    names = (tmp_path / 'labelled_VOCdemo.txt').read_text().split()
    assert names == [image_id.split('/')[1] for image_id in ids[:5]]
    assert len((tmp_path / 'pool_VOCdemo.txt').read_text().split()) == 43


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(bad_boxes='fix'), "must be 'error' or 'drop', got 'fix'"),
        (dict(classes='ball'), r"classes must be a list, e.g. \['ball'\]"),
        (dict(classes=('ball', 'ball')), 'classes must name .* each once'),
        (dict(pool_sets='VOCdemo/trainval'), 'pool_sets must be a list'),
        (dict(pool_sets=['VOCdemo/x']), 'Main/x.txt does not exist: data_source names'),
        (dict(data_root='/nowhere'), '/nowhere does not exist.*make_demo_data'),
    ],
)
def test_bad_settings_of_a_source(source, settings, message):
    with pytest.raises(InputError, match=message):
        build_own(IMAGE_SOURCES, {**source.settings(), **settings}).list_images('pool')


@pytest.mark.parametrize(
    'evaluator, keys, message',
    [
        (dict(type='VOCMetric'), ('img_id',), None),
        (dict(type='CocoMetric'), ('img_id', 'instances'), None),
        (dict(type='mmdet.CocoMetric'), ('img_id',), "add 'instances' to meta_keys"),
        (dict(type='CocoMetric', ann_file='x.json'), (), 'images of VOCFiles have'),
    ],
)
def test_evaluators_that_cannot_see_the_boxes(source, evaluator, keys, message):
    pack = dict(type='PackDetInputs', meta_keys=keys)
    cfg = Config(
        dict(
            val_evaluator=[evaluator],
            val_dataloader=dict(dataset=dict(pipeline=[pack])),
        )
    )
    problems = list(source.config_problems(cfg, uses_pool=True))
    assert len(problems) == (message is not None)
    assert not problems or message in problems[0]


def test_pool_needs_no_annotations_to_exist(copied_data, tmp_path):
    shutil.rmtree(copied_data / 'VOCdemo' / 'Annotations')
    source = VOCFiles(str(copied_data), ['VOCdemo/trainval'], ['VOCdemo/test'])
    write_image_ids(tmp_path / 'u.txt', source.list_images('pool'))
    cfg = source.pool_dataset(str(tmp_path / 'u.txt'))
    pipeline = source.pool_pipeline(LOAD + AUGMENT)
    dataset = DATASETS.build(dict(cfg, pipeline=pipeline))
    assert len(dataset) == 48 and dataset[0]['inputs'].shape == (3, 64, 64)


def test_filtering_the_labelled_set_is_refused(source):
    with pytest.raises(InputError, match='silently leave out'):
        DetImageSet('l.txt', source.settings(), filter_cfg=dict(filter_empty_gt=True))


def test_crop_window_does_not_depend_on_boxes():
    from mmdet.structures.bbox import HorizontalBoxes

    image = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
    crop = BoxBlindRandomCrop(min_crop_size=0.4, prob=1.0)
    for seed in range(30):
        np.random.seed(seed)
        without = crop.transform(dict(img=image))
        np.random.seed(seed)
        boxes = torch.tensor([[1.0, 1, 20, 20], [30, 20, 70, 55], [78, 58, 80, 60]])
        results = crop.transform(
            dict(
                img=image,
                gt_bboxes=HorizontalBoxes(boxes),
                gt_bboxes_labels=np.array([0, 1, 2]),
                gt_ignore_flags=np.array([False, True, False]),
            )
        )
        assert np.array_equal(without['img'], results['img'])
        kept = results['gt_bboxes']
        height, width = results['img_shape']
        assert len(kept) == len(results['gt_bboxes_labels'])
        assert len(kept) == len(results['gt_ignore_flags'])
        assert (kept.tensor >= 0).all() and (kept.tensor[:, 2] <= width).all()
        assert (kept.tensor[:, 3] <= height).all() and (kept.areas > 0).all()


def test_ids_cannot_leave_the_data_root():
    assert image_path('root', '{parent}/J/{name}.jpg', 'A/b') == 'root/A/J/b.jpg'
    assert image_path('root', '{parent}/J/{name}.jpg', 'b') == 'root/J/b.jpg'
    for bad in ('../x', 'A/../../x', '/etc/x'):
        with pytest.raises(InputError, match='leads out of the data root'):
            image_path('root', '{image_id}', bad)


@pytest.mark.parametrize(
    'text, message',
    [('a\n\nb\n', 'line 2'), ('a\nb\na\n', 'line 1 and again in line 3')],
)
def test_bad_list_files_name_the_line(tmp_path, text, message):
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(InputError, match=message):
        read_image_ids(tmp_path / 'list.txt')
