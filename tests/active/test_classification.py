"""Whole trials of classifiers: the same loop, files and promises as for detectors."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    CLASSES,
    draw_class_image,
    make_classifier_config,
    read_logits,
)
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from PIL import Image
from sklearn.metrics import roc_auc_score

from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import ImageFolders
from tjls_mm.engine import StageTrainLoop
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.models import find_joint_learner
from tjls_mm.registry import DATASETS, MODELS

SCOPE = 'mmpretrain'
METHODS = ('tjls', 'jls', 'gcn', 'random')


def results(work_dir: Path) -> dict:
    """What a repeated run must reproduce: records, lists, scores and weights."""
    found = {}
    for folder in sorted(work_dir.glob('stage_*')):
        record = json.loads((folder / 'metrics.json').read_text())
        record.pop('seconds')
        paths = [*folder.glob('*.txt'), folder / 'selection.csv']
        texts = {path.name: path.read_text() for path in paths}
        found[folder.name] = record, texts
    return found


def weights(work_dir: Path, stage: int) -> dict:
    path = work_dir / f'stage_{stage:02d}' / 'model.pth'
    return torch.load(path, weights_only=True)['state_dict']


def assert_same(one: Path, two: Path) -> None:
    assert results(one) == results(two)
    for stage in range(2):
        a, b = weights(one, stage), weights(two, stage)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope='module')
def reference(class_folders, tmp_path_factory):
    """One whole trial of every method."""
    root = tmp_path_factory.mktemp('trials')
    for method in METHODS:
        run_stages(make_classifier_config(class_folders, root / method, method))
    return root


@pytest.mark.parametrize('method', METHODS)
def test_files_of_a_trial(method, reference):
    work_dir = reference / method
    first, second = work_dir / 'stage_00', work_dir / 'stage_01'
    labelled = read_image_ids(first / 'labelled.txt')
    pool = read_image_ids(first / 'pool.txt')
    selected = read_image_ids(first / 'selected.txt')
    assert len(labelled) == 16 and len(pool) == 64 and len(selected) == 8
    assert set(selected) <= set(pool) and not set(labelled) & set(pool)
    assert read_image_ids(second / 'labelled.txt') == sorted(labelled + selected)
    record = json.loads((first / 'metrics.json').read_text())
    assert 0 <= record['metrics']['accuracy/top1'] <= 100
    assert sum(record['labelled_images'].values()) == 16
    assert sum(record['picks']['images'].values()) == 8
    assert 'n_boxes' not in record
    lines = (first / 'labelled_annotations.txt').read_text().splitlines()
    assert lines == [f'{i} {CLASSES.index(i.split("/")[1])}' for i in labelled]
    assert (first / 'selected.png').read_bytes().startswith(b'\x89PNG')
    header = (work_dir / 'curve.csv').read_text().splitlines()[0]
    assert header.startswith('stage,n_labelled,accuracy/top1,train_s')
    header = (first / 'selection.csv').read_text().splitlines()[0]
    assert ('logit' in header) == (method != 'random')
    if method != 'random':
        logits = read_logits(first)
        assert sorted(logits) == pool
        assert selected == sorted(logits, key=logits.get)[:8]


def test_all_methods_start_from_the_same_images(reference):
    starts = {(reference / m / 'stage_00/labelled.txt').read_text() for m in METHODS}
    assert len(starts) == 1


@pytest.mark.parametrize('method', ['tjls', 'gcn'])
def test_same_seed_same_everything(method, reference, class_folders, tmp_path):
    run_stages(make_classifier_config(class_folders, tmp_path / 'again', method))
    assert_same(reference / method, tmp_path / 'again')


class Killed(BaseException):
    """Stands for a kill that no handler catches."""


@pytest.mark.parametrize('method', ['tjls', 'gcn'])  # gcn draws in every iteration
def test_stopped_and_started_again_equals_not_stopped(
    method, reference, class_folders, tmp_path, monkeypatch
):
    def config():
        hook = dict(type='tjls_mm.StageCheckpointHook', interval=2, _delete_=True)
        options = {'default_hooks.checkpoint': hook}
        work_dir = tmp_path / 'work'
        return make_classifier_config(class_folders, work_dir, method, **options)

    real = StageTrainLoop.run_iter

    def run_iter(self, batch):
        if self.stage == 1 and self._iter == 5:
            raise Killed
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainLoop, 'run_iter', run_iter)
        with pytest.raises(Killed):
            run_stages(config())
    assert list((tmp_path / 'work' / 'stage_01').glob('iter_4.pth'))
    run_stages(config())
    assert_same(reference / method, tmp_path / 'work')


def test_stage_config_runs_under_mmpretrains_own_runner(reference):
    cfg = Config.fromfile(reference / 'tjls' / 'stage_00' / 'config.py')
    cfg.load_from = str(reference / 'tjls' / 'stage_00' / 'model.pth')
    metrics = Runner.from_cfg(cfg).test()
    record = json.loads((reference / 'tjls' / 'stage_00/metrics.json').read_text())
    assert metrics['accuracy/top1'] == record['metrics']['accuracy/top1']


def test_pipelines_of_mmpretrain_in_place_of_decoded_data(class_folders, tmp_path):
    cfg = make_classifier_config(class_folders, tmp_path / 'work')
    load = dict(type='LoadImageFromFile')
    train = [
        load,
        dict(type='RandomCrop', crop_size=16, padding=2),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='PackInputs'),
    ]
    cfg.train_dataloader.dataset = dict(pipeline=train)
    meta_keys = ('img_id', 'img_path')
    test = dict(pipeline=[load, dict(type='PackInputs', meta_keys=meta_keys)])
    cfg.val_dataloader.dataset = test
    cfg.data_preprocessor.augmentation = None
    cfg.data_preprocessor.to_rgb = True
    cfg.active_learning.stages = 1
    run_stages(cfg)
    assert len(read_logits(tmp_path / 'work' / 'stage_00')) == 64


# ------------------------------------------------------------------ labels of the pool


@MMPRETRAIN_DATASETS.register_module()
class DrawnCIFAR10(CIFAR10):
    """CIFAR10's format with drawn images and no hashes."""

    train_list = [['data_batch_1', None]]
    test_list = [['test_batch', None]]
    METAINFO = {'classes': CLASSES}


def write_cifar(root: Path, labels: dict[str, np.ndarray]) -> None:
    folder = root / DrawnCIFAR10.base_folder
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (('train', 'data_batch_1'), ('test', 'test_batch')):
        true = np.arange(len(labels[split])) % 4
        images = [draw_class_image(CLASSES[c], i, 32) for i, c in enumerate(true)]
        data = np.stack(images).transpose(0, 3, 1, 2).reshape(len(images), -1)
        content = {'data': data, 'labels': labels[split].tolist()}
        (folder / name).write_bytes(pickle.dumps(content))


def binary_config(root: Path, work_dir: Path, **options):
    cfg = make_classifier_config(root, work_dir, **options)
    cfg.data_source = dict(
        type='tjls_mm.BinaryImages',
        dataset='mmpretrain.DrawnCIFAR10',
        data_root=str(root),
    )
    cfg.data_preprocessor.augmentation.crop_size = 32
    return cfg


def test_permuted_labels_of_the_pool_change_nothing(tmp_path):
    # One file holds images and labels, so every label is read with the images.
    true = {'train': np.arange(60) % 4, 'test': np.arange(12) % 4}
    write_cifar(tmp_path / 'data', true)
    run_stages(binary_config(tmp_path / 'data', tmp_path / 'true'))
    labelled = read_image_ids(tmp_path / 'true' / 'stage_01' / 'labelled.txt')
    assert labelled[0].startswith('train/000')
    kept = {int(i.split('/')[1]) for i in labelled}
    others = np.array([i for i in range(60) if i not in kept])
    permuted = true['train'].copy()
    permuted[others] = np.random.default_rng(0).permutation(permuted[others] + 1) % 4
    assert (permuted != true['train']).sum() > 10
    write_cifar(tmp_path / 'poisoned', {**true, 'train': permuted})
    run_stages(binary_config(tmp_path / 'poisoned', tmp_path / 'other'))
    assert_same(tmp_path / 'true', tmp_path / 'other')


def test_labels_of_the_pool_are_not_asked_for(class_folders, tmp_path, monkeypatch):
    asked = set()
    real = ImageFolders.label

    def label(self, image_id):
        asked.add(image_id)
        return real(self, image_id)

    monkeypatch.setattr(ImageFolders, 'label', label)
    run_stages(make_classifier_config(class_folders, tmp_path / 'work'))
    labelled = read_image_ids(tmp_path / 'work' / 'stage_01' / 'labelled.txt')
    assert {i for i in asked if i.startswith('train/')} == set(labelled)


def test_class_folders_of_the_pool_may_lie(class_folders, reference, tmp_path):
    """Poison: after stage 0, pool images that are never selected change class."""
    data = Path(shutil.copytree(class_folders, tmp_path / 'data'))
    lists = data / 'lists'
    lists.mkdir()
    source = ImageFolders(str(data), ['train'], ['test'])
    kept = set(read_image_ids(reference / 'tjls' / 'stage_01' / 'labelled.txt'))
    for split in ('pool', 'test'):
        lines = [
            f'{i} {source.label(i) if split == "test" or i in kept else 0}\n'
            for i in source.list_images(split)
        ]
        (lists / f'{split}.txt').write_text(''.join(lines))
    cfg = make_classifier_config(data, tmp_path / 'work')
    cfg.data_source = dict(
        type='tjls_mm.ImageLists',
        data_root=str(data),
        pool_files=['lists/pool.txt'],
        test_files=['lists/test.txt'],
        classes=CLASSES,
    )
    run_stages(cfg)
    assert_same(reference / 'tjls', tmp_path / 'work')


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model.head.num_classes': 7}, r'model.head.num_classes=4'),
        ({'data_source.channels': 1}, 'takes images of 3 channels.*has 1'),
        ({'model.backbone.in_channels': 1}, 'data_source.channels=1'),
        ({'method.branches.discriminator': None}, 'method.branches'),
        ({'active_learning.initial': 'real/'}, "begins with 'real/'"),
        ({'data_source.pool_dirs': ['test']}, 'nothing may be chosen by test images'),
        ({'data_source.classes': CLASSES[:3]}, "'plain' is no class"),
        (
            {'data_source.type': 'tjls_mm.Folders'},
            "'tjls_mm.Folders' is unknown. Known",
        ),
        ({'data_preprocessor.mean': [1.0, 2.0]}, 'mean has 2 values for images of 3'),
        (
            {'data_preprocessor': dict(_delete_=True, type='ClsDataPreprocessor')},
            'JointClsDataPreprocessor',
        ),
        (
            {'train_dataloader.dataset.scale': (8, 8)},
            'val_dataloader.dataset has .*set them alike',
        ),
        ({'train_dataloader.batch_size': 48}, 'context bank needs 95 images'),
        ({'param_scheduler.0.total_steps': 1}, 'OneCycleLR ends after 2 iterations'),
    ],
)
def test_bad_settings_get_one_clear_error(options, message, class_folders, tmp_path):
    cfg = make_classifier_config(class_folders, tmp_path / 'work')
    cfg.merge_from_dict(options)
    with pytest.raises(InputError, match=message):
        run_stages(cfg)
    assert not (tmp_path / 'work').exists(), 'nothing is written'


def test_another_preprocessor_on_an_old_work_dir_is_refused(reference, class_folders):
    options = {'data_preprocessor.augmentation.padding': 3}
    cfg = make_classifier_config(class_folders, reference / 'jls', 'jls', **options)
    with pytest.raises(InputError, match='augmentation.padding'):
        run_stages(cfg)


@pytest.mark.parametrize(
    'options',
    [
        {'method.update': 'alternate'},
        {'method.composition': 'pure'},
        {'optim_wrapper.accumulative_counts': 2},
    ],
)
def test_a_cycle_lasts_as_long_as_training(options, class_folders, tmp_path):
    # 19 labelled images make half an update too many.
    cfg = make_classifier_config(
        class_folders,
        tmp_path / 'work',
        'jls',
        **{
            'active_learning.initial': 19,
            'active_learning.stages': 1,
            'train_cfg.max_epochs': 1,
            'param_scheduler.0.total_steps': 1,
            **options,
        },
    )
    run_stages(cfg)
    assert (tmp_path / 'work' / 'summary.json').exists()


def test_the_auc_is_that_of_held_out_images_against_unseen_ones(
    class_folders, tmp_path
):
    cfg = make_classifier_config(class_folders, tmp_path / 'work', 'jls')
    cfg.active_learning.stages = 1
    cfg.method.holdout = 0.25
    run_stages(cfg)
    folder = tmp_path / 'work' / 'stage_00'
    stage = Config.fromfile(folder / 'config.py')
    model = MODELS.build({**stage.model, 'data_preprocessor': stage.data_preprocessor})
    model.load_state_dict(weights(tmp_path / 'work', 0))
    held_out = read_image_ids(folder / 'held_out.txt')
    assert len(held_out) == 4
    dataset = DATASETS.build(
        {**stage.score_dataloader.dataset, 'ann_file': str(folder / 'held_out.txt')}
    )
    head = find_joint_learner(model.eval())
    batch = {'inputs': [dataset[i]['inputs'] for i in range(4)], 'data_samples': None}
    with torch.no_grad():
        feats = model.extract_feat(model.data_preprocessor(batch)['inputs'])
        inputs = head.branch_inputs(feats, head.pre_logits(feats))
        positive = head.branch_outputs(inputs)['logit'].numpy()
    seen = set(read_image_ids(folder / 'pool_trained_on.txt'))
    unseen = [x for i, x in read_logits(folder).items() if i not in seen]
    truth = np.repeat([1, 0], [4, len(unseen)])
    expected = roc_auc_score(truth, np.concatenate([positive, unseen]))
    report = json.loads((folder / 'metrics.json').read_text())['discriminator']
    assert report['auc'] == pytest.approx(expected, abs=0.01)
    assert (report['n_held_out'], report['n_unseen']) == (4, len(unseen))


def test_unreadable_image_is_named_before_training(class_folders, tmp_path):
    data = Path(shutil.copytree(class_folders, tmp_path / 'data'))
    path = data / 'train' / 'discs' / '0007.png'
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match='discs/0007.png cannot be read'):
        run_stages(make_classifier_config(data, tmp_path / 'work'))


def test_start_from_images_whose_ids_begin_alike(class_folders, tmp_path):
    data = Path(shutil.copytree(class_folders, tmp_path / 'data'))
    (data / 'train').rename(data / 'synthetic')
    for name in CLASSES:
        (data / 'real' / name).mkdir(parents=True)
        for i in range(4):
            image = Image.open(data / 'synthetic' / name / f'{i:04d}.png')
            image.save(data / 'real' / name / f'{i:04d}.png')
    cfg = make_classifier_config(data, tmp_path / 'work', 'jls')
    cfg.data_source.pool_dirs = ['real', 'synthetic']
    cfg.active_learning.initial = 'real/'
    run_stages(cfg)
    labelled = read_image_ids(tmp_path / 'work' / 'stage_00' / 'labelled.txt')
    assert len(labelled) == 16 and all(i.startswith('real/') for i in labelled)
    selected = read_image_ids(tmp_path / 'work' / 'stage_00' / 'selected.txt')
    assert all(i.startswith('synthetic/') for i in selected)
    assert len(read_image_ids(tmp_path / 'work/stage_00/pool.txt')) == 80
