"""Data sets, and that no annotation of the pool is opened."""

import builtins
import io
import os
import shutil

import numpy as np
import pytest
import torch
from mmdet.datasets import VOCDataset

from tjls_mm.datasets import BoxBlindRandomCrop, JointDataset, VOCFiles, VOCImageSet
from tjls_mm.errors import InputError
from tjls_mm.image_ids import image_path, read_image_ids, write_image_ids
from tjls_mm.registry import DATASETS

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
EMPTY = [LOAD[0], dict(type='LoadEmptyAnnotations', with_bbox=True)]


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
        pool=dict(pool, pipeline=EMPTY + AUGMENT),
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
        assert one['img_id'] == 'VOCdemo/' + two['img_id']
        assert one['instances'] == two['instances']
        assert (one['width'], one['height']) == (two['width'], two['height'])
        assert os.path.samefile(one['img_path'], two['img_path'])


def test_samples_carry_their_facts(joint):
    dataset = JointDataset(**joint)
    assert (dataset.n_labelled, dataset.n_pool, len(dataset)) == (10, 38, 48)
    for index, is_labelled in ((0, True), (9, True), (10, False), (47, False)):
        sample = dataset[(index, 1)]['data_samples']
        assert sample.is_labelled is is_labelled
        assert sample.image_id == sample.img_id
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


def test_pool_needs_no_annotations_to_exist(copied_data, tmp_path):
    shutil.rmtree(copied_data / 'VOCdemo' / 'Annotations')
    source = VOCFiles(str(copied_data), ['VOCdemo/trainval'], ['VOCdemo/test'])
    write_image_ids(tmp_path / 'u.txt', source.list_images('pool'))
    cfg = source.pool_dataset(str(tmp_path / 'u.txt'))
    dataset = DATASETS.build(dict(cfg, pipeline=EMPTY + AUGMENT))
    assert len(dataset) == 48 and dataset[0]['inputs'].shape == (3, 64, 64)


def test_filtering_the_labelled_set_is_refused(tmp_path):
    with pytest.raises(InputError, match='silently leave out'):
        VOCImageSet('list.txt', filter_cfg=dict(filter_empty_gt=True))


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
