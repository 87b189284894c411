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
from conftest import ROOT, TINY, config_path, load_tool
from mmengine.config import Config

SWEEPS = sorted((ROOT / 'configs' / 'sweeps').glob('*.py'))
TJLS = str(config_path('vgg16_cifar100_tjls'))
JLS = str(config_path('vgg16_cifar100_jls'))


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
        (dict(trials={}), r'trials must be dict\(NAME='),
        (dict(trials={'a/b': trial()}), "'a/b'.*a name is letters"),
        (dict(trials={'..': trial()}), 'a name is letters'),
        (dict(trials={'-a': trial()}), 'a name is letters'),
        (dict(trials=dict(a=trial()), jobs=2), "'jobs' is unknown"),
        (dict(trials=dict(a=dict(options={}))), 'expected dict'),
        (dict(trials=dict(a=dict(config=TJLS, seed=1))), 'expected dict'),
        (dict(trials=dict(a=dict(config=TJLS, options=[]))), 'expected dict'),
        (dict(trials=dict(a=trial('nowhere.py'))), 'nowhere.py does not exist'),
        (dict(trials=dict(a=trial()), seeds=[]), 'different integers'),
        (dict(trials=dict(a=trial()), seeds=[0, 0]), 'different integers'),
        (dict(trials=dict(a=trial()), seeds=[-1]), 'different integers'),
        (dict(trials=dict(a=trial()), seeds=[[1]]), 'different integers'),
    ],
)
def test_a_wrong_sweep_file_is_refused(tool, tmp_path, capsys, content, expected):
    path = write_sweep(tmp_path / 'sweep.py', **content)
    with pytest.raises(tool.InputError, match=expected):
        tool.read_sweep(path, tmp_path, None, {})


@pytest.mark.parametrize(
    'config, option, value, expected',
    [
        (TJLS, 'train_dataloader.batchsize', 16, "did you mean 'batch_size'"),
        (TJLS, 'method.pool_ration', 2.0, "did you mean 'pool_ratio'"),
        (TJLS, 'auto_scale_lr.batch_size', 16, "did you mean 'base_batch_size'"),
        (TJLS, 'auto_scale_lr', dict(batch_size=16), "did you mean 'base_batch_size'"),
        (TJLS, 'method.bottlenek.depth', 2, "no method.bottlenek; did you mean 'bot"),
        (TJLS, 'method.bottleneck.dept', 2, "bottleneck.dept; did you mean 'depth'"),
        (TJLS, 'batch_size', 16, 'the config has no batch_size'),
        (TJLS, 'param_scheduler.1.gamma', 0.1, 'param_scheduler is a list of 1'),
        (TJLS, 'train_cfg.max_epochs.x', 1, 'max_epochs is 200 and holds no settings'),
        (JLS, 'method.bottleneck.depth', 2, 'the config has no method.bottleneck'),
        (TJLS, 'param_scheduler.0', 3, 'do not fit'),
        (TJLS, 'randomness.seed', 3, 'seeds says'),
        (TJLS, 'active_learning.stages', 'four', 'stages must be 1 or more'),
        (TJLS, 'train_cfg.max_epochs', float('inf'), 'cannot be written as a file'),
    ],
)
def test_an_option_that_the_config_cannot_take_is_refused(
    tool, config, option, value, expected
):
    given = trial(config, **{option: value})
    for own, on_top in ((given, {}), (trial(config), {option: value})):
        with pytest.raises(tool.InputError, match=expected):
            tool.read_variant(Path(), 'a', own, on_top)


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
    path.write_text('trials = dict(')
    assert tool.main([str(path)]) == 1
    assert 'cannot be read' in capsys.readouterr().err


def test_options_of_any_type_reach_the_trial(tool):
    options = {
        'method.bottleneck.dropout': 0.2,  # an argument left at its default
        'method.holdout': 0.1,  # a setting left at its default
        'method.branches.discriminator.hidden_features': (256, 128),
        'param_scheduler.0.milestones': [80, 160],
        'param_scheduler.0.gamma': 1e-5,
        'model.head.loss': dict(type='CrossEntropyLoss', class_weight=[1.0, 2.5]),
        'randomness.deterministic': True,
        'data_source.data_root': "it's a \\path",
        'val_evaluator': dict(_delete_=True, type='Accuracy', topk=(1, 5)),
        'active_learning.budget': [2500, 5000],
    }
    on_top = {'active_learning.budget': 0.1, 'train_dataloader.batch_size': 32}
    merged = tool.read_variant(Path(), 'a', trial(**options), on_top)
    cfg = Config.fromstring(tool.config_text(merged), '.py')
    assert cfg.to_dict() == merged.to_dict()
    assert cfg.method.bottleneck.dropout == 0.2 and cfg.method.holdout == 0.1
    assert cfg.method.branches.discriminator.hidden_features == (256, 128)
    assert cfg.param_scheduler[0].milestones == [80, 160]
    assert cfg.param_scheduler[0].gamma == 1e-5
    assert cfg.model.head.loss.class_weight == [1.0, 2.5]
    assert cfg.randomness.deterministic is True
    assert cfg.data_source.data_root == "it's a \\path"
    assert cfg.val_evaluator == dict(type='Accuracy', topk=(1, 5))
    assert cfg.active_learning.budget == 0.1 and cfg.train_dataloader.batch_size == 32


@pytest.mark.parametrize('path', SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_passes_its_checks(tool, path, tmp_path):
    _, trials = tool.read_sweep(path, tmp_path, None, {})
    assert {t.seed for t in trials} == {0, 1, 2}
    configs = {t.variant: t.cfg for t in trials}
    (control,) = (name for name in configs if 'random' in name)
    assert configs[control].method.query.type == 'tjls_mm.Random'
    for cfg in configs.values():
        for key in ('initial', 'budget', 'stages'):
            assert cfg.active_learning[key] == configs[control].active_learning[key]


def test_sweeps_hold_the_values_of_the_papers_tables(tool, tmp_path):
    def read(name):
        path = ROOT / 'configs' / 'sweeps' / f'{name}.py'
        _, trials = tool.read_sweep(path, tmp_path, [0], {})
        return {t.variant: t.cfg for t in trials}

    def plan(cfg):
        return tuple(cfg.active_learning[k] for k in ('initial', 'budget', 'stages'))

    table3 = read('table3')
    kinds = {name: cfg.method.get('bottleneck') for name, cfg in table3.items()}
    assert {name: cfg and cfg.type for name, cfg in kinds.items()} == {
        'jls': None,
        'gcn': 'tjls_mm.BatchGCN',
        'tjls': 'tjls_mm.BatchTransformer',
        'random': None,
    }
    for name, cfg in table3.items():
        assert plan(cfg) == (0.1, 0.05, 7)
        assert cfg.model.backbone.type == 'VGG'
        assert cfg.data_source.dataset == 'CIFAR100'
        assert name == 'random' or cfg.method.pool_ratio == 1.5

    # The paper counts all images of a batch, a config its labelled half.
    for name, cfg in read('table4_batch').items():
        size = cfg.train_dataloader.batch_size
        assert name.endswith(f'-batch{2 * size}')
        assert cfg.auto_scale_lr.base_batch_size == size
        assert cfg.model.backbone.depth == 18 and plan(cfg) == (0.1, 0.1, 4)

    transformers = read('table4_transformer')
    assert plan(transformers.pop('random')) == (0.1, 0.1, 4)
    found = []
    for name, cfg in transformers.items():
        b = cfg.method.bottleneck
        found.append((b.depth, b.heads, b.hidden))
        assert name == f'depth{b.depth}-heads{b.heads}-units{b.hidden}'
        assert cfg.model.backbone.type == 'VGG' and plan(cfg) == (0.1, 0.1, 4)
    assert found == [(1, 1, 128), (1, 1, 512), (1, 2, 128), (2, 1, 128)]


STAND_IN = """
import json, os, runpy, sys, time
from pathlib import Path
from tjls_mm.active.manifest import flatten_config, hash_config

_, config, _, folder, _, seed = sys.argv
cfg, folder, seed = runpy.run_path(config), Path(folder), int(seed)
folder.mkdir(exist_ok=True)
(folder / 'pid').write_text(str(os.getpid()))
time.sleep(float(os.environ.get('STAND_IN_SECONDS', 0)))
if seed == cfg['model']['fails_with']:
    print('some words')
    print('ERROR: as asked', file=sys.stderr)
    print('  in two lines', file=sys.stderr)
    sys.exit(1)
rows = [
    {'stage': k, 'n_labelled': 10 + 10 * k, 'mAP': cfg['model']['value'] + seed + k}
    for k in range(cfg['model']['stages'])
]
ids = {'count': 50, 'sha256': cfg['data_source']['data_root']}
summary = {
    'name': folder.name,
    'seed': seed,
    'config_hash': hash_config(flatten_config(cfg)),
    **{key: ids for key in ('images', 'test', 'initial')},
    'stages': rows,
}
(folder / 'summary.json').write_text(json.dumps(summary))
"""
"""Leaves what a sweep reads of a trial, in no time."""


@pytest.fixture
def stand_in(tool, tmp_path, monkeypatch) -> Path:
    """A sweep file of two variants whose trials take no time."""
    script = tmp_path / 'stand_in.py'
    script.write_text(STAND_IN)
    monkeypatch.setattr(tool, 'AL_TRAIN', script)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    (tmp_path / 'base.py').write_text(
        'active_learning = dict(initial=10, stages=2)\n'
        "method = dict(query=dict(type='tjls_mm.Random'))\n"
        "data_source = dict(data_root='here')\n"
        'model = dict(value=1.0, fails_with=None, stages=2)\n'
    )
    trials = dict(
        random=dict(config='base.py'),
        other=trial('base.py', **{'model.value': 5.0, 'model.fails_with': 1}),
    )
    return write_sweep(tmp_path / 'sweep.py', trials, seeds=[0, 1], title='Stand-ins')


def test_a_sweep_goes_on_after_a_failure_and_where_it_stopped(
    tool, stand_in, tmp_path, capsys
):
    work_dir = tmp_path / 'work'
    command = [str(stand_in), '--work-dir', str(work_dir)]
    assert tool.main([*command, '--dry-run']) == 0
    assert '[4/4] other_seed1: 2 stages left' in capsys.readouterr().out
    assert not work_dir.exists()
    assert tool.main([*command, '--only', 'othr']) == 1
    assert "unknown. Known: ['other', 'random']" in capsys.readouterr().err

    assert tool.main(command) == 1
    out = capsys.readouterr().out
    assert out.count(': started at') == 4 and out.count(': finished') == 3
    log = work_dir / 'other_seed1.log'
    assert f'exit code 1, 2 stages left, {log}\nERROR: as asked\n  in two lines' in out
    assert '1 failed' in out and log.read_text().count('some words') == 1
    table = (work_dir / 'table.md').read_text()
    assert '| 10 | 1.5000 ± 0.7071 (2 of 2' not in table
    assert '| 10 | 1.5000 ± 0.7071 | 5.0000 (1 of 2 seeds) |' in table
    assert '| 10 | +4.0000 (n 1) |' in table  # less random of the same seed
    assert (work_dir / 'curves.png').exists()

    # Only what failed runs again.
    assert tool.main(command) == 1
    out = capsys.readouterr().out
    assert out.count(': complete') == 3 and out.count(': started at') == 1

    # A part of the trials; the table still has all of them.
    assert tool.main([*command, '--only', 'random', '--seeds', '0', '1', '2']) == 0
    assert capsys.readouterr().out.count(': started at') == 1
    with open(work_dir / 'table.csv', newline='') as file:
        means = {(r['name'], r['n_labelled']): r for r in csv.DictReader(file)}
    assert float(means['random', '10']['mAP']) == 2 and len(means) == 4


def test_results_of_another_config_are_not_in_the_table(tool, stand_in, tmp_path):
    work_dir = tmp_path / 'work'
    command = [str(stand_in), '--work-dir', str(work_dir), '--seeds', '0']
    command += ['--only', 'random']
    assert tool.main(command) == 0
    for option, stays in (
        ('model.value=2.0', False),
        ('data_source.data_root=x', True),
    ):
        key, _, value = option.partition('=')
        value = float(value) if key == 'model.value' else value
        _, (found, _) = tool.read_sweep(stand_in, work_dir, [0], {key: value})
        assert (found.summary() is not None) == stays and found.n_left() == 2 * (
            not stays
        )


def test_a_damaged_summary_runs_its_trial_again(tool, stand_in, tmp_path):
    work_dir = tmp_path / 'work'
    command = [str(stand_in), '--work-dir', str(work_dir), '--seeds', '0']
    command += ['--only', 'random']
    assert tool.main(command) == 0
    path = work_dir / 'random_seed0' / 'summary.json'
    whole = path.read_text()
    path.write_text(whole[:40])
    assert tool.main(command) == 0
    assert path.read_text() == whole


def test_trials_of_other_images_run_but_stand_in_no_table(
    tool, stand_in, tmp_path, capsys
):
    trials = {
        name: trial('base.py', **{'data_source.data_root': name}) for name in ('a', 'b')
    }
    write_sweep(stand_in, trials)
    work_dir = tmp_path / 'work'
    assert tool.main([str(stand_in), '--work-dir', str(work_dir)]) == 1
    printed = capsys.readouterr()
    assert printed.out.count(': finished') == 2
    assert 'b_seed0 differ in the images' in printed.err


def test_a_trial_that_ends_early_has_not_succeeded(tool, stand_in, tmp_path, capsys):
    """As one that waits for labels does, with exit code 0."""
    write_sweep(stand_in, dict(a=trial('base.py', **{'model.stages': 1})))
    assert tool.main([str(stand_in), '--work-dir', str(tmp_path / 'work')]) == 1
    assert 'exit code 0, 1 stages left' in capsys.readouterr().out


def test_ctrl_c_stops_the_trial_and_the_same_command_continues(stand_in, tmp_path):
    driver = tmp_path / 'driver.py'
    driver.write_text(
        'import sys\n'
        f'sys.path[:0] = [{str(ROOT / "tools")!r}]\n'
        'import al_sweep\n'
        f'al_sweep.AL_TRAIN = {str(tmp_path / "stand_in.py")!r}\n'
        'sys.exit(al_sweep.main())\n'
    )
    command = [sys.executable, str(driver), str(stand_in), '--only', 'random']
    command += ['--work-dir', str(tmp_path / 'work'), '--seeds', '0']
    process = subprocess.Popen(
        command,
        env={**os.environ, 'STAND_IN_SECONDS': '600'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A terminal signals the whole group. Where the tests run in the background,
        # Ctrl-C is ignored and inherited so.
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid = tmp_path / 'work' / 'random_seed0' / 'pid'
    deadline = time.time() + 60
    while not (pid.exists() and pid.read_text()) and time.time() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert 'The same command continues' in out and 'Traceback' not in out
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and 'random_seed0: finished' in done.stdout


@pytest.mark.slow
def test_a_sweep_from_beginning_to_end(tool, demo_data, tmp_path, capsys):
    tiny = {**TINY, 'data_source.data_root': str(demo_data), 'train_cfg.max_epochs': 1}
    tiny |= {'param_scheduler.0.total_steps': 1, 'active_learning.stages': 1}
    del tiny['score_dataloader.batch_size']  # in a config file of its own only
    trials = dict(random=trial(str(config_path('demo_random')), **tiny))
    path = write_sweep(tmp_path / 'sweep.py', trials, title='Tiny')
    work_dir = tmp_path / 'work'
    command = [str(path), '--work-dir', str(work_dir)]
    assert tool.main(command) == 0, capsys.readouterr().out
    assert '[1/1] random_seed0: finished' in capsys.readouterr().out
    summary = json.loads((work_dir / 'random_seed0' / 'summary.json').read_text())
    with open(work_dir / 'table.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['n_labelled']) for row in rows] == [8]
    for row, stage in zip(rows, summary['stages'], strict=True):
        assert float(row['pascal_voc/mAP']) == stage['pascal_voc/mAP']

    def times():
        files = work_dir.glob('random_seed0/**/*')
        return {p: p.stat().st_mtime_ns for p in files if p.name != '.lock'}

    before = times()
    assert tool.main(command) == 0
    assert 'random_seed0: complete' in capsys.readouterr().out and times() == before
