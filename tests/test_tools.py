"""Tools beside the loop: comparison, gallery, curves."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image

from tjls_mm.active.comparison import mean_rows, read_trials
from tjls_mm.active.report import draw_curves, draw_gallery
from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path, write_text


def summary(folder, name, seed, values, start=10):
    folder.mkdir(parents=True)
    rows = [
        {
            'stage': k,
            'n_labelled': start + 10 * k,
            'n_boxes': 20,
            'pascal_voc/mAP': value,
            'train_s': 1.0,
            'eval_s': 1.0,
            'score_s': 1.0,
            'select_s': 1.0,
        }
        for k, value in enumerate(values)
    ]
    content = {'name': name, 'seed': seed, 'stages': rows}
    (folder / 'summary.json').write_text(json.dumps(content))
    return str(folder)


def test_comparison_gives_mean_and_deviation_over_seeds(tmp_path):
    folders = [
        summary(tmp_path / 'a0', 'tjls_seed0', 0, [0.1, 0.3]),
        summary(tmp_path / 'a1', 'tjls_seed1', 1, [0.3, 0.5]),
        summary(tmp_path / 'b0', 'random', 0, [0.2, 0.2]),
    ]
    means = mean_rows(read_trials(folders))
    assert list(means) == ['tjls', 'random']
    first = means['tjls'][0]
    assert first['pascal_voc/mAP'] == pytest.approx(0.2)
    assert first['std'] == pytest.approx(0.2**0.5 / 10**0.5) and first['seeds'] == 2
    assert means['random'][1]['std'] == 0
    with pytest.raises(InputError, match=r'summary\.json does not exist'):
        read_trials([str(tmp_path)])
    with pytest.raises(InputError, match='twice'):
        read_trials([folders[0], folders[0]])


def test_comparison_from_the_command_line(tmp_path):
    folders = [
        summary(tmp_path / 'a', 'tjls', 0, [0.1, 0.3]),
        summary(tmp_path / 'full', 'full', 0, [0.9], start=50),
    ]
    out = tmp_path / 'compare.png'
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / 'tools' / 'al_compare.py'),
            *folders,
            '--out',
            str(out),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '0.3000' in done.stdout and '0.9000' in done.stdout
    assert Image.open(out).size[0] > 300


def test_curves_are_drawn_for_trials_of_one_stage_too(tmp_path):
    rows = [{'stage': 0, 'n_labelled': 5, 'n_boxes': 9, 'mAP': 0.5}]
    draw_curves(tmp_path / 'one.png', {'only': rows})
    assert Image.open(tmp_path / 'one.png').format == 'PNG'


def test_gallery_shows_the_first_picks(tmp_path):
    files = {}
    for i in range(30):
        path = tmp_path / f'{i}.png'
        Image.new('RGB' if i else 'L', (40 + i, 30)).save(path)
        files[f'id{i}'] = str(path)
    ids = list(files)
    draw_gallery(tmp_path / 'gallery.png', ids, lambda i: Image.open(files[i]))
    assert Image.open(tmp_path / 'gallery.png').size == (6 * 150, 4 * 164)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / 'a.txt', 'old')
    with pytest.raises(RuntimeError, match='disk'):
        with atomic_path(tmp_path / 'a.txt') as path:
            path.write_text('half')
            raise RuntimeError('disk')
    assert (tmp_path / 'a.txt').read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['a.txt']
