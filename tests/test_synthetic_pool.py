"""The synthetic pool: reproducible, split by subject, made of real images only."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, load_tool
from mmengine.config import Config
from PIL import Image
from tjls_mm.active.preflight import TrialPlan
from tjls_mm.active.stages import run_stages

from tjls_mm.datasets.image_files import EXTENSIONS
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids

SCOPE = 'mmpretrain'
CLASSES = ('calm', 'glad', 'upset')
PATTERN = r'^(S\d+)_'
SPLITS = ('real', 'test', 'synthetic')


@pytest.fixture(scope='module')
def tool():
    return load_tool('make_synthetic_pool')


def draw_image(path: Path, seed: int, mode: str = 'L') -> None:
    """Smooth grey blobs, so that a distorted copy shows its source."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC)
    image.convert(mode).save(path)


def draw_source(folder: Path, subjects: int = 6, images: int = 2) -> Path:
    """Class folders in which every subject shows every class."""
    for c, name in enumerate(CLASSES):
        for s in range(subjects):
            for i in range(images):
                path = folder / name / f'S{s:03d}_{i}.png'
                draw_image(path, 100 * c + 10 * s + i)
    return folder


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return draw_source(tmp_path_factory.mktemp('faces') / 'source')


@pytest.fixture(scope='module')
def made(tool, source, tmp_path_factory):
    """A data set that tests only read."""
    out = tmp_path_factory.mktemp('made') / 'faces'
    tool.make_synthetic_pool(source, out, PATTERN)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path to bytes of every file."""
    files = [path for path in folder.rglob('*') if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def names_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob('*.png')}


def subjects_in(folder: Path) -> set[str]:
    return {re.search(PATTERN, path.name)[1] for path in folder.rglob('*.png')}


def synthetic_rows(folder: Path) -> list[dict]:
    with open(folder / 'synthetic.csv', encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_no_subject_is_on_both_sides_and_no_image_is_lost(made, source):
    real, test = subjects_in(made / 'real'), subjects_in(made / 'test')
    assert len(test) == 2 and len(real) == 4 and not real & test
    assert names_below(made / 'real') | names_below(made / 'test') == names_below(
        source
    )
    copies = contents(made / 'real') | contents(made / 'test')
    assert copies == contents(source)
    stamp = json.loads((made / 'synthetic.json').read_text())
    assert stamp['subjects'] == {'real': sorted(real), 'test': sorted(test)}


def test_synthetic_images_come_from_real_ones_only(made):
    rows = synthetic_rows(made)
    synthetic = names_below(made / 'synthetic')
    assert {row['image_id'] for row in rows} == {f'synthetic/{n}' for n in synthetic}
    expected = {
        f'{name.removesuffix(".png")}_v{variant:02d}.png'
        for name in names_below(made / 'real')
        for variant in range(4)
    }
    assert synthetic == expected
    for row in rows:
        stem = row['image_id'].removeprefix('synthetic/').rpartition('_v')[0]
        assert row['source'] == f'real/{stem}.png'
        assert 0.1 <= float(row['strength']) <= 1


def test_stronger_variants_are_less_like_their_source(made):
    rows = sorted(synthetic_rows(made), key=lambda row: float(row['strength']))

    def difference(row: dict) -> float:
        images = (Image.open(made / row[key]) for key in ('image_id', 'source'))
        one, two = (np.asarray(image, dtype=float) for image in images)
        return np.abs(one - two).mean()

    differences = [difference(row) for row in rows]
    third = len(rows) // 3
    assert min(differences) > 0
    assert np.mean(differences[-third:]) > 1.5 * np.mean(differences[:third])


def test_same_seed_gives_same_files_and_another_seed_other_ones(
    tool, made, source, tmp_path
):
    tool.make_synthetic_pool(source, tmp_path / 'again', PATTERN)
    assert contents(tmp_path / 'again') == contents(made)
    tool.make_synthetic_pool(source, tmp_path / 'other', PATTERN, seed=1)
    one, other = contents(made / 'synthetic'), contents(tmp_path / 'other/synthetic')
    common = one.keys() & other.keys()
    assert common and all(one[name] != other[name] for name in common)


def test_the_order_of_files_changes_nothing(tool, made, source, tmp_path, monkeypatch):
    paths = {name: sorted((source / name).iterdir()) for name in CLASSES}
    monkeypatch.setattr(Path, 'rglob', lambda self, pattern: reversed(paths[self.name]))
    tool.make_synthetic_pool(source, tmp_path / 'reversed', PATTERN)
    monkeypatch.undo()
    assert contents(tmp_path / 'reversed') == contents(made)


def test_an_image_depends_on_its_source_and_number_alone(tool, made, source, tmp_path):
    """Neither on other images, nor on how many variants are made."""
    half = tmp_path / 'half'
    for path in source.rglob('*_0.png'):
        target = half / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    tool.make_synthetic_pool(half, tmp_path / 'out', PATTERN, per_image=6)
    one, other = contents(made / 'synthetic'), contents(tmp_path / 'out/synthetic')
    assert len(other) == 4 * 3 * 6
    common = one.keys() & other.keys()
    assert len(common) == 4 * 3 * 4
    assert all(one[name] == other[name] for name in common)


def test_a_killed_run_leaves_nothing_and_can_be_run_again(
    tool, made, source, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    out = tmp_path / 'out'
    monkeypatch.setattr(tool, 'draw_sheet', kill)
    with pytest.raises(Killed):
        tool.make_synthetic_pool(source, out, PATTERN)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    tool.make_synthetic_pool(source, out, PATTERN)
    assert contents(out) == contents(made)


def test_a_finished_set_is_left_alone_and_another_refused(
    tool, source, tmp_path, capsys
):
    out = tmp_path / 'out'
    tool.make_synthetic_pool(source, out, PATTERN)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    capsys.readouterr()
    tool.make_synthetic_pool(source, out, PATTERN)
    assert 'nothing to do' in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    with pytest.raises(InputError, match='seed is 0, asked for 1'):
        tool.make_synthetic_pool(source, out, PATTERN, seed=1)


def test_changed_real_images_are_noticed(tool, tmp_path):
    source = draw_source(tmp_path / 'source')
    tool.make_synthetic_pool(source, tmp_path / 'out', PATTERN)
    draw_image(source / 'calm' / 'S000_0.png', 999)
    with pytest.raises(InputError, match='source_hash is'):
        tool.make_synthetic_pool(source, tmp_path / 'out', PATTERN)


@pytest.mark.parametrize(
    'suffix,mode,kind', [('.png', 'L', 'PNG'), ('.JPG', 'RGB', 'JPEG')]
)
def test_size_mode_and_format_are_kept(tool, tmp_path, suffix, mode, kind):
    for name in CLASSES:
        for s in range(3):
            path = tmp_path / 'source' / name / f'S{s}_0{suffix}'
            draw_image(path, s, mode)
    tool.make_synthetic_pool(tmp_path / 'source', tmp_path / 'out', PATTERN)
    images = list((tmp_path / 'out/synthetic').rglob(f'*{suffix}'))
    assert len(images) == 2 * len(CLASSES) * 4
    for path in images:
        with Image.open(path) as image:
            assert (image.size, image.mode, image.format) == ((24, 24), mode, kind)


def test_grey_images_saved_in_colour_stay_grey(tool):
    grey = np.random.default_rng(0).random((20, 30, 1)).repeat(3, 2)
    result = tool.distort(grey, 1.0, np.random.default_rng(1))
    assert result.shape == grey.shape and result.min() >= 0 and result.max() <= 1
    np.testing.assert_allclose(np.ptp(result, 2), 0, atol=1e-12)


def test_turned_photos_are_distorted_upright(tool, tmp_path):
    path = tmp_path / 'turned.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (30, 20)).save(path, exif=exif)
    assert tool.read_image(path)[0].size == (20, 30)


def test_without_pattern_every_image_is_its_own_subject(tool, source, tmp_path):
    tool.make_synthetic_pool(source, tmp_path / 'out', test_share=0.5)
    counts = [len(names_below(tmp_path / 'out' / name)) for name in SPLITS]
    assert counts == [18, 18, 72]


def test_the_summary_counts_images_and_subjects(tool, source, tmp_path, capsys):
    tool.main([str(source), str(tmp_path / 'out'), '--subject-pattern', PATTERN])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['calm', '8', '4', '32'] in lines
    assert ['images', '24', '12', '96'] in lines
    assert ['subjects', '4', '2', '4'] in lines


def test_extensions_are_those_of_the_data_set(tool):
    assert tool.EXTENSIONS == EXTENSIONS


def remove_all(source):
    for path in sorted(source.rglob('*'), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def remove_source(source):
    remove_all(source)
    source.rmdir()


def break_all(source):
    for path in source.rglob('*.png'):
        path.write_text('no image')


def deepen_all(source):
    for path in source.rglob('*.png'):
        Image.new('I;16', (24, 24)).save(path)


def one_subject_alone_shows_a_class(source):
    draw_image(source / 'rare' / 'S003_0.png', 0)


@pytest.mark.parametrize(
    'spoil,options,message',
    [
        (remove_source, {}, 'source does not exist'),
        (remove_all, {}, 'holds no class folders'),
        (
            lambda source: draw_image(source / 'loose.png', 0),
            {},
            r'loose\.png .* is in no class folder',
        ),
        (lambda source: (source / 'empty').mkdir(), {}, 'empty holds no images'),
        (
            lambda source: draw_image(source / 'glad' / 'unnamed.png', 0),
            {},
            r"'glad/unnamed\.png'",
        ),
        (None, {'subject_pattern': r'S\d+'}, 'has no group'),
        (None, {'subject_pattern': '(S'}, r"--subject-pattern '\(S'"),
        (None, {'subject_pattern': '^(S)'}, "1 subject .'S'. cannot be split"),
        (
            one_subject_alone_shows_a_class,
            {},
            "Class 'rare' has no image in (real|test): 1 of 6 subjects",
        ),
        (None, {'test_share': 1.0}, '--test-share must be between 0 and 1'),
        (None, {'per_image': 0}, '--per-image must be 1 or more'),
        (None, {'seed': -1}, '--seed must be 0 or more'),
        (break_all, {}, r'S\d+_\d\.png cannot be read as an image'),
        (deepen_all, {}, r'S\d+_\d\.png is of mode I;16'),
    ],
)
def test_what_does_not_fit_is_named(tool, tmp_path, spoil, options, message):
    source = draw_source(tmp_path / 'source')
    if spoil:
        spoil(source)
    options = {'subject_pattern': PATTERN, **options}
    with pytest.raises(InputError, match=message):
        tool.make_synthetic_pool(source, tmp_path / 'out', **options)
    assert not list(tmp_path.glob('*out*'))


def test_foreign_folders_are_not_touched(tool, source, tmp_path):
    (tmp_path / 'out').mkdir()
    with pytest.raises(InputError, match='was not written by this tool'):
        tool.make_synthetic_pool(source, tmp_path / 'out', PATTERN)
    with pytest.raises(InputError, match='lies in'):
        tool.make_synthetic_pool(source, source / 'out', PATTERN)
    assert {path.name for path in source.iterdir()} == set(CLASSES)


def test_errors_of_the_command_line_are_one_line(tool, tmp_path):
    with pytest.raises(SystemExit, match='make_synthetic_pool: .*does not exist'):
        tool.main([str(tmp_path / 'none'), str(tmp_path / 'out')])


def trial_config(data: Path, work_dir: Path, name: str = 'tjls') -> Config:
    """A trial on the data set that runs in seconds."""
    cfg = Config.fromfile(ROOT / 'configs' / f'small_ck48_{name}.py')
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'data_source.data_root': str(data),
            'active_learning.budget': 10,
            'active_learning.stages': 2,
            'train_dataloader.batch_size': 8,
            'auto_scale_lr.base_batch_size': 8,
            'train_cfg.max_epochs': 1,
            'param_scheduler.0.total_steps': 1,
            'param_scheduler.0.pct_start': 0.5,
            'model.backbone.base_channels': 4,
            'model.head.num_classes': len(CLASSES),
            'model.head.in_channels': 32,
        }
    )
    return cfg


def ids_below(made: Path, split: str) -> list[str]:
    return sorted(f'{split}/{name}' for name in names_below(made / split))


@pytest.mark.parametrize('name', ['tjls', 'jls', 'gcn', 'random'])
def test_the_start_is_all_real_images_and_the_pool_all_synthetic_ones(
    made, tmp_path, name
):
    plan = TrialPlan(trial_config(made, tmp_path / 'work', name))
    assert plan.source.classes == CLASSES and plan.source.channels == 1
    assert plan.initial == ids_below(made, 'real')
    pool = sorted(set(plan.image_ids) - set(plan.initial))
    assert pool == ids_below(made, 'synthetic')
    assert plan.test_ids == ids_below(made, 'test')
    labels = {i: plan.source.classes[plan.source.label(i)] for i in plan.image_ids}
    assert all(i.split('/')[1] == label for i, label in labels.items())


@pytest.mark.slow
def test_a_trial_adds_the_selected_synthetic_images(made, tmp_path):
    work_dir = run_stages(trial_config(made, tmp_path / 'work'))
    first, second = work_dir / 'stage_00', work_dir / 'stage_01'
    assert read_image_ids(first / 'labelled.txt') == ids_below(made, 'real')
    selected = read_image_ids(first / 'selected.txt')
    assert len(selected) == 10
    assert all(image_id.startswith('synthetic/') for image_id in selected)
    labelled = read_image_ids(second / 'labelled.txt')
    assert sorted(labelled) == sorted([*ids_below(made, 'real'), *selected])


@pytest.mark.parametrize('name', ['tjls', 'jls', 'random'])
def test_configs_of_the_paper_start_from_real_faces(tmp_path, name):
    expressions = [f'expression{i}' for i in range(8)]
    for split in SPLITS:
        for expression in expressions:
            folder = tmp_path / 'rafd' / split / expression
            folder.mkdir(parents=True)
            for i in range(300 if split == 'synthetic' else 3):
                (folder / f'{i}.png').touch()
    cfg = Config.fromfile(ROOT / 'configs' / f'resnet18_rafd_{name}.py')
    cfg.data_source.data_root = str(tmp_path / 'rafd')
    cfg.work_dir = str(tmp_path / 'work')
    plan = TrialPlan(cfg)
    assert plan.source.classes == tuple(expressions)
    assert len(plan.initial) == 24 and plan.budgets == [500] * 4
    assert all(image_id.startswith('real/') for image_id in plan.initial)
