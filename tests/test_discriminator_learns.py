"""The discriminator learns what it should and nothing else."""

import copy
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import config_path, load_tool, read_logits
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from sklearn.metrics import roc_auc_score

from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import JointBatchSampler, JointDataset, VOCFiles
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models import add_joint_parts
from tjls_mm.randomness import generator
from tjls_mm.registry import MODELS

pytestmark = pytest.mark.slow
BOTTLENECKS = {
    'jls': None,
    'images': dict(type='tjls_mm.BatchTransformer', tokens='images'),
    'channels': dict(type='tjls_mm.BatchTransformer', tokens='channels', batch_size=16),
}
TRAIN_BATCHES, TEST_BATCHES = 100, 80


def joint_data(source, folder, name, image_ids, pipelines) -> JointDataset:
    """The same images as labelled and as pool."""
    path = folder / f'{name}.txt'
    write_image_ids(path, image_ids)
    labelled, pool = pipelines
    return JointDataset(
        labelled=dict(source.labelled_dataset(str(path)), pipeline=labelled),
        pool=dict(source.pool_dataset(str(path)), pipeline=pool),
    )


def held_out_accuracy(
    demo_data, folder, bottleneck: str, composition: str, spoil=None
) -> float:
    """Accuracy of membership that nothing but the pipeline could tell."""
    cfg = Config.fromfile(config_path('demo_tjls'))
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=(16, 32, 64), out_channels=(16, 32, 64, 64))
    cfg.model.bbox_head.in_channels = (16, 32, 64, 64)
    source = VOCFiles(
        str(demo_data), ['VOCdemo/trainval'], ['VOCdemo/test'], cfg.data_source.classes
    )
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipelines = copy.deepcopy([pipeline, source.pool_pipeline(pipeline)])
    if spoil:
        spoil(pipelines)
    ids = source.list_images('pool')
    seen = joint_data(source, folder, 'seen', ids[:32], pipelines)
    unseen = joint_data(source, folder, 'unseen', ids[32:], pipelines)
    torch.manual_seed(0)
    model = MODELS.build(
        add_joint_parts(
            cfg.model,
            BOTTLENECKS[bottleneck],
            cfg.method.branches,
            cfg.method.vector,
        )
    )
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
        losses = model.loss(data['inputs'], data['data_samples'])
        loss, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
    hits = []
    with torch.no_grad():
        for data in batches(unseen, 1, TEST_BATCHES):
            logit = model.outputs_of(data['inputs'], data['data_samples'])['logit']
            truth = torch.tensor([s.is_labelled for s in data['data_samples']])
            hits.append((logit > 0) == truth)
    return float(torch.cat(hits).float().mean())


@pytest.mark.parametrize('composition', ['mixed', 'pure'])
@pytest.mark.parametrize('bottleneck', ['jls', 'images', 'channels'])
def test_null_images_of_one_kind_cannot_be_told(
    bottleneck, composition, demo_data, tmp_path
):
    accuracy = held_out_accuracy(demo_data, tmp_path, bottleneck, composition)
    assert abs(accuracy - 0.5) <= 0.05, accuracy


def test_null_test_notices_a_pipeline_that_tells(demo_data, tmp_path):
    def spoil(pipelines):
        pipelines[1] = [t for t in pipelines[1] if t['type'] != 'Expand']

    accuracy = held_out_accuracy(demo_data, tmp_path, 'jls', 'mixed', spoil)
    assert accuracy > 0.6, accuracy


@pytest.fixture(scope='module')
def shifted_data(tmp_path_factory):
    """The demo data set; half of the pool of the first stage is inverted."""
    out = tmp_path_factory.mktemp('shifted')
    load_tool('make_demo_data').make_demo_data(out, seed=0, n_pool=400, n_test=8)
    ids = VOCFiles(str(out), ['VOCdemo/trainval'], ['VOCdemo/test']).list_images('pool')
    order = [ids[i] for i in generator(0, 'shift').permutation(len(ids))]
    initial, shifted = order[:60], order[60:230]
    for image_id in shifted:
        path = str(out / 'VOCdemo' / 'JPEGImages' / f'{image_id.split("/")[1]}.jpg')
        cv2.imwrite(path, 255 - cv2.imread(path))
    write_image_ids(out / 'initial.txt', initial)
    write_image_ids(out / 'shifted.txt', shifted)
    return out


@pytest.mark.parametrize('method', ['jls', 'tjls'])
def test_planted_shift_is_ranked_first(method, shifted_data, tmp_path):
    cfg = Config.fromfile(config_path(f'demo_{method}'))
    cfg.work_dir = str(tmp_path / 'work')
    cfg.data_source.data_root = str(shifted_data)
    cfg.active_learning.update(initial=str(shifted_data / 'initial.txt'), stages=1)
    run_stages(cfg)
    logits = read_logits(tmp_path / 'work' / 'stage_00')
    shifted = set(read_image_ids(shifted_data / 'shifted.txt'))
    truth = np.array([image_id in shifted for image_id in logits])
    assert truth.mean() == 0.5
    auc = roc_auc_score(truth, [-logit for logit in logits.values()])
    assert auc >= 0.8, auc
