"""The synthetic pool: reproducible, split by subject, made of real images only."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import config_path, load_tool
from mmengine.config import Config
from PIL import Image

from tjls_mm.datasets.image_files import EXTENSIONS
from tjls_mm.registry import IMAGE_SOURCES, build_own

CLASSES = ('calm', 'glad', 'upset')
PATTERN = r'^(S\d+)_'


@pytest.fixture(scope='module')
def tool():
    return load_tool('make_synthetic_pool')


def draw_image(path: Path, seed: int) -> None:
    """Smooth grey blobs, so that a distorted copy shows its source."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(coarse).resize((24, 24), Image.Resampling.BICUBIC)
    image.save(path)


@pytest.fixture(scope='module')
def source(tmp_path_factory) -> Path:
    """Class folders in which each of six subjects shows every class twice."""
    folder = tmp_path_factory.mktemp('faces') / 'source'
    for c, name in enumerate(CLASSES):
        for s in range(6):
            for i in range(2):
                draw_image(folder / name / f'S{s:03d}_{i}.png', 100 * c + 10 * s + i)
    return folder


def make(tool, source: Path, out: Path, *arguments: str) -> Path:
    command = [str(source), str(out), '--subject-pattern', PATTERN, *arguments]
    assert tool.main(command) == 0
    return out


@pytest.fixture(scope='module')
def made(tool, source, tmp_path_factory) -> Path:
    """A data set that tests only read."""
    return make(tool, source, tmp_path_factory.mktemp('made') / 'faces')


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path to bytes of every file."""
    files = [path for path in folder.rglob('*') if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_no_subject_is_on_both_sides_and_no_image_is_lost(made, source):
    real, test = contents(made / 'real'), contents(made / 'test')
    subjects = [
        {re.search(PATTERN, name.rpartition('/')[2])[1] for name in part}
        for part in (real, test)
    ]
    assert [len(part) for part in subjects] == [4, 2] and not set.intersection(
        *subjects
    )
    assert real | test == contents(source)


def test_synthetic_images_are_distorted_real_ones(made):
    synthetic = contents(made / 'synthetic')
    assert set(synthetic) == {
        name.replace('.png', f'_v{variant:02d}.png')
        for name in contents(made / 'real')
        for variant in range(4)
    }
    for name in synthetic:
        image = Image.open(made / 'synthetic' / name)
        original = Image.open(made / 'real' / re.sub(r'_v\d+', '', name))
        assert image.mode == original.mode == 'L' and image.size == original.size
        assert np.abs(np.asarray(image, float) - np.asarray(original, float)).mean() > 1


def test_an_image_depends_on_seed_source_and_number_alone(tool, made, source, tmp_path):
    assert contents(make(tool, source, tmp_path / 'again')) == contents(made)
    more = contents(make(tool, source, tmp_path / 'more', '--per-image', '5'))
    assert contents(made).items() < more.items()
    other = contents(make(tool, source, tmp_path / 'other', '--seed', '1'))
    common = {name for name in contents(made) if name.startswith('synthetic')} & {
        *other
    }
    assert common and all(other[n] != contents(made)[n] for n in common)


def test_configs_take_real_images_as_start_and_synthetic_ones_as_pool(made):
    cfg = Config.fromfile(config_path('small_ck48_tjls'))
    assert cfg.active_learning.initial == 'real/'
    source = build_own(IMAGE_SOURCES, {**cfg.data_source, 'data_root': str(made)})
    assert source.classes == CLASSES and source.channels == 1
    for split, parts in (('pool', ('real', 'synthetic')), ('test', ('test',))):
        expected = [f'{p}/{name}' for p in parts for name in contents(made / p)]
        assert source.list_images(split) == sorted(expected)


def test_extensions_are_those_of_the_data_set(tool):
    assert set(tool.EXTENSIONS) == set(EXTENSIONS)


@pytest.mark.parametrize(
    'spoil, arguments, message',
    [
        (None, ('--subject-pattern', r'S\d+'), 'finds none in'),
        (None, ('--subject-pattern', '(S'), 'missing'),
        (None, ('--subject-pattern', '^(S)'), "'calm' has no image in test"),
        ('rare/S003_0.png', (), "'rare' has no image in (real|test)"),
        ('glad/unnamed.png', (), "finds none in 'glad/unnamed.png'"),
    ],
)
def test_what_does_not_fit_is_named(
    tool, source, tmp_path, capsys, spoil, arguments, message
):
    folder = Path(shutil.copytree(source, tmp_path / 'source'))
    if spoil:
        draw_image(folder / spoil, 0)
    command = [str(folder), str(tmp_path / 'out'), '--subject-pattern', PATTERN]
    assert tool.main([*command, *arguments]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ['source']


def test_unreadable_images_and_folders_that_are_there_are_refused(
    tool, made, source, tmp_path, capsys
):
    for name in ('S001_0.png', 'S002_0.png'):
        (tmp_path / 'broken' / 'calm').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'broken' / 'calm' / name).write_text('no image')
    for folder, out, message in (
        (tmp_path / 'broken', tmp_path / 'out', 'is no image'),
        (tmp_path / 'none', tmp_path / 'out', 'has no <class>/<image>'),
        (source, made, 'exists: give another folder'),
    ):
        assert tool.main([str(folder), str(out)]) == 1
        error = capsys.readouterr().err
        assert error.startswith('ERROR: ') and message in error
    assert [path.name for path in tmp_path.iterdir()] == ['broken']
