"""The ladder: rules from one stage 0, each as if it had run by itself."""

import copy
import shutil

import pytest
import torch
from conftest import ROOT, load_tool, make_classifier_config

from tjls_mm.active.ladder import check_ladder, needs_of_all, read_rules, run_ladder
from tjls_mm.active.trial import run_stages
from tjls_mm.errors import InputError
from tjls_mm.files import read_json
from tjls_mm.outputs import Needs
from tjls_mm.registry import QUERIES, build_own
from tjls_mm.stage_folder import TrialFolder

RULES = {
    'random': dict(type='tjls_mm.Random'),
    'margin': dict(type='tjls_mm.Margin', over='sum'),
    'balanced': dict(type='tjls_mm.ClassBalanced'),
}


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
    ladder = run_ladder(copy.deepcopy(cfg), rules, [3], tmp_path / 'ladder')
    assert [f.name for f in ladder] == ['random_seed3', 'balanced_seed3']
    for folder, query in zip(ladder, rules.values(), strict=True):
        own = copy.deepcopy(cfg)
        own.method.query = copy.deepcopy(query)
        own.randomness.seed = 3
        own.work_dir = str(tmp_path / f'own_{folder.name}')
        run_stages(own)
        assert_equal(results(folder), results(own.work_dir))
        assert not TrialFolder(folder).stage(0).outputs.exists()


def test_a_rule_that_is_run_again_takes_over_the_same(class_folders, tmp_path):
    cfg = make_classifier_config(class_folders, tmp_path / 'unused', 'random')
    rules = {
        'random': dict(type='tjls_mm.Random'),
        'margin': dict(type='tjls_mm.Margin'),
    }
    done = run_ladder(copy.deepcopy(cfg), rules, [0], tmp_path / 'ladder')
    before = [results(folder) for folder in done]
    shutil.rmtree(done[1])
    again = run_ladder(copy.deepcopy(cfg), rules, [0], tmp_path / 'ladder')
    assert again == done
    for folder, found in zip(again, before, strict=True):
        assert_equal(results(folder), found)


def test_what_a_kill_leaves_out_the_stage_makes_itself(tiny_config, tmp_path):
    cfg = tiny_config('demo_random')
    rules = {'balanced': RULES['balanced']}
    (folder,) = run_ladder(copy.deepcopy(cfg), rules, [0], tmp_path / 'ladder')
    before = results(folder)
    shutil.rmtree(folder)
    # Killed while outputs were taken over: some are there, the weights are not.
    shared = TrialFolder(tmp_path / 'ladder' / 'shared_seed0').stage(0)
    index, shared_index = shared.outputs_index, shared.outputs_index.read_text()
    index.unlink()
    run_ladder(copy.deepcopy(cfg), rules, [0], tmp_path / 'ladder')
    assert index.read_text() == shared_index
    assert_equal(results(folder), before)


def test_a_rule_with_other_needs_is_added_later(tiny_config, tmp_path):
    cfg = tiny_config('demo_random')
    first = run_ladder(
        copy.deepcopy(cfg), {'random': RULES['random']}, [0], tmp_path / 'ladder'
    )
    weights = results(first[0])
    both = run_ladder(copy.deepcopy(cfg), RULES, [0], tmp_path / 'ladder')
    assert_equal(weights, results(both[0]))
    shared = TrialFolder(tmp_path / 'ladder' / 'shared_seed0')
    written = shared.stage(0).model.stat().st_mtime_ns
    # Fewer needs than there are outputs: nothing is made again.
    run_ladder(
        copy.deepcopy(cfg), {'random': RULES['random']}, [0], tmp_path / 'ladder'
    )
    assert shared.stage(0).model.stat().st_mtime_ns == written


def test_other_images_are_not_shared(tiny_config, tmp_path):
    cfg = tiny_config('demo_random')
    run_ladder(
        copy.deepcopy(cfg), {'random': RULES['random']}, [0], tmp_path / 'ladder'
    )
    shutil.rmtree(tmp_path / 'ladder' / 'random_seed0')
    initial = TrialFolder(tmp_path / 'ladder' / 'shared_seed0').stage(0).labelled
    initial.write_text(initial.read_text().replace('\n', ' \n', 1))
    with pytest.raises(InputError, match='labelled.txt'):
        run_ladder(
            copy.deepcopy(cfg), {'random': RULES['random']}, [0], tmp_path / 'ladder'
        )


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


@pytest.mark.parametrize('task', ['detection', 'classification'])
def test_shipped_rules_have_a_control_and_another_draw_of_it(task):
    rules = read_rules(str(ROOT / 'configs' / 'ladders' / f'{task}.py'))
    control, again = rules['random'], rules['random_again']
    assert again == {**control, 'draw': 1} and len(rules) > 6
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
    message = str(error.value)
    assert "rule 'one'" in message and "rule 'two'" in message
    assert 'good' not in message and not list(tmp_path.glob('**/stage_00'))


@pytest.mark.parametrize(
    'text, match',
    [
        ('seeds = [0]', r'expected rules=dict'),
        ("rules = {'../x': dict(type='tjls_mm.Random')}", r"'../x'"),
        ("rules = dict(x='tjls_mm.Random')", r'rules.x must be dict'),
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
