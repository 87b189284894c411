"""Whole trials: files, resume, leaks, refusals."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, command_line, config_path, make_config

from tjls_mm.active import stage as stage_module
from tjls_mm.active.bank import draw_bank
from tjls_mm.active.stage import Stage
from tjls_mm.active.trial import Trial, run_stages
from tjls_mm.engine import StageTrainLoop
from tjls_mm.errors import InputError, TrainingDiverged
from tjls_mm.image_ids import read_image_ids


class Killed(BaseException):
    """Stands for a kill that no handler catches."""


def results(work_dir: Path) -> dict:
    """Everything of a trial that a repeated run must reproduce."""
    found = {}
    for folder in sorted(work_dir.glob('stage_[0-9][0-9]')):
        record = json.loads((folder / 'metrics.json').read_text())
        record.pop('seconds')
        found[folder.name] = dict(
            record=record,
            **{
                path.name: path.read_text()
                for pattern in ('*.txt', '*.csv', 'annotations.json')
                for path in folder.glob(pattern)
            },
        )
    return found


def weights(work_dir: Path, stage: int = 0) -> dict:
    path = work_dir / f'stage_{stage:02d}' / 'model.pth'
    return torch.load(path, weights_only=True)['state_dict']


def assert_same(one: Path, two: Path) -> None:
    assert results(one) == results(two)
    for stage in range(2):
        a, b = weights(one, stage), weights(two, stage)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope='module')
def reference(demo_data, tmp_path_factory):
    """One whole trial of TJLS that others are compared with."""
    work_dir = tmp_path_factory.mktemp('reference') / 'work'
    run_stages(make_config(demo_data, work_dir))
    return work_dir


@pytest.fixture
def config(demo_data, tmp_path):
    """Function that makes a trial config which runs in seconds."""

    def make(data=None, work_dir=None, **kwargs):
        return make_config(data or demo_data, work_dir or tmp_path / 'work', **kwargs)

    return make


def test_files_of_a_trial(reference):
    labelled, pool = None, None
    everything = None
    for k in range(2):
        folder = reference / f'stage_{k:02d}'
        if labelled is not None:
            selected = read_image_ids(reference / 'stage_00' / 'selected.txt')
            assert set(selected) <= set(pool) and len(selected) == 6
            expected = sorted([*labelled, *selected])
            assert read_image_ids(folder / 'labelled.txt') == expected
        labelled = read_image_ids(folder / 'labelled.txt')
        pool = read_image_ids(folder / 'pool.txt')
        assert not set(labelled) & set(pool)
        assert everything in (None, set(labelled) | set(pool))
        everything = set(labelled) | set(pool)
        for name in ('labelled', 'pool'):
            names = (folder / f'{name}_VOCdemo.txt').read_text().split()
            ids = read_image_ids(folder / f'{name}.txt')
            assert [f'VOCdemo/{n}' for n in names] == ids
        record = json.loads((folder / 'metrics.json').read_text())
        assert record['n_labelled'] == len(labelled)
        assert record['n_boxes'] == sum(record['labelled_boxes'].values())
        assert {'train', 'evaluate', 'gather'} <= record['seconds'].keys()
        assert record['seconds']['train'] > 0
        assert record['training']['labelled_exposures'] == 2 * len(labelled) + (
            -2 * len(labelled) % 4
        )
        assert 'pascal_voc/mAP' in record['metrics']
        scores = (folder / 'selection.csv').read_text().splitlines()
        assert scores[0].startswith('image_id,rank,logit')
        assert sorted(line.split(',')[0] for line in scores[1:]) == pool
        assert not (folder / 'outputs').exists()
    assert len(everything) == 48
    assert not (reference / 'stage_01' / 'selected.txt').exists()
    picks = json.loads((reference / 'stage_00' / 'metrics.json').read_text())['picks']
    assert picks['count'] == 6 and 0 <= picks['trained_on_share'] <= 1
    state = json.loads((reference / 'al_state.json').read_text())
    assert [s['status'] for s in state['stages']] == ['complete', 'complete']
    summary = json.loads((reference / 'summary.json').read_text())
    assert [row['n_labelled'] for row in summary['stages']] == [8, 14]
    assert (reference / 'curve.png').read_bytes().startswith(b'\x89PNG')
    header = (reference / 'curve.csv').read_text().splitlines()[0]
    assert header.startswith('stage,n_labelled,n_boxes,pascal_voc/mAP,train_s')


def test_lowest_scores_are_selected(reference):
    lines = (reference / 'stage_00' / 'selection.csv').read_text().splitlines()[1:]
    rows = [line.split(',') for line in lines]
    logits = {i: float(x) for i, _, x, *_ in rows}
    for _, _, logit, probability in rows:
        assert float(probability) == pytest.approx(1 / (1 + math.exp(-float(logit))))
    selected = read_image_ids(reference / 'stage_00' / 'selected.txt')
    assert selected == sorted(logits, key=logits.get)[:6] == [*logits][:6]
    assert [rank for _, rank, *_ in rows[:7]] == [*'123456', '']


def test_same_seed_same_everything_and_other_seed_other_start(
    reference, config, tmp_path
):
    run_stages(config())
    assert_same(reference, tmp_path / 'work')
    other = config(work_dir=tmp_path / 'other', **{'randomness.seed': 1})
    other.active_learning.stages = 1
    run_stages(other)
    first = Path('stage_00') / 'labelled.txt'
    assert (tmp_path / 'other' / first).read_text() != (reference / first).read_text()


def test_finished_trial_does_nothing(reference, config, capsys):
    before = {p: p.stat().st_mtime_ns for p in reference.rglob('*.txt')}
    models = [(reference / f'stage_0{k}/model.pth').stat().st_mtime_ns for k in (0, 1)]
    run_stages(config(work_dir=reference))
    assert 'nothing to do' in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in reference.rglob('*.txt')}
    assert models == [
        (reference / f'stage_0{k}/model.pth').stat().st_mtime_ns for k in (0, 1)
    ]


def checkpoint_every(count: int) -> dict:
    hook = dict(type='tjls_mm.StageCheckpointHook', interval=count, _delete_=True)
    return {'default_hooks.checkpoint': hook}


def kill_at(monkeypatch, point: str) -> None:
    """Arrange that the first trial dies at a point, once."""
    armed = [True]

    def once(condition=True):
        if armed[0] and condition:
            armed[0] = False
            raise Killed

    def before(owner, name):
        real = getattr(owner, name)

        def wrapper(*args, **kwargs):
            once()
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapper)

    def after(owner, name):
        real = getattr(owner, name)

        def wrapper(*args, **kwargs):
            result = real(*args, **kwargs)
            once()
            return result

        monkeypatch.setattr(owner, name, wrapper)

    if point == 'in training':
        real = StageTrainLoop.run_iter

        def run_iter(self, batch):
            once(self.stage == 1 and self._iter == 4)
            return real(self, batch)

        monkeypatch.setattr(StageTrainLoop, 'run_iter', run_iter)
    elif point == 'in evaluation':
        from mmdet.evaluation import VOCMetric

        before(VOCMetric, 'compute_metrics')
    elif point == 'in scoring':
        from tjls_mm.engine import gather_stage

        before(gather_stage, 'check_finite')
    elif point == 'before selection':
        before(Stage, '_select')
    elif point == 'after selection':
        after(Stage, '_select')
    elif point == 'after completion':
        after(Trial, '_complete')
    elif point == 'in lists':
        after(stage_module, 'write_image_ids')


@pytest.mark.parametrize(
    'point',
    [
        'in training',
        'in evaluation',
        'in scoring',
        'before selection',
        'after selection',
        'after completion',
        'in lists',
    ],
)
def test_stopped_and_started_again_equals_not_stopped(
    point, reference, config, tmp_path, monkeypatch
):
    options = checkpoint_every(3)
    with monkeypatch.context() as patch:
        kill_at(patch, point)
        with pytest.raises(Killed):
            run_stages(config(**options))
    run_stages(config(**options))
    assert_same(reference, tmp_path / 'work')
    left = [p.name for p in (tmp_path / 'work').rglob('iter_*.pth')]
    assert not left, 'states of training are removed'


def test_alternating_updates_resume_in_the_middle_of_a_batch(
    config, tmp_path, monkeypatch
):
    options = {
        **checkpoint_every(3),
        'method.update': 'alternate',
    }
    run_stages(config(work_dir=tmp_path / 'whole', **options))
    with monkeypatch.context() as patch:
        kill_at(patch, 'in training')
        with pytest.raises(Killed):
            run_stages(config(**options))
    run_stages(config(**options))
    assert_same(tmp_path / 'whole', tmp_path / 'work')


def test_killed_for_real_from_the_command_line(reference, demo_data, tmp_path):
    work_dir = tmp_path / 'work'
    command = [
        sys.executable,
        '-W',
        'ignore',
        str(ROOT / 'tools' / 'al_train.py'),
        str(config_path('demo_tjls')),
        '--work-dir',
        str(work_dir),
        '--cfg-options',
        *command_line(
            demo_data,
            **{
                'default_hooks.checkpoint.type': 'tjls_mm.StageCheckpointHook',
                'default_hooks.checkpoint.interval': 1,
            },
        ),
    ]
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not list(work_dir.glob('stage_*/iter_*.pth')) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (work_dir / 'summary.json').exists()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'stage 2/2' in done.stdout and 'curve.png' in done.stdout
    assert_same(reference, work_dir)


def test_poisoned_or_missing_pool_annotations_change_nothing(
    reference, config, copied_data, tmp_path
):
    pool = read_image_ids(reference / 'stage_00' / 'pool.txt')
    selected = set(read_image_ids(reference / 'stage_00' / 'selected.txt'))
    for i, image_id in enumerate(pool):
        if image_id in selected:
            continue  # opened once selected
        path = copied_data / 'VOCdemo' / 'Annotations' / f'{image_id.split("/")[1]}.xml'
        if i % 2:
            path.unlink()
        else:
            path.write_text('<annotation><object><name>poison</name></object>')
    run_stages(config(data=copied_data))
    assert_same(reference, tmp_path / 'work')


def test_bad_annotation_of_a_selected_image_stops_then_and_continues(
    reference, config, copied_data, tmp_path
):
    selected = read_image_ids(reference / 'stage_00' / 'selected.txt')
    name = f'{selected[2].split("/")[1]}.xml'
    path = copied_data / 'VOCdemo' / 'Annotations' / name
    good = path.read_text()
    path.write_text(good.replace('<name>', '<name>not a '))
    with pytest.raises(InputError, match=f'stage_00: .*{name}.*is unknown'):
        run_stages(config(data=copied_data))
    path.write_text(good)
    run_stages(config(data=copied_data))
    assert_same(reference, tmp_path / 'work')


def test_random_trains_plain_ssd_and_scores_nothing(config, reference, tmp_path):
    run_stages(config(name='demo_random'))
    folder = tmp_path / 'work' / 'stage_00'
    header = (folder / 'selection.csv').read_text().splitlines()[0]
    assert header == 'image_id,rank'
    assert not (folder / 'outputs').exists()
    assert not any('discriminator' in key for key in weights(tmp_path / 'work'))
    same_start = (reference / 'stage_00' / 'labelled.txt').read_text()
    assert (folder / 'labelled.txt').read_text() == same_start
    record = json.loads((folder / 'metrics.json').read_text())
    assert record['training']['labelled_exposures'] == 16
    assert record['training']['image_passes'] == 16


def test_full_uses_all_labels_in_one_stage(config, tmp_path):
    run_stages(
        config(
            name='demo_full',
            **{
                'active_learning.initial': 1.0,
                'active_learning.stages': 1,
                'train_cfg.max_epochs': 1,
                'param_scheduler.0.total_steps': 1,
            },
        )
    )
    folder = tmp_path / 'work' / 'stage_00'
    assert len(read_image_ids(folder / 'labelled.txt')) == 48
    assert (folder / 'pool.txt').read_text() == ''


@pytest.mark.parametrize('name', ['channels', 'pure', 'jls'])
def test_other_variants_run(name, config, tmp_path):
    options = {
        'channels': {'method.bottleneck.tokens': 'channels'},
        'pure': {
            'method.composition': 'pure',
            'method.update': 'alternate',
        },
        'jls': {'method.bottleneck': None},
    }[name]
    run_stages(config(**options))
    assert len(results(tmp_path / 'work')) == 2


def test_other_config_or_seed_on_a_work_dir_is_refused(reference, config):
    before = (reference / 'al_state.json').read_bytes()
    changed = config(work_dir=reference, **{'optim_wrapper.optimizer.lr': 0.5})
    with pytest.raises(InputError, match=r'optimizer\.lr: 0\.\d+ before, 0\.5 now'):
        run_stages(changed)
    with pytest.raises(InputError, match='seed: 0 before, 3 now'):
        run_stages(config(work_dir=reference, **{'randomness.seed': 3}))
    workers = config(work_dir=reference, **{'train_dataloader.num_workers': 2})
    run_stages(workers)
    assert (reference / 'al_state.json').read_bytes() == before


def test_moved_data_continues(reference, config, copied_data):
    run_stages(config(work_dir=reference, data=copied_data))


def spoiled(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / 'copy'))


def test_spoiled_list_file_says_which_and_what_can_be_kept(reference, config, tmp_path):
    work_dir = spoiled(reference, tmp_path)
    path = work_dir / 'stage_01' / 'pool.txt'
    path.write_text(path.read_text()[:-10])
    with pytest.raises(InputError, match=r'stage_01/pool.txt was changed.*redo-from 1'):
        run_stages(config(work_dir=work_dir))
    run_stages(config(work_dir=work_dir), redo_from=1)
    assert_same(reference, work_dir)


@pytest.mark.parametrize('stage', [-1, 2, 7])
def test_giving_up_a_stage_that_is_not_there_keeps_all(stage, reference, config):
    before = sorted(reference.rglob('*'))
    with pytest.raises(InputError, match='holds stages 0 to 1'):
        run_stages(config(work_dir=reference), redo_from=stage)
    assert sorted(reference.rglob('*')) == before


def test_killed_while_giving_up_a_stage_does_not_use_it(
    reference, config, tmp_path, monkeypatch
):
    work_dir = spoiled(reference, tmp_path)
    stale = work_dir / 'stage_01' / 'selection.csv'
    cfg = config(work_dir=work_dir)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'rmtree', lambda folder: kill())
        with pytest.raises(Killed):
            run_stages(cfg, redo_from=1)
    stale.write_text('image_id,rank\n')
    run_stages(config(work_dir=work_dir))
    assert_same(reference, work_dir)


def kill():
    raise Killed


def test_another_number_of_processes_in_mid_stage_is_refused(
    config, tmp_path, monkeypatch
):
    options = checkpoint_every(3)
    with monkeypatch.context() as patch:
        kill_at(patch, 'in training')
        with pytest.raises(Killed):
            run_stages(config(**options))
    path = tmp_path / 'work' / 'al_state.json'
    state = json.loads(path.read_text())
    state['stages'][1]['processes'] = [2]
    path.write_text(json.dumps(state))
    with pytest.raises(InputError, match='Stage 1 was begun by 2 processes'):
        run_stages(config(**options))


def test_edited_initial_list_is_refused(reference, config, tmp_path):
    ids = read_image_ids(reference / 'stage_00' / 'labelled.txt')
    pool = read_image_ids(reference / 'stage_00' / 'pool.txt')
    path = tmp_path / 'initial.txt'
    path.write_text(''.join(f'{i}\n' for i in ids))
    options = {'active_learning.initial': str(path), 'active_learning.stages': 1}
    run_stages(config(**options))
    assert torch.equal(
        weights(tmp_path / 'work')['backbone.conv1.weight'],
        weights(reference)['backbone.conv1.weight'],
    )
    path.write_text(''.join(f'{i}\n' for i in [*ids, pool[0]]))
    with pytest.raises(InputError, match='initial: its images have changed'):
        run_stages(config(**options))


def test_corrupt_checkpoint_says_which_and_what_can_be_kept(
    reference, config, tmp_path, monkeypatch
):
    options = checkpoint_every(3)
    with monkeypatch.context() as patch:
        kill_at(patch, 'in training')
        with pytest.raises(Killed):
            run_stages(config(**options))
    path = next((tmp_path / 'work' / 'stage_01').glob('iter_*.pth'))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf'{path.name}.*Stages 0 to 0 are kept'):
        run_stages(config(**options))
    path.unlink()
    run_stages(config(**options))
    assert_same(reference, tmp_path / 'work')


def test_spoiled_manifest_is_refused(reference, config, tmp_path):
    work_dir = spoiled(reference, tmp_path)
    (work_dir / 'al_state.json').write_text('{')
    with pytest.raises(InputError, match='al_state.json cannot be read'):
        run_stages(config(work_dir=work_dir))
    (work_dir / 'al_state.json').unlink()
    with pytest.raises(InputError, match='holds stages but no al_state.json'):
        run_stages(config(work_dir=work_dir))


def test_second_process_on_a_work_dir_is_refused(config, tmp_path):
    from filelock import FileLock

    (tmp_path / 'work').mkdir()
    with FileLock(tmp_path / 'work' / '.lock'):
        with pytest.raises(InputError, match='Another process'):
            run_stages(config())
    assert not (tmp_path / 'work' / 'al_state.json').exists()


def test_nan_loss_stops_and_says_where(config, monkeypatch):
    real = StageTrainLoop.run_iter

    def run_iter(self, batch):
        if self._iter == 2:
            for parameter in self.runner.model.parameters():
                parameter.data.fill_(float('nan'))
                break
        return real(self, batch)

    monkeypatch.setattr(StageTrainLoop, 'run_iter', run_iter)
    with pytest.raises(TrainingDiverged, match='loss of stage 0 .* iteration 3 of 4'):
        run_stages(config())


def test_nan_scores_stop(config, monkeypatch):
    from tjls_mm.models import DiscriminatorHead

    real = DiscriminatorHead.outputs

    def outputs(self, inputs):
        return {k: v * float('nan') for k, v in real(self, inputs).items()}

    monkeypatch.setattr(DiscriminatorHead, 'outputs', outputs)
    with pytest.raises(TrainingDiverged, match='not finite'):
        run_stages(config())


def test_weights_load_safely_and_hold_the_bank(reference):
    state = weights(reference)
    assert state['bottleneck.banks.0.inputs'].shape[0] == 7
    bank = read_image_ids(reference / 'stage_00' / 'bank.txt')
    labelled = set(read_image_ids(reference / 'stage_00' / 'labelled.txt'))
    assert [i in labelled for i in bank] == [True] * 4 + [False] * 3


def test_bank_is_drawn_by_seed_and_fills_up():
    labelled, pool = [f'l{i}' for i in range(9)], [f'u{i}' for i in range(9)]
    bank = draw_bank(labelled, pool, 7, 0, 0)
    assert (
        bank == draw_bank(labelled, pool, 7, 0, 0) != draw_bank(labelled, pool, 7, 0, 1)
    )
    assert sum(i[0] == 'l' for i in bank) == 4
    assert sum(i[0] == 'l' for i in draw_bank(labelled, pool[:1], 7, 0, 0)) == 6
    assert sum(i[0] == 'l' for i in draw_bank(labelled[:2], pool, 7, 0, 0)) == 2
    with pytest.raises(InputError, match='needs 40 images'):
        draw_bank(labelled, pool, 40, 0, 0)


def test_standalone_config_runs_with_mmdets_own_tools(reference, tmp_path):
    import mmdet

    tools = Path(mmdet.__file__).parent / '.mim' / 'tools'
    config = reference / 'stage_01' / 'config.py'
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-m',
            'tjls_mm',
            str(tools / 'test.py'),
            str(config),
            str(reference / 'stage_01' / 'model.pth'),
            '--work-dir',
            str(tmp_path),
        ],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((reference / 'stage_01' / 'metrics.json').read_text())
    value = record['metrics']['pascal_voc/mAP']
    assert f'pascal_voc/mAP: {value:.4f}' in done.stdout + done.stderr


def test_training_a_stage_again_gives_its_weights_elsewhere(reference, config):
    from mmengine.config import Config
    from mmengine.runner import Runner

    before = weights(reference)
    cfg = Config.fromfile(reference / 'stage_00' / 'config.py')
    assert Path(cfg.work_dir) == reference / 'stage_00' / 'rerun'
    Runner.from_cfg(cfg).train()
    again = torch.load(Path(cfg.work_dir) / 'model.pth', weights_only=True)
    assert all(torch.equal(before[k], v) for k, v in again['state_dict'].items())
    shutil.rmtree(cfg.work_dir)


def test_users_random_numbers_do_not_matter(reference, config, tmp_path):
    random.seed(99)
    torch.manual_seed(99)
    cfg = config()
    cfg.active_learning.stages = 1
    run_stages(cfg)
    assert torch.equal(
        weights(tmp_path / 'work')['backbone.conv1.weight'],
        weights(reference)['backbone.conv1.weight'],
    )
