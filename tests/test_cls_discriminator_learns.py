"""Classification: the discriminator learns what it should and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import (
    config_path,
    draw_class_folders,
    make_classifier_config,
    read_logits,
)
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image
from sklearn.metrics import roc_auc_score

from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import ImageFolders, JointBatchSampler, JointDataset
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models import add_joint_parts
from tjls_mm.randomness import generator
from tjls_mm.registry import MODELS

SCOPE = 'mmpretrain'
pytestmark = pytest.mark.slow
BOTTLENECKS = {
    'jls': None,
    'images': dict(type='tjls_mm.BatchTransformer', tokens='images'),
    'channels': dict(type='tjls_mm.BatchTransformer', tokens='channels', batch_size=16),
    'gcn': dict(type='tjls_mm.BatchGCN'),
}
DECODED = dict(decode_once=True)
LOADED = dict(
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='RandomCrop', crop_size=16, padding=2),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='PackInputs'),
    ]
)
TRAIN_BATCHES, TEST_BATCHES = 120, 120


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> ImageFolders:
    root = draw_class_folders(tmp_path_factory.mktemp('null'), 24, 1)
    return ImageFolders(str(root), ['train'], ['test'])


def joint_data(source, folder, name, image_ids, labelled, pool) -> JointDataset:
    """The same images as labelled and as pool."""
    path = folder / f'{name}.txt'
    write_image_ids(path, image_ids)
    return JointDataset(
        labelled={**source.labelled_dataset(str(path)), **labelled},
        pool={**source.pool_dataset(str(path)), **pool},
    )


def held_out_accuracy(
    source, folder, bottleneck: str, composition: str, labelled=DECODED, pool=DECODED
) -> float:
    """Accuracy of membership that nothing but the pipeline could tell."""
    cfg = Config.fromfile(config_path('small_cifar10jpeg_tjls'))
    preprocessor = cfg.data_preprocessor
    preprocessor.augmentation.crop_size = 16
    preprocessor.augmentation.padding = 2
    if labelled is not DECODED:
        preprocessor.augmentation = None
    cfg.model.backbone.base_channels = 8
    cfg.model.head.in_channels = 64
    cfg.model.head.num_classes = 4
    joint = add_joint_parts(cfg.model, BOTTLENECKS[bottleneck], cfg.method.branches)
    ids = source.list_images('pool')
    order = [ids[i] for i in generator(0, 'null').permutation(len(ids))]
    seen = joint_data(source, folder, 'seen', order[:48], labelled, pool)
    unseen = joint_data(source, folder, 'unseen', order[48:], labelled, pool)
    torch.manual_seed(0)
    model = MODELS.build({**joint, 'data_preprocessor': preprocessor})
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def batches(dataset, seed, count):
        sampler = JointBatchSampler(
            SimpleNamespace(dataset=dataset, seed=seed),
            16 if composition == 'pure' else 8,
            composition,
        )
        for number in range(count):
            samples = [dataset[index] for index in sampler.batch(number)]
            yield model.data_preprocessor(pseudo_collate(samples), True)

    model.train()
    for data in batches(seen, 0, TRAIN_BATCHES):
        loss, _ = model.parse_losses(model.loss(**data))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    hits = []
    with torch.no_grad():
        for data in batches(unseen, 1, TEST_BATCHES):
            feats = model.extract_feat(data['inputs'])
            inputs = model.head.branch_inputs(feats, model.head.pre_logits(feats))
            logit = model.head.branch_outputs(inputs)['logit']
            truth = torch.tensor([s.is_labelled for s in data['data_samples']])
            hits.append((logit > 0) == truth)
    return float(torch.cat(hits).float().mean())


@pytest.mark.parametrize('composition', ['mixed', 'pure'])
@pytest.mark.parametrize('bottleneck', list(BOTTLENECKS))
def test_null_images_of_one_kind_cannot_be_told(
    bottleneck, composition, images, tmp_path
):
    accuracy = held_out_accuracy(images, tmp_path, bottleneck, composition)
    assert abs(accuracy - 0.5) <= 0.05, accuracy


def test_null_through_the_pipelines_of_mmpretrain(images, tmp_path):
    accuracy = held_out_accuracy(images, tmp_path, 'jls', 'mixed', LOADED, LOADED)
    assert abs(accuracy - 0.5) <= 0.05, accuracy


def test_null_test_notices_a_pipeline_that_tells(images, tmp_path):
    plain = dict(pipeline=[t for t in LOADED['pipeline'] if t['type'] != 'RandomCrop'])
    accuracy = held_out_accuracy(images, tmp_path, 'jls', 'mixed', LOADED, plain)
    assert accuracy > 0.6, accuracy


@pytest.fixture(scope='module')
def shifted(tmp_path_factory):
    """Class folders of which half of the first stage's pool is inverted."""
    root = draw_class_folders(tmp_path_factory.mktemp('shifted'), 100, 2)
    ids = ImageFolders(str(root), ['train'], ['test']).list_images('pool')
    order = [ids[i] for i in generator(0, 'shift').permutation(len(ids))]
    for image_id in order[100:250]:
        image = 255 - np.array(Image.open(root / image_id))
        image[..., 0] = 0  # inverted alone, drawn colours look like others
        Image.fromarray(image).save(root / image_id)
    write_image_ids(root / 'initial.txt', order[:100])
    write_image_ids(root / 'shifted.txt', order[100:250])
    return root


@pytest.mark.parametrize('method', ['jls', 'tjls', 'gcn'])
def test_planted_shift_is_ranked_first(method, shifted, tmp_path):
    cfg = make_classifier_config(
        shifted,
        tmp_path / 'work',
        method,
        **{
            'active_learning.initial': str(shifted / 'initial.txt'),
            'active_learning.stages': 1,
            'method.pool_ratio': 3.0,
            'train_dataloader.batch_size': 16,
            'train_cfg.max_epochs': 30,
            'param_scheduler.0.total_steps': 30,
            'param_scheduler.0.eta_max': 2e-3,
        },
    )
    optimizer = dict(type='AdamW', lr=2e-3, weight_decay=0.05)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer)
    run_stages(cfg)
    logits = read_logits(tmp_path / 'work' / 'stage_00')
    of_shifted = set(read_image_ids(shifted / 'shifted.txt'))
    truth = np.array([image_id in of_shifted for image_id in logits])
    assert truth.mean() == 0.5
    auc = roc_auc_score(truth, [-logit for logit in logits.values()])
    assert auc >= 0.8, auc
