"""Sweeps: what a sweep file may say, its trials as processes, the table."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, TINY, load_tool
from filelock import FileLock
from mmengine.config import Config
from PIL import Image

from tjls_mm.active.comparison import mean_rows, variant_table, write_variants
from tjls_mm.active.stage_config import find_configs, plan_batches
from tjls_mm.errors import InputError

SWEEPS = sorted((ROOT / 'configs' / 'sweeps').glob('*.py'))
TJLS = str(ROOT / 'configs' / 'vgg16_cifar100_tjls.py')
JLS = str(ROOT / 'configs' / 'vgg16_cifar100_jls.py')


@pytest.fixture(scope='module')
def tool():
    return load_tool('al_sweep')


def write_sweep(path: Path, trials: dict, **rest) -> Path:
    content = {'trials': trials, **rest}
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in content.items()))
    return path


def trial(config: str = TJLS, **options) -> dict:
    return dict(config=config, options=options)


@pytest.mark.parametrize(
    'content, expected',
    [
        (dict(trials={}), 'at least one trial'),
        (dict(trials={'a/b': trial()}), r"'a/b'.*a name is letters"),
        (dict(trials={'..': trial()}), 'a name is letters'),
        (dict(trials={'-a': trial()}), 'a name is letters'),
        (dict(trials={'': trial()}), 'a name is letters'),
        (dict(trials=dict(a=trial()), jobs=2), "'jobs' is unknown. Known: title, se"),
        (dict(trials=dict(a=dict(options={}))), 'expected dict'),
        (dict(trials=dict(a=dict(config=TJLS, seed=1))), "'seed' is unknown"),
        (dict(trials=dict(a=trial('nowhere.py'))), 'nowhere.py does not exist'),
        (dict(trials=dict(a=trial()), seeds=[]), 'different integers'),
        (dict(trials=dict(a=trial()), seeds=[0, 0]), 'different integers'),
        (dict(trials=dict(a=trial()), seeds=[-1]), 'different integers'),
        (dict(trials=dict(a=trial()), seeds=[0.5]), 'different integers'),
    ],
)
def test_a_wrong_sweep_file_is_refused(tool, tmp_path, content, expected):
    path = write_sweep(tmp_path / 'sweep.py', **content)
    with pytest.raises(InputError, match=expected):
        tool.read_sweep(path)


@pytest.mark.parametrize(
    'config, option, value, expected',
    [
        (TJLS, 'train_dataloader.batchsize', 16, "did you mean 'batch_size'"),
        (TJLS, 'active_learning.joint.pool_ration', 2.0, "did you mean 'pool_ratio'"),
        (TJLS, 'auto_scale_lr.batch_size', 16, "did you mean 'base_batch_size'"),
        (TJLS, 'auto_scale_lr', dict(batch_size=16), "did you mean 'base_batch_size'"),
        (TJLS, 'model.hed.bottleneck.depth', 2, "no model.hed; did you mean 'head'"),
        (TJLS, 'batch_size', 16, 'the config has no batch_size'),
        (TJLS, 'param_scheduler.1.gamma', 0.1, 'param_scheduler is a list of 1'),
        (TJLS, 'train_cfg.max_epochs.x', 1, 'max_epochs is 200 and holds no settings'),
        (JLS, 'model.head.bottleneck.depth', 2, 'bottleneck is None and holds no'),
        (TJLS, 'param_scheduler.0', 3, 'do not fit'),
        (TJLS, 'randomness.seed', 3, 'seeds says'),
    ],
)
def test_an_option_that_the_config_cannot_take_is_refused(
    tool, tmp_path, config, option, value, expected
):
    trials = dict(a=trial(config, **{option: value}))
    path = write_sweep(tmp_path / 'sweep.py', trials)
    with pytest.raises(InputError, match=expected):
        tool.read_sweep(path)
    plain = write_sweep(tmp_path / 'plain.py', dict(a=trial(config), b=trial(config)))
    with pytest.raises(InputError, match=f"trial 'a', 'b': .*{expected}"):
        tool.read_sweep(plain, cfg_options={option: value})


def test_all_problems_are_named_before_anything_runs(tool, tmp_path, capsys):
    trials = dict(
        good=trial(),
        typo=trial(**{'train_dataloader.batchsize': 16, 'batch_size': 16}),
        gone=trial('nowhere.py'),
    )
    path = write_sweep(tmp_path / 'sweep.py', trials, seeds=[-1])
    work_dir = tmp_path / 'work'
    assert tool.main([str(path), '--work-dir', str(work_dir)]) == 1
    error = capsys.readouterr().err
    assert error.startswith('ERROR')
    for part in ("'typo'", 'batchsize', 'no batch_size', 'nowhere.py', '[-1]'):
        assert part in error
    assert not work_dir.exists()
    assert tool.main([str(tmp_path / 'none.py')]) == 1
    path.write_text('trials = dict(')
    assert tool.main([str(path)]) == 1
    assert 'cannot be read' in capsys.readouterr().err


def test_options_of_any_type_reach_the_trial(tool, tmp_path):
    options = {
        'model.head.bottleneck.depth': 2,  # an argument left at its default
        'model.head.discriminator.hidden_features': (256, 128),
        'default_hooks.checkpoint.interval': 100,  # beside interval_s
        'param_scheduler.0.milestones': [80, 160],
        'param_scheduler.0.gamma': 1e-5,
        'model.head.loss': dict(type='CrossEntropyLoss', class_weight=[1.0, 2.5]),
        'randomness.deterministic': True,
        'data_source.data_root': "it's a \\path",
        'val_evaluator': dict(_delete_=True, type='Accuracy', topk=(1, 5)),
        'active_learning.budget': [2500, 5000],
    }
    trials = dict(a=trial(**options), b=trial(JLS))
    path = write_sweep(tmp_path / 'sweep.py', trials)
    on_top = {'active_learning.budget': 0.1, 'train_dataloader.batch_size': 64}
    sweep = tool.read_sweep(path, cfg_options=on_top)
    tool.write_configs(sweep.variants, tmp_path / 'work')
    a, b = (Config.fromfile(tmp_path / 'work' / f'{name}.py') for name in 'ab')
    assert a.to_dict() == sweep.variants[0].cfg.to_dict()
    assert a.model.head.bottleneck.depth == 2 and b.model.head.bottleneck is None
    assert a.model.head.discriminator.hidden_features == (256, 128)
    assert b.model.head.discriminator.hidden_features == (512,)
    assert a.param_scheduler[0].milestones == [80, 160]
    assert a.param_scheduler[0].gamma == 1e-5 and b.param_scheduler[0].gamma == 0.1
    assert a.model.head.loss.class_weight == [1.0, 2.5]
    assert a.randomness.deterministic is True
    assert a.data_source.data_root == "it's a \\path"
    assert a.val_evaluator == dict(type='Accuracy', topk=(1, 5))
    for cfg in (a, b):
        assert cfg.active_learning.budget == 0.1
        assert cfg.train_dataloader.batch_size == 64


def test_a_value_that_no_config_file_can_hold_is_refused(tool, tmp_path, capsys):
    path = tmp_path / 'sweep.py'
    options = "{'train_cfg.max_epochs': float('inf')}"
    path.write_text(f'trials = dict(a=dict(config={TJLS!r}, options={options}))\n')
    work_dir = tmp_path / 'work'
    for arguments in ([], ['--dry-run']):
        assert tool.main([str(path), '--work-dir', str(work_dir), *arguments]) == 1
        assert "'a': its config cannot be written" in capsys.readouterr().err
    assert not list(work_dir.glob('*.py')) and not list(work_dir.glob('*.log'))


@pytest.mark.parametrize('path', SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_passes_its_checks(tool, path, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    assert tool.main([str(path), '--work-dir', str(work_dir), '--dry-run']) == 0
    sweep = tool.read_sweep(path)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 * len(sweep.variants)
    assert not work_dir.exists()
    assert sweep.seeds == (0, 1, 2)
    plans = {v.name: v.cfg.active_learning for v in sweep.variants}
    (control,) = (name for name in plans if 'random' in name)
    assert plans[control].query.type == 'random'
    for plan in plans.values():
        for key in ('initial', 'budget', 'stages'):
            assert plan[key] == plans[control][key]


def test_sweeps_hold_the_values_of_the_papers_tables(tool):
    def read(name):
        sweep = tool.read_sweep(ROOT / 'configs' / 'sweeps' / f'{name}.py')
        return {variant.name: variant.cfg for variant in sweep.variants}

    def kind(cfg):
        bottlenecks = find_configs(cfg.model, 'bottleneck')
        return bottlenecks[0].type if bottlenecks else None

    table3 = read('table3')
    assert {name: kind(cfg) for name, cfg in table3.items()} == {
        'jls': None,
        'gcn': 'tjls_mm.BatchGCN',
        'tjls': 'tjls_mm.BatchTransformer',
        'random': None,
    }
    for name, cfg in table3.items():
        plan = cfg.active_learning
        assert (plan.initial, plan.budget, plan.stages) == (0.1, 0.05, 7)
        assert cfg.model.backbone.type == 'VGG'
        assert cfg.data_source.dataset == 'CIFAR100'
        assert plan.joint.pool_ratio == (1.0 if name == 'random' else 1.5)

    def is_four_stages(cfg):
        plan = cfg.active_learning
        return (plan.initial, plan.budget, plan.stages) == (0.1, 0.1, 4)

    batches = read('table4_batch')
    sizes = [cfg.train_dataloader.batch_size for cfg in batches.values()]
    assert sizes == [16, 32, 64, 128, 128]
    for name, cfg in batches.items():
        assert cfg.model.backbone.depth == 18
        size = cfg.train_dataloader.batch_size
        assert cfg.auto_scale_lr.base_batch_size == size
        assert name.endswith(f'-batch{size}')
        labelled = size if 'random' in name else size // 2
        assert plan_batches(cfg, 1).labelled == labelled
        assert plan_batches(cfg, 2).per_process == size // 2
        assert is_four_stages(cfg)

    transformers = read('table4_transformer')
    random = transformers.pop('random')
    assert is_four_stages(random)
    found = []
    for name, cfg in transformers.items():
        b = cfg.model.head.bottleneck
        found.append((b.depth, b.heads, b.hidden))
        assert name == f'depth{b.depth}-heads{b.heads}-units{b.hidden}'
        assert cfg.model.backbone.type == 'VGG'
        assert is_four_stages(cfg)
    assert found == [(1, 1, 128), (1, 1, 512), (1, 2, 128), (2, 1, 128)]

    for name in ('small_fashionmnist', 'small_cifar10jpeg'):
        small = read(name)
        assert list(small) == ['tjls', 'jls', 'gcn', 'random']
        assert {plan_batches(cfg, 1).labelled for cfg in small.values()} == {64}


def rows(*values: float) -> list[dict]:
    return [
        {'stage': k, 'n_labelled': 10 + 10 * k, 'accuracy/top1': value}
        for k, value in enumerate(values)
    ]


def test_the_table_says_where_seeds_are_missing(tmp_path):
    trials = {
        ('tjls', 0): rows(10, 30),
        ('tjls', 1): rows(20, 50),
        ('tjls', 2): rows(30),
        ('random', 0): rows(5),
    }
    means = {**mean_rows(trials, incomplete=True), 'jls': []}
    assert variant_table(means, 3) == [
        ['labelled', '10', '20'],
        ['tjls', '20.0000 ± 10.0000', '40.0000 ± 14.1421 (2 of 3 seeds)'],
        ['random', '5.0000 (1 of 3 seeds)', ''],
        ['jls', '', ''],
    ]
    write_variants(tmp_path, 'A title', means, [0, 1, 2])
    text = (tmp_path / 'table.md').read_text()
    assert text.startswith('# A title\n') and 'accuracy/top1' in text
    assert '| tjls | 20.0000 ± 10.0000 | 40.0000 ± 14.1421 (2 of 3 seeds) |' in text
    with open(tmp_path / 'table.csv', newline='') as file:
        table = {row['labelled']: row for row in csv.DictReader(file)}
    assert list(table) == ['tjls', 'random', 'jls']
    assert float(table['tjls']['20']) == 40 and table['tjls']['20 seeds'] == '2'
    assert float(table['tjls']['20 std']) == pytest.approx(200**0.5)
    assert table['jls']['10'] == ''
    assert Image.open(tmp_path / 'curves.png').format == 'PNG'
    # Whole trials alone, as tools/al_compare.py shows them.
    assert len(mean_rows(trials)['tjls']) == 1


STAND_IN = """
import json, os, sys, time
from pathlib import Path
from filelock import FileLock
from mmengine.config import Config
from tjls_mm.active.manifest import flatten_config

_, config, _, folder, _, seed = sys.argv
cfg, folder, seed = Config.fromfile(config), Path(folder), int(seed)
folder.mkdir(exist_ok=True)
with FileLock(folder / '.lock', timeout=0):
    (folder / 'pid').write_text(str(os.getpid()))
    time.sleep(float(os.environ.get('STAND_IN_SECONDS', 0)))
    if seed == cfg.model.fails_with:
        print('some words')
        print('ERROR: as asked', file=sys.stderr)
        sys.exit(1)
    stages = range(cfg.active_learning.stages)
    rows = [
        {'stage': k, 'n_labelled': 10 + 10 * k, 'mAP': cfg.model.value + seed + k}
        for k in stages
    ]
    summary = {'name': folder.name, 'seed': seed, 'stages': rows}
    (folder / 'summary.json').write_text(json.dumps(summary))
    state = {
        'config': flatten_config(cfg),
        'seed': seed,
        'stages': [{'status': 'complete'} for _ in stages],
    }
    (folder / 'al_state.json').write_text(json.dumps(state))
"""
"""Leaves what a sweep reads of a trial, in no time."""


@pytest.fixture
def stand_in(tool, tmp_path, monkeypatch) -> Path:
    """A sweep file of two variants whose trials take no time."""
    script = tmp_path / 'stand_in.py'
    script.write_text(STAND_IN)
    monkeypatch.setattr(tool, 'AL_TRAIN', script)
    (tmp_path / 'base.py').write_text(
        'active_learning = dict(stages=2)\nmodel = dict(value=1.0, fails_with=None)\n'
    )
    trials = dict(
        plain=dict(config='base.py'),
        other=trial('base.py', **{'model.value': 5.0, 'model.fails_with': 1}),
    )
    return write_sweep(tmp_path / 'sweep.py', trials, seeds=[0, 1], title='Stand-ins')


def test_trials_at_once_and_a_failure_among_them(tool, stand_in, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    command = [str(stand_in), '--work-dir', str(work_dir), '--jobs', '2']
    assert tool.main(command) == 1
    out = capsys.readouterr().out
    assert out.count(': started at') == 4 and out.count(': finished in') == 3
    assert '[4/4] other seed 1: FAILED' in out and '1 of 4 trials failed' in out
    assert 'exit code 1' in out and 'ERROR: as asked' in out
    log = work_dir / 'other_seed1.log'
    assert str(log) in out and 'some words' in log.read_text()
    table = (work_dir / 'table.md').read_text()
    assert '| plain | 1.5000 ± 0.7071 | 2.5000 ± 0.7071 |' in table
    assert '| other | 5.0000 (1 of 2 seeds) | 6.0000 (1 of 2 seeds) |' in table

    # Only what failed runs again.
    assert tool.main(command) == 1
    out = capsys.readouterr().out
    assert out.count('complete already') == 3 and out.count(': started at') == 1
    assert log.read_text().count('some words') == 2

    # A part of the trials; the table still has all of them.
    assert tool.main([*command, '--only', 'plain', '--seeds', '0', '1', '2']) == 0
    assert capsys.readouterr().out.count(': started at') == 1
    table = (work_dir / 'table.md').read_text()
    assert '| plain | 2.0000 ± 1.0000 |' in table
    assert '| other | 5.0000 (1 of 3 seeds) |' in table
    assert tool.main([*command, '--only', 'plane']) == 1
    assert 'Known: plain, other' in capsys.readouterr().err
    assert tool.main([*command, '--jobs', '0']) == 1


def test_results_of_another_config_are_not_in_the_table(tool, stand_in, tmp_path):
    work_dir = tmp_path / 'work'
    sweep = tool.read_sweep(stand_in, [0])
    tool.run_sweep(sweep, work_dir)
    assert all(tool.read_means(sweep, work_dir).values())
    changed = tool.read_sweep(stand_in, [0], {'model.value': 2.0})
    assert not any(tool.read_means(changed, work_dir).values())
    states = [t.describe() for t in tool.plan_trials(changed, work_dir)]
    assert all('another config' in state for state in states)


def test_one_sweep_per_work_dir(tool, stand_in, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    with FileLock(work_dir / '.lock'):
        assert tool.main([str(stand_in), '--work-dir', str(work_dir)]) == 1
    assert 'Another sweep is running' in capsys.readouterr().err
    assert [path.name for path in work_dir.iterdir()] == ['.lock']


def start_sweep(tmp_path: Path, sweep: Path, seconds: int) -> subprocess.Popen:
    """A sweep of stand-ins as a process; returns when its first trial runs."""
    driver = tmp_path / 'driver.py'
    driver.write_text(
        'import sys\n'
        f'sys.path[:0] = [{str(ROOT / "tools")!r}]\n'
        'import al_sweep\n'
        f'al_sweep.AL_TRAIN = {str(tmp_path / "stand_in.py")!r}\n'
        'sys.exit(al_sweep.main())\n'
    )
    command = [sys.executable, str(driver), str(sweep)]
    command += ['--work-dir', str(tmp_path / 'work'), '--only', 'plain']
    env = {**os.environ, 'STAND_IN_SECONDS': str(seconds)}
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background, Ctrl-C is ignored and inherited so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid = tmp_path / 'work' / 'plain_seed0' / 'pid'
    deadline = time.time() + 60
    while not (pid.exists() and pid.read_text()) and time.time() < deadline:
        time.sleep(0.02)
    return process


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_sweep_stops_its_trials(tool, stand_in, tmp_path, number):
    process = start_sweep(tmp_path, stand_in, seconds=600)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert 'The same command continues' in out and 'Traceback' not in out
    pid = int((tmp_path / 'work' / 'plain_seed0' / 'pid').read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (tmp_path / 'work' / 'plain_seed1').exists()
    sweep = tool.read_sweep(stand_in)
    results = tool.run_sweep(sweep, tmp_path / 'work', only=['plain'])
    assert [result.failure for result in results] == [None, None]


def test_trials_that_a_killed_sweep_left_running_are_waited_for(
    tool, stand_in, tmp_path, capsys
):
    process = start_sweep(tmp_path, stand_in, seconds=3)
    process.kill()
    process.communicate()
    sweep = tool.read_sweep(stand_in, [0])
    (result,) = tool.run_sweep(sweep, tmp_path / 'work', only=['plain'])
    out = capsys.readouterr().out
    assert 'another process is running it, waiting' in out
    assert 'complete already' in out and result.failure is None


@pytest.mark.slow
def test_a_sweep_from_beginning_to_end(tool, demo_data, tmp_path, capsys):
    tiny = {**TINY, 'data_source.data_root': str(demo_data), 'train_cfg.max_epochs': 1}
    tjls, random = (str(ROOT / 'configs' / f'demo_{n}.py') for n in ('tjls', 'random'))
    trials = dict(
        tjls=trial(tjls, **{**tiny, 'active_learning.stages': 1}),
        random=trial(random, **tiny),
    )
    path = write_sweep(tmp_path / 'sweep.py', trials, title='Tiny')
    work_dir = tmp_path / 'work'
    command = [str(path), '--work-dir', str(work_dir)]
    assert tool.main(command) == 0
    out = capsys.readouterr().out
    assert '[1/2] tjls seed 0: finished' in out
    assert '[2/2] random seed 0: finished' in out

    def read_table():
        with open(work_dir / 'table.csv', newline='') as file:
            return {row['labelled']: row for row in csv.DictReader(file)}

    table = read_table()
    assert list(table) == ['tjls', 'random'] and table['tjls']['14'] == ''
    for name, counts in {'tjls': ['8'], 'random': ['8', '14']}.items():
        summary = json.loads((work_dir / f'{name}_seed0' / 'summary.json').read_text())
        assert [str(row['n_labelled']) for row in summary['stages']] == counts
        for row in summary['stages']:
            cell = table[name][str(row['n_labelled'])]
            assert float(cell) == row['pascal_voc/mAP']
    assert Image.open(work_dir / 'curves.png').format == 'PNG'

    def times():
        files = [*work_dir.glob('*_seed0/**/*'), *work_dir.glob('*.py')]
        return {p: p.stat().st_mtime_ns for p in files if p.name != '.lock'}

    before = times()
    assert tool.main(command) == 0
    out = capsys.readouterr().out
    assert out.count('complete already') == 2 and 'started' not in out
    assert times() == before and read_table() == table

    trials['random']['options']['active_learning.budget'] = 5
    write_sweep(path, trials, title='Tiny')
    assert tool.main(command) == 1
    out = capsys.readouterr().out
    assert 'complete already' in out and '1 of 2 trials failed' in out
    assert 'active_learning.budget: 6 before, 5 now' in out
    assert list(read_table()['random'].values()) == ['random', '', '', '']
