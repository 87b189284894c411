"""The ladder: rules from one stage 0, each as if it had run by itself."""

import copy
import shutil

import pytest
import torch
from conftest import ROOT, load_tool, make_classifier_config

from tjls_mm.active.ladder import (
    check_ladder,
    ladder_work_dirs,
    needs_of_all,
    read_rules,
    run_ladder,
)
from tjls_mm.active.trial import run_stages
from tjls_mm.errors import InputError
from tjls_mm.files import read_json
from tjls_mm.outputs import Needs
from tjls_mm.query import QueryStrategy
from tjls_mm.registry import QUERIES, build_own
from tjls_mm.stage_folder import TrialFolder

RULES = {
    'random': dict(type='tjls_mm.Random'),
    'margin': dict(type='tjls_mm.Margin', over='sum'),
    'balanced': dict(type='tjls_mm.ClassBalanced'),
}


@QUERIES.register_module(force=True)
class Failing(QueryStrategy):
    """Says so when it is to choose."""

    def select(self, pool, labelled, budget, seed):
        raise InputError('nothing can be chosen')


def killed(path):
    raise KeyboardInterrupt


def run(cfg, rules, seeds, folder, only=None) -> list:
    """Work dirs of a ladder in which nothing fails."""
    failures = run_ladder(copy.deepcopy(cfg), rules, seeds, folder, only)
    if failures:
        raise InputError('; '.join(failures))
    return ladder_work_dirs(rules, folder)


def results(folder) -> list:
    """What must not differ: lists, weights, metrics of every stage."""
    found = []
    for number in TrialFolder(folder).stage_numbers():
        stage = TrialFolder(folder).stage(number)
        lists = stage.labelled, stage.pool, stage.selected
        texts = [path.read_text() for path in lists if path.exists()]
        weights = torch.load(stage.model, weights_only=True)['state_dict']
        content = read_json(stage.metrics)
        facts = {k: content[k] for k in ('n_labelled', 'metrics', 'training')}
        found.append((texts, facts, weights))
    return found


def assert_equal(one: list, two: list) -> None:
    assert len(one) == len(two)
    for (texts, facts, weights), (texts_2, facts_2, weights_2) in zip(
        one, two, strict=True
    ):
        assert (texts, facts) == (texts_2, facts_2)
        assert weights.keys() == weights_2.keys()
        assert all(torch.equal(w, weights_2[k]) for k, w in weights.items())


def test_a_rule_of_a_ladder_is_a_trial_by_itself(tiny_config, tmp_path):
    cfg = tiny_config('demo_tjls')
    rules = {name: RULES[name] for name in ('random', 'balanced')}
    ladder = run(cfg, rules, [3], tmp_path / 'ladder')
    assert [f.name for f in ladder] == ['random_seed3', 'balanced_seed3']
    for folder, query in zip(ladder, rules.values(), strict=True):
        own = copy.deepcopy(cfg)
        own.method.query = copy.deepcopy(query)
        own.randomness.seed = 3
        own.work_dir = str(tmp_path / f'own_{folder.name}')
        run_stages(own)
        assert_equal(results(folder), results(own.work_dir))
        first, alone = (TrialFolder(f).stage(0) for f in (folder, own.work_dir))
        assert first.selection.read_bytes() == alone.selection.read_bytes()
        assert not first.outputs.exists()


def test_a_rule_that_is_run_again_takes_over_the_same(class_folders, tmp_path):
    cfg = make_classifier_config(class_folders, tmp_path / 'unused', 'random')
    rules = {
        'random': dict(type='tjls_mm.Random'),
        'margin': dict(type='tjls_mm.Margin'),
    }
    done = run(cfg, rules, [0], tmp_path / 'ladder')
    before = [results(folder) for folder in done]
    shutil.rmtree(done[1])
    again = run(cfg, rules, [0], tmp_path / 'ladder', only=['margin'])
    assert again == done
    for folder, found in zip(again, before, strict=True):
        assert_equal(results(folder), found)
    written = TrialFolder(tmp_path / 'ladder' / 'shared_seed0').stage(0).model
    time_of_it = written.stat().st_mtime_ns
    # What was not gathered is refused; nothing is trained again in silence.
    more = {**rules, 'badge': dict(type='tjls_mm.BADGE')}
    with pytest.raises(InputError, match=r"\['feature'\] were not gathered"):
        run(cfg, more, [0], tmp_path / 'ladder')
    run(cfg, {'random': rules['random']}, [0], tmp_path / 'ladder')
    assert written.stat().st_mtime_ns == time_of_it
    cfg.optim_wrapper.optimizer.lr *= 2
    with pytest.raises(InputError, match='another config'):
        run(cfg, rules, [0], tmp_path / 'ladder')


def test_what_fails_or_was_cut_short_stops_no_other_rule(
    tiny_config, tmp_path, monkeypatch
):
    cfg = tiny_config('demo_random')
    rules = {'bad': dict(type='tjls_mm.Failing'), 'balanced': RULES['balanced']}
    failures = run_ladder(copy.deepcopy(cfg), rules, [0], tmp_path / 'ladder')
    (failure,) = failures
    assert failure.startswith('bad, seed 0: nothing can be chosen')
    (folder,) = ladder_work_dirs(rules, tmp_path / 'ladder')
    before = results(folder)
    shutil.rmtree(folder)
    # Killed while stage 0 was taken over: outputs and metrics, and no weights yet.
    with monkeypatch.context() as patch:
        patch.setattr('tjls_mm.active.ladder.atomic_path', killed)
        with pytest.raises(KeyboardInterrupt):
            run(cfg, rules, [0], tmp_path / 'ladder', ['balanced'])
    stage = TrialFolder(folder).stage(0)
    assert stage.outputs_index.exists() and not stage.model.exists()
    run(cfg, rules, [0], tmp_path / 'ladder', ['balanced'])
    assert_equal(results(folder), before)
    shutil.rmtree(folder)
    labelled = TrialFolder(tmp_path / 'ladder' / 'shared_seed0').stage(0).labelled
    labelled.write_text(labelled.read_text().replace('\n', ' \n', 1))
    with pytest.raises(InputError, match='labelled.txt'):
        run(cfg, {'balanced': rules['balanced']}, [0], tmp_path / 'ladder')


def test_what_rules_need_together():
    rules = [
        dict(type='tjls_mm.ClassBalanced'),
        dict(type='tjls_mm.MaxHerding'),
        dict(type='tjls_mm.DropQuery', passes=3),
        dict(type='tjls_mm.DropQuery', passes=4),
    ]
    each = [build_own(QUERIES, rule).needs for rule in rules]
    needs = needs_of_all(each[:2])
    assert needs == Needs(
        pool=('boxes', 'feature'), labelled=('feature', 'label_count')
    )
    assert needs_of_all(each[:3]).passes == 3
    with pytest.raises(InputError, match=r'\[3, 4\] stochastic passes'):
        needs_of_all(each)


@pytest.mark.parametrize('task', ['detection', 'classification', 'vocmini'])
def test_shipped_rules_have_a_control_and_another_draw_of_it(task):
    rules = read_rules(str(ROOT / 'configs' / 'ladders' / f'{task}.py'))
    control, again = rules['random'], rules['random_again']
    assert again == {**control, 'draw': 1} and len(rules) > 6 and 'auto' in rules
    assert not any(build_own(QUERIES, rule).needs.passes for rule in rules.values())


def test_all_rules_are_checked_before_anything_runs(tiny_config, tmp_path):
    cfg = tiny_config('demo_random')
    rules = {
        'good': RULES['random'],
        'one': dict(type='tjls_mm.Discriminator'),
        'two': dict(type='tjls_mm.MaxHerding', features='pretrained_feature'),
    }
    with pytest.raises(InputError) as error:
        check_ladder(cfg, rules, tmp_path)
    assert check_ladder(cfg, rules, tmp_path, ['good']) == Needs()
    message = str(error.value)
    assert "rule 'one'" in message and "rule 'two'" in message
    assert 'good' not in message and not list(tmp_path.glob('**/stage_00'))


@pytest.mark.parametrize(
    'text, match',
    [
        ('seeds = [0]', r'expected rules=dict'),
        ("rules = {'../x': dict(type='tjls_mm.Random')}", r"'../x'"),
        ("rules = dict(x='tjls_mm.Random')", r'rules.x must be dict'),
        ("rules = dict(shared=dict(type='tjls_mm.Random'))", r"not 'shared'"),
    ],
)
def test_rules_that_are_none(text, match, tmp_path):
    path = tmp_path / 'rules.py'
    path.write_text(text)
    with pytest.raises(InputError, match=match):
        read_rules(str(path))


def test_the_tool_prints_a_table_and_draws(tiny_config, tmp_path, capsys):
    cfg = tiny_config('demo_random')
    cfg.dump(tmp_path / 'tiny.py')
    rules = tmp_path / 'rules.py'
    rules.write_text(
        "rules = dict(random=dict(type='tjls_mm.Random'), "
        "balanced=dict(type='tjls_mm.ClassBalanced'))"
    )
    command = [str(tmp_path / 'tiny.py'), str(rules), '--seeds', '0', '1']
    command += ['--work-dir', str(tmp_path / 'out')]
    main = load_tool('al_ladder').main
    assert main([*command, '--only', 'randm']) == 1
    assert "did you mean 'random'" in capsys.readouterr().err
    assert main(command) == 0
    out = capsys.readouterr().out
    assert 'balanced' in out and 'random' in out
    assert (tmp_path / 'out' / 'table.md').exists()
    assert (tmp_path / 'out' / 'curves.png').exists()
