"""Several processes: scoring, training, and order of the pool."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, command_line, config_path, read_logits
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.outputs import gather_outputs
from tjls_mm.registry import DATASETS, MODELS

pytestmark = pytest.mark.slow

SHORT = {
    'train_cfg.max_epochs': 1,
    'param_scheduler.0.total_steps': 1,
    'auto_scale_lr.base_batch_size': 4,
}


@pytest.fixture(scope='module')
def trained(demo_data, tmp_path_factory):
    """One stage of TJLS, of one process."""
    folder = tmp_path_factory.mktemp('trained')
    run(demo_data, folder / 'work')
    return folder / 'work'


def free_port() -> str:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def run(data: Path, work_dir: Path, processes: int = 0, *more: str) -> str:
    tool = [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'al_train.py')]
    if processes:
        tool = ['bash', str(ROOT / 'tools' / 'dist_train.sh')]
    command = [*tool, str(config_path('demo_tjls'))]
    if processes:
        command.append(str(processes))
    command += [
        '--work-dir',
        str(work_dir),
        '--cfg-options',
        *command_line(data, **SHORT),
        *more,
    ]
    env = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHON': sys.executable,
        'PORT': free_port(),
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def score(
    rank: int, world_size: int, stage_dir: str, list_file: str, out: str, batch: int
) -> None:
    """Score the images of a list with the weights of a stage."""
    from mmengine.config import Config

    torch.set_num_threads(1)
    if world_size > 1:
        store = f'file://{out}.store'
        torch.distributed.init_process_group(
            'gloo', init_method=store, rank=rank, world_size=world_size
        )
    init_default_scope('mmdet')
    cfg = Config.fromfile(f'{stage_dir}/config.py')
    model = MODELS.build(cfg.model)
    load_checkpoint(model, f'{stage_dir}/model.pth', map_location='cpu')
    dataset = DATASETS.build({**cfg.score_dataloader.dataset, 'ann_file': list_file})
    outputs = gather_outputs(
        model,
        dataset,
        Path(f'{out}.outputs'),
        ('logit',),
        batch_size=batch,
        list_file=list_file,
        description='',
    )
    if rank == 0:
        pairs = zip(outputs.image_ids, outputs['logit'], strict=True)
        Path(out).write_text(json.dumps({i: float(x) for i, x in pairs}))
    if world_size > 1:
        torch.distributed.destroy_process_group()


def test_scores_do_not_depend_on_order_or_processes(trained, tmp_path):
    stage = trained / 'stage_00'
    pool = read_image_ids(stage / 'pool.txt')
    write_image_ids(tmp_path / 'reversed.txt', pool[::-1])
    rng = np.random.default_rng(0)
    write_image_ids(tmp_path / 'shuffled.txt', [pool[i] for i in rng.permutation(40)])
    lists = {
        'one': (1, stage / 'pool.txt', 8),
        'two': (2, stage / 'pool.txt', 8),
        'reversed': (1, tmp_path / 'reversed.txt', 8),
        'shuffled': (2, tmp_path / 'shuffled.txt', 8),
        'larger': (1, stage / 'pool.txt', 16),
    }
    scores = {}
    for name, (processes, list_file, batch) in lists.items():
        out = str(tmp_path / f'{name}.json')
        args = (processes, str(stage), str(list_file), out, batch)
        if processes == 1:
            score(0, *args)
        else:
            torch.multiprocessing.spawn(score, args, nprocs=processes)
        scores[name] = json.loads(Path(out).read_text())
        assert scores[name].keys() == set(pool)
    larger = scores.pop('larger')
    assert all(s == scores['one'] for s in scores.values())
    assert max(abs(larger[i] - scores['one'][i]) for i in pool) < 1e-5
    assert {i: np.float32(x) for i, x in read_logits(stage).items()} == {
        i: np.float32(x) for i, x in scores['one'].items()
    }


def test_two_processes_train_share_the_batch_and_repeat(demo_data, trained, tmp_path):
    out = run(demo_data, tmp_path / 'a', 2)
    run(demo_data, tmp_path / 'b', 2)
    assert '2 processes share the batch of 4 labelled and 4 pool images: 4 each' in out
    assert out.count('stage 2/2') == 1, 'one summary line, not one per process'
    for name in ('stage_00/selected.txt', 'stage_01/selection.csv'):
        assert (tmp_path / 'a' / name).read_text() == (
            tmp_path / 'b' / name
        ).read_text()
    weights = [
        torch.load(tmp_path / x / 'stage_01' / 'model.pth', weights_only=True)
        for x in 'ab'
    ]
    first, second = (w['state_dict'] for w in weights)
    assert all(torch.equal(first[k], second[k]) for k in first)
    record = json.loads((tmp_path / 'a' / 'stage_00' / 'metrics.json').read_text())
    alone = json.loads((trained / 'stage_00' / 'metrics.json').read_text())
    assert record['training']['processes'] == 2
    assert record['training']['image_passes'] == alone['training']['image_passes']
    assert first['bottleneck.banks.0.inputs'].shape[0] == 7


def check_weights(rank: int, folder: str) -> None:
    from unittest import mock

    from mmengine.config import Config
    from mmengine.runner import checkpoint

    from tjls_mm.active.checks import weight_problems
    from tjls_mm.active.settings import Settings
    from tjls_mm.errors import raise_first
    from tjls_mm.processes import on_main_process

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    cfg = Config.fromfile(config_path('ssd300_voc_tjls'))

    def check():
        raise_first(weight_problems(cfg, Settings(initial=1, stages=1), cfg.model))

    with mock.patch.object(checkpoint, 'load_url', return_value={}):
        on_main_process(check)
    torch.distributed.destroy_process_group()


def test_pretrained_weights_are_checked_without_waiting_for_each_other(tmp_path):
    torch.multiprocessing.spawn(check_weights, (str(tmp_path),), nprocs=2)


def task_loss(rank: int, folder: str) -> None:
    """Task loss of half a batch, its images with more boxes in one half."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    init_default_scope('mmdet')
    rows = slice(4 * rank, 4 * rank + 4)
    Path(folder, f'{rank}.txt').write_text(repr(half_loss(rows)))
    torch.distributed.destroy_process_group()


def half_loss(rows: slice) -> float:
    sys.path.insert(0, str(ROOT / 'tests' / 'models'))
    from test_joint_ssd import batch, build, losses, total

    data = {key: value[rows] for key, value in batch().items()}
    for sample in data['data_samples'][: rows.start]:
        sample.gt_instances = sample.gt_instances[:0]
    return float(total(losses(build('jls').eval(), data, 'task')).detach())


def test_task_loss_of_two_processes_is_that_of_one(tmp_path):
    torch.multiprocessing.spawn(task_loss, (str(tmp_path),), nprocs=2)
    halves = [float((tmp_path / f'{rank}.txt').read_text()) for rank in range(2)]
    sys.path.insert(0, str(ROOT / 'tests' / 'models'))
    from test_joint_ssd import batch, build, losses, total

    data = batch()
    for sample in data['data_samples'][4:8]:
        sample.gt_instances = sample.gt_instances[:0]
    whole = float(total(losses(build('jls').eval(), data, 'task')).detach())
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-5)


def test_error_reaches_the_user_once_and_no_process_hangs(demo_data, tmp_path):
    command = [
        'bash',
        str(ROOT / 'tools' / 'dist_train.sh'),
        str(config_path('demo_tjls')),
        '2',
        '--work-dir',
        str(tmp_path / 'w'),
        '--cfg-options',
        f'data_source.data_root={tmp_path}/nowhere',
    ]
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': free_port()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count('ERROR: The data root') == 1
    assert not (tmp_path / 'w').exists()
