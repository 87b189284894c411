"""Classifiers on several processes: together they are one experiment."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_classifier_config, read_logits

from tjls_mm.image_ids import read_image_ids

SCOPE = 'mmpretrain'
pytestmark = pytest.mark.slow


def config_without_batch_norm(data: Path, folder: Path, bottleneck: dict) -> Path:
    """A trial whose only link between images is the bottleneck."""
    cfg = make_classifier_config(
        data,
        folder / 'work',
        **{
            'active_learning.stages': 1,
            'data_source.channels': 1,
            'auto_scale_lr.base_batch_size': 8,
            'data_preprocessor.augmentation.crop_size': 32,
            'data_preprocessor.mean': [120.0],
            'data_preprocessor.std': [60.0],
            'model.head.in_channels': 120,
        },
    )
    cfg.model.backbone = dict(type='LeNet5')  # for 32 x 32 grey pixels
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.scale = (32, 32)
    cfg.method.bottleneck = bottleneck
    folder.mkdir()
    cfg.dump(folder / 'trial.py')
    return folder / 'trial.py'


def run(config: Path, work_dir: Path, processes: int) -> None:
    tool = [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'al_train.py')]
    command = [*tool, str(config)]
    if processes > 1:
        script = str(ROOT / 'tools' / 'dist_train.sh')
        command = ['bash', script, str(config), str(processes)]
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        port = str(server.getsockname()[1])
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, 'PORT': port}
    command += ['--work-dir', str(work_dir)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize('bottleneck', ['BatchTransformer', 'BatchGCN'])
def test_two_processes_train_what_one_does(bottleneck, class_folders, tmp_path):
    settings = dict(type=f'tjls_mm.{bottleneck}')
    if bottleneck == 'BatchGCN':
        settings['dropout'] = 0.0
    config = config_without_batch_norm(class_folders, tmp_path / 'config', settings)
    for processes in (1, 2):
        run(config, tmp_path / str(processes), processes)
    one, two = (
        torch.load(tmp_path / n / 'stage_00' / 'model.pth', weights_only=True)
        for n in '12'
    )
    start = (one['meta']['iter'], two['meta']['iter'])
    assert start == (4, 4), 'batches of 8 labelled images, twice 16 of them'
    for name, value in one['state_dict'].items():
        torch.testing.assert_close(
            two['state_dict'][name], value, atol=2e-5, rtol=1e-3, msg=name
        )
    folders = [tmp_path / n / 'stage_00' for n in '12']
    a, b = (read_logits(folder) for folder in folders)
    assert sorted(a) == sorted(b) == read_image_ids(folders[0] / 'pool.txt')
    assert max(abs(a[i] - b[i]) for i in a) < 1e-4
