"""Comparison: what may stand in one table, means, paired differences, pictures."""

import csv
import json
from pathlib import Path

import pytest
from conftest import load_tool
from matplotlib.figure import Figure
from PIL import Image

from tjls_mm.errors import InputError
from tjls_mm.files import write_json
from tjls_mm.report.comparison import (
    Comparison,
    comparison_tables,
    find_control,
    mean_rows,
    paired_rows,
    print_comparison,
    read_trials,
    write_comparison,
)
from tjls_mm.report.curves import draw_curve
from tjls_mm.report.stage_line import stage_row
from tjls_mm.stage_folder import TrialFolder

METRIC = 'pascal_voc/mAP'


def trial(folder: Path, seed: int, *values: float, start: int = 10, **changed) -> str:
    """The work dir of a trial, 10 more labelled images per stage."""
    rows = []
    for stage, value in enumerate(values):
        seconds = dict(train=1.0, evaluate=1.0, select=0.5)
        n_labelled = start + 10 * stage
        record = dict(
            n_labelled=n_labelled,
            n_boxes=2 * n_labelled,
            metrics={METRIC: value},
            seconds=seconds,
        )
        rows.append(stage_row(stage, record))
    summary = dict(
        name=folder.name,
        seed=seed,
        config_hash=f'config of {folder.name.partition("_seed")[0]}',
        images=dict(count=50, sha256='all images'),
        initial=dict(count=start, sha256=f'start of {seed}'),
        test=dict(count=20, sha256='test images'),
        stages=rows,
    )
    write_json(TrialFolder(folder).summary, {**summary, **changed})
    return str(folder)


def test_means_and_deviations_are_over_seeds(tmp_path):
    folders = [
        trial(tmp_path / 'tjls_seed0', 0, 0.1, 0.3),
        trial(tmp_path / 'tjls_seed1', 1, 0.3, 0.5, 0.9),
        trial(tmp_path / 'jls', 0, 0.2, 0.2),
    ]
    means = mean_rows(read_trials(folders))
    assert list(means) == ['tjls', 'jls']
    assert [row['n_labelled'] for row in means['tjls']] == [10, 20, 30]
    first, _, last = means['tjls']
    assert first[METRIC] == pytest.approx(0.2) and first['seeds'] == 2
    assert first['std'] == pytest.approx(0.02**0.5) and first['n_boxes'] == 20
    assert (last[METRIC], last['std'], last['seeds']) == (0.9, 0.0, 1)


def test_paired_differences_leave_out_what_seeds_share(tmp_path):
    # The seeds differ by 0.5, the methods by 0.02 and 0.04.
    folders = [
        trial(tmp_path / 'demo_random_seed0', 0, 0.10, 0.20),
        trial(tmp_path / 'demo_random_seed1', 1, 0.60, 0.70),
        trial(tmp_path / 'demo_tjls_seed0', 0, 0.10, 0.22),
        trial(tmp_path / 'demo_tjls_seed1', 1, 0.60, 0.74),
        trial(tmp_path / 'demo_jls_seed1', 1, 0.61),
        trial(tmp_path / 'demo_jls_seed2', 2, 0.99),
    ]
    trials = read_trials(folders)
    paired = paired_rows(trials, 'demo_random')
    assert list(paired) == ['demo_tjls', 'demo_jls']
    first, second = paired['demo_tjls']
    assert (first[METRIC], first['error'], first['pairs']) == (0, 0, 2)
    assert second[METRIC] == pytest.approx(0.03) and second['pairs'] == 2
    assert second['error'] == pytest.approx(0.01)
    (only,) = paired['demo_jls']  # seed 2 has no partner
    assert only[METRIC] == pytest.approx(0.01) and only['error'] is None

    (_, means), (title, differences) = comparison_tables(trials)
    assert means[0] == ['labelled', 'demo_random', 'demo_tjls', 'demo_jls']
    assert means[2][2] == '0.4800 ± 0.3677 (40 boxes)' and means[2][3] == ''
    assert 'demo_random with the same seed' in title
    assert differences == [
        ['labelled', 'demo_tjls', 'demo_jls'],
        ['10', '+0.0000 ± 0.0000 (n 2)', '+0.0100 (n 1)'],
        ['20', '+0.0300 ± 0.0100 (n 2)', ''],
    ]


def test_the_control_is_the_one_name_that_says_random():
    assert find_control(['demo_tjls', 'demo_random']) == 'demo_random'
    assert find_control(['tjls-batch16', 'random-batch128']) == 'random-batch128'
    assert find_control(['random-init', 'random']) == 'random'
    assert find_control(['foreground_random', 'random']) == 'random'
    assert find_control(['a_random', 'b_random']) is None
    names = ['helmets_random', 'helmets_foreground_random', 'helmets_random_again']
    assert find_control(names, names[2:]) == 'helmets_random'
    assert find_control(['tjls', 'jls']) is None


def two(count, sha256='others'):
    return dict(count=count, sha256=sha256)


@pytest.mark.parametrize(
    'first, second, expected',
    [
        (('demo', 0, {}), ('demo', 0, {}), "both 'demo' with seed 0"),
        (
            ('demo_seed0', 0, {}),
            ('demo_seed1', 1, dict(config_hash='x')),
            "both called 'demo', but their configs differ: a mean",
        ),
        # A twin of the same folder name, as two people would have it.
        (('demo', 0, {}), ('demo', 1, dict(config_hash='x')), "both called 'demo'"),
        (
            ('tjls', 0, {}),
            ('random', 1, dict(images=two(60))),
            'in the images .*50.*60',
        ),
        (('tjls', 0, {}), ('random', 0, dict(test=two(3))), 'in the test images: 20'),
        (('d_seed0', 0, {}), ('d_seed1', 1, dict(test=two(20))), 'in the test images'),
        (('tjls', 0, {}), ('random', 0, dict(initial=two(10))), 'at first with seed 0'),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, first, second, expected):
    folders = [
        trial(tmp_path / side / name, seed, 0.1, **changed)
        for side, (name, seed, changed) in zip('ab', (first, second), strict=True)
    ]
    with pytest.raises(InputError, match=expected) as error:
        read_trials(folders)
    assert all(folder in str(error.value) for folder in folders)


def test_a_refusal_names_the_settings_that_differ(tmp_path):
    folders = []
    for seed, config in enumerate(
        ({'a': 1, 'b.budget': 6, 'c': 0}, {'a': 1, 'b.budget': 9, 'd': 0})
    ):
        folder = tmp_path / f'demo_seed{seed}'
        folders.append(trial(folder, seed, 0.1, config_hash=str(config)))
        TrialFolder(folder).state.write_text(json.dumps({'config': config}))
    expected = r'differ in b\.budget \(6 against 9\), c \(0 against None\), d'
    with pytest.raises(InputError, match=expected):
        read_trials(folders)


def test_other_seeds_and_ceilings_have_other_images_at_first(tmp_path):
    everything = dict(count=50, sha256='all images')
    folders = [
        trial(tmp_path / 'tjls', 0, 0.1, 0.2),
        trial(tmp_path / 'random', 1, 0.1, 0.2),
        trial(tmp_path / 'full', 0, 0.9, start=50, initial=everything),
    ]
    means = mean_rows(read_trials(folders))
    assert [row['n_labelled'] for row in means['full']] == [50]


def test_metrics_of_different_kinds_are_refused(tmp_path):
    folders = [trial(tmp_path / 'a', 0, 0.1), trial(tmp_path / 'b', 0, 0.1)]
    path = tmp_path / 'b' / 'summary.json'
    path.write_text(path.read_text().replace(METRIC, 'coco/bbox_mAP'))
    with pytest.raises(InputError, match=f'a is measured by {METRIC}, .*b by coco'):
        read_trials(folders)


def spoil_row(summary, **changed):
    return {**summary, 'stages': [{**summary['stages'][0], **changed}]}


@pytest.mark.parametrize(
    'spoil',
    [
        lambda summary: json.dumps(summary)[:50],
        lambda summary: '',
        lambda summary: [],
        lambda summary: 7,
        lambda summary: {'name': 'demo', 'seed': 0, 'stages': summary['stages']},
        lambda summary: {**summary, 'seed': None},
        lambda summary: {**summary, 'name': None},
        lambda summary: {**summary, 'images': None},
        lambda summary: {**summary, 'stages': []},
        lambda summary: {**summary, 'stages': {'mAP': 1}},
        lambda summary: {**summary, 'stages': [{'stage': 0, 'n_labelled': 3}]},
        lambda summary: spoil_row(summary, n_labelled='many'),
        lambda summary: spoil_row(summary, **{METRIC: None}),
    ],
)
def test_a_damaged_summary_is_named(tmp_path, spoil):
    folder = trial(tmp_path / 'demo', 0, 0.1)
    path = tmp_path / 'demo' / 'summary.json'
    damaged = spoil(json.loads(path.read_text()))
    path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    with pytest.raises(InputError, match=r'summary\.json is not the summary of a tri'):
        read_trials([folder])
    path.unlink()
    with pytest.raises(InputError, match=r'summary\.json does not exist'):
        read_trials([folder])


def test_files_of_a_comparison_say_where_seeds_are_missing(tmp_path):
    folders = [
        trial(tmp_path / 'tjls_seed0', 0, 0.1, 0.3),
        trial(tmp_path / 'tjls_seed1', 1, 0.2),
        trial(tmp_path / 'random_seed0', 0, 0.05),
    ]
    trials = read_trials(folders)
    write_comparison(tmp_path, 'A title', trials, ['random', 'gcn', 'tjls'], 3)
    text = (tmp_path / 'table.md').read_text()
    assert text.startswith('# A title\n') and METRIC in text
    assert '| labelled | random | gcn | tjls |' in text
    assert '| 20 |  |  | 0.3000 (1 of 3 seeds) (40 boxes) |' in text
    assert '| 10 |  | +0.0500 (n 1) |' in text
    with open(tmp_path / 'table.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['name'] for row in rows] == ['random', 'tjls', 'tjls']
    assert [float(row[METRIC]) for row in rows] == pytest.approx([0.05, 0.15, 0.3])
    assert [row['seeds'] for row in rows] == ['1', '2', '1']
    assert rows[0]['low'] == '' and 0.1 <= float(rows[1]['low']) < 0.15
    assert Image.open(tmp_path / 'curves.png').format == 'PNG'


@pytest.fixture
def tool():
    return load_tool('al_compare')


def test_comparison_from_the_command_line(tool, tmp_path, capsys):
    folders = [
        trial(tmp_path / 'demo_tjls', 0, 0.1, 0.3),
        trial(tmp_path / 'demo_random', 0, 0.1, 0.2),
    ]
    out = tmp_path / 'compare'
    assert tool.main([*folders, '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    assert 'tjls: no verdict from one seed, +10.0 points.' in printed
    assert 'area under the learning curve at 20 labelled images' in printed
    assert 'demo_tjls' not in printed and 'No A/A row' in printed
    files = ['curves.png', 'rules.csv', 'table.csv', 'table.md', 'wins.png']
    assert sorted(path.name for path in out.iterdir()) == files
    assert all(name in printed.splitlines()[-1] for name in files)
    assert '+0.1000 (n 1)' in (out / 'table.md').read_text()
    with open(out / 'rules.csv', newline='') as file:
        control, rule = csv.DictReader(file)
    assert (control['name'], control['role']) == ('demo_random', 'control')
    assert float(rule['area_difference']) == pytest.approx(10)
    assert rule['p'] == '' and rule['area_difference_low'] == ''


def test_a_picture_alone_is_written_where_its_name_is_given(tool, tmp_path, capsys):
    folder = trial(tmp_path / 'demo_random', 0, 0.1, 0.2)
    out = tmp_path / 'pictures' / 'compare.png'
    assert tool.main([folder, '--out', str(out)]) == 0
    assert Image.open(out).size[0] > 300
    assert [path.name for path in out.parent.iterdir()] == ['compare.png']
    out.unlink()
    capsys.readouterr()
    assert tool.main([folder, folder, '--out', str(out)]) == 1
    assert capsys.readouterr().err.startswith('ERROR: ') and not out.exists()


def seeds_of(tmp_path, **curves) -> list[str]:
    """Work dirs NAME_seedK of curves, (seeds, stages) each."""
    return [
        trial(tmp_path / f'{name}_seed{seed}', seed, *values)
        for name, rows in curves.items()
        for seed, values in enumerate(rows)
    ]


def six(*gains: float) -> list[tuple[float, ...]]:
    """Curves of six seeds: 0.20, then 0.30 and so on with gains, and a seed's own."""
    noise = (0.001, -0.002, 0.0, 0.002, -0.001, 0.001)
    stages = [(0.1 * k, gain) for k, gain in enumerate(gains, 1)]
    return [
        (0.2 + seed / 100, *(0.2 + seed / 100 + up + g + e for up, g in stages))
        for seed, e in enumerate(noise)
    ]


def test_the_command_line_takes_a_control_and_a_margin(tool, tmp_path, capsys):
    folders = seeds_of(tmp_path, a=six(0, 0), b=six(-0.01, -0.01))
    command = [*folders, '--out', str(tmp_path / 'out')]
    assert tool.main(command) == 0
    assert 'No control (' in capsys.readouterr().out
    table = (tmp_path / 'out' / 'table.md').read_text()
    assert '| a | 6 | 37.5 | 42.5 | 60 |' in table and 'less' not in table
    assert not (tmp_path / 'out' / 'rules.csv').exists()
    assert tool.main([*command, '--control', 'a']) == 0
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'b: worse than a, -1.0 points (-1.0 to -1.0)' in printed
    assert 'Meaningfully worse (lower end -1.00, margin 0.5).' in printed
    assert tool.main([*command, '--control', 'a', '--margin', '1.5']) == 0
    assert 'Not meaningfully worse (lower end -1.00, margin 1.5)' in (
        ' '.join(capsys.readouterr().out.split())
    )
    assert (tmp_path / 'out' / 'rules.csv').exists()
    for wrong in (['--control', 'c'], ['--margin', '0'], ['--margin', 'nan']):
        assert tool.main([*command, *wrong]) == 1
        assert wrong[1].strip() in capsys.readouterr().err


def test_the_order_of_the_work_dirs_does_not_matter(tmp_path):
    folders = seeds_of(
        tmp_path, x_random=six(0, 0), x_random_again=six(0.002, -0.004), x_b=six(0, 0.1)
    )
    everything = two(50, 'all images')
    folders += [trial(tmp_path / 'x_full', 0, 0.9, start=50, initial=everything)]
    texts = set()
    for order in (folders, folders[::-1], folders[7:] + folders[:7]):
        out = tmp_path / 'out'
        write_comparison(out, 'T', read_trials(order))
        names = ('table.md', 'table.csv', 'rules.csv')
        texts.add(tuple((out / name).read_text() for name in names))
    assert len(texts) == 1
    table = texts.pop()[0]
    assert table.index('| random_again (A/A)') < table.index('| b |')
    assert '- full: no seed and stage in common with random, not compared.' in table


def test_pictures_are_of_what_there_is(tmp_path):
    folders = seeds_of(tmp_path, random=six(0, 0)[:2], rule=six(0, 0)[:2])
    write_comparison(tmp_path, 'T', read_trials(folders))
    with_boxes = Image.open(tmp_path / 'curves.png').size
    assert Image.open(tmp_path / 'wins.png').format == 'PNG'
    for folder in folders:
        summary = TrialFolder(folder).summary
        content = json.loads(summary.read_text())
        for row in content['stages']:
            del row['n_boxes']
        write_json(summary, content)
    # Images alone need half the width; one name has nobody to beat.
    written = write_comparison(tmp_path, 'T', read_trials(folders[:2]))
    width, height = Image.open(tmp_path / 'curves.png').size
    assert (2 * width, height) == with_boxes
    assert 'wins.png' not in written and not (tmp_path / 'wins.png').exists()


def test_a_second_random_is_known_by_its_draw_or_its_name(tmp_path):
    folders = seeds_of(
        tmp_path, random=six(0), other_draw=six(0), random2=six(0), rule=six(0)
    )
    for folder in folders:
        config = {'method.query.type': 'tjls_mm.Random', 'method.query.draw': 0}
        if 'other_draw' in folder:
            config['method.query.draw'] = 1
        elif 'rule' in folder:
            config |= {'method.query.type': 'tjls_mm.BoxCount', 'method.query.draw': 3}
        TrialFolder(folder).state.write_text(json.dumps({'config': config}))
    trials = read_trials(folders)
    assert {t.name for t in trials if t.is_again} == {'other_draw', 'random2'}
    assert find_control(['random', 'random2'], ['random2']) == 'random'
    assert find_control(['my-random', 'random-b'], ['my-random']) == 'random-b'


@pytest.mark.parametrize('value', ['NaN', 'Infinity'])
def test_a_metric_that_is_no_number_stands_in_no_table(tmp_path, value):
    folders = [trial(tmp_path / 'a', 0, 0.1, 0.2), trial(tmp_path / 'b', 0, 0.1, 0.25)]
    path = tmp_path / 'b' / 'summary.json'
    path.write_text(path.read_text().replace('0.25', value))
    with pytest.raises(InputError, match=f'b has {METRIC} .* at 20 labelled images'):
        read_trials(folders)


def test_rows_with_and_without_boxes_are_one_table(tmp_path):
    folders = seeds_of(tmp_path, a=[(0.1, 0.2)], b=[(0.1, 0.3)])
    path = TrialFolder(folders[0]).summary
    content = json.loads(path.read_text())
    for row in content['stages']:
        del row['n_boxes']
    write_json(path, content)
    write_comparison(tmp_path, 'T', read_trials(folders))
    with open(tmp_path / 'table.csv', newline='') as file:
        found = [(row['name'], row['n_boxes']) for row in csv.DictReader(file)]
    assert found == [('a', ''), ('a', ''), ('b', '20'), ('b', '40')]


def test_only_what_has_all_labels_is_drawn_as_a_ceiling(tmp_path):
    everything = two(50, 'all images')
    folders = seeds_of(tmp_path, random=[(0.1, 0.2)], unfinished=[(0.1,)])
    folders.append(trial(tmp_path / 'full', 0, 0.9, start=50, initial=everything))
    comparison = Comparison(read_trials(folders))
    assert comparison.ceilings == {'full'}
    figure = Figure()
    axes = figure.add_subplot()
    for name, rows in comparison.curves.items():
        draw_curve(axes, name, rows, 'n_labelled', name in comparison.ceilings)
    styles = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert styles == {'random': '-', 'unfinished': '-', 'full (50 labelled)': '--'}


def test_neither_names_nor_figures_are_folded_or_cut_off(tmp_path, capsys):
    curves = {
        'x_random': six(0, 0),
        'x_random_again': six(0.001, 0.002),
        'x_foreground_random_of_rare_classes': six(0.01, 0.02),
    }
    print_comparison(read_trials(seeds_of(tmp_path, **curves)))
    _, table = capsys.readouterr().out.split('area under the learning curve')
    rows = [line.split() for line in table.splitlines()]
    last = {row[0]: row[-1] for row in rows if len(row) > 6}
    assert last['random_again'] == '+0.2'
    assert last['foreground_random_of_rare_classes'] == '+1.5'
    assert ['(A/A)'] == [row[0] for row in rows if row[:1] == ['(A/A)']]
