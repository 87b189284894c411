"""What disks, people and other programs do to a work dir; every advice works."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, command_line, config_path, make_config
from test_trial import assert_same, checkpoint_every, kill_at

from tjls_mm.active.trial import run_stages
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.stage_folder import TrialFolder


@pytest.fixture(scope='module')
def reference(demo_data, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('faults') / 'work'
    run_stages(make_config(demo_data, work_dir))
    return work_dir


@pytest.fixture
def spoiled(reference, tmp_path, demo_data):
    """A copy of a finished trial, and a function that runs it again."""
    work_dir = Path(shutil.copytree(reference, tmp_path / 'work'))

    def again(redo_from=None, data=None, **options):
        run_stages(make_config(data or demo_data, work_dir, **options), redo_from)

    return TrialFolder(work_dir), again


@pytest.fixture
def interrupted(demo_data, tmp_path, monkeypatch):
    """Function: a trial that was stopped at a point, and how to go on."""

    def stop(point: str, data=None):
        work_dir, data = tmp_path / 'work', data or demo_data

        def again(redo_from=None, **options):
            cfg = make_config(data, work_dir, **{**checkpoint_every(3), **options})
            run_stages(cfg, redo_from)

        with monkeypatch.context() as patch:
            kill_at(patch, point)
            with pytest.raises(BaseException, match='^$'):
                again()
        return TrialFolder(work_dir), again

    return stop


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize('name', ['model', 'selected', 'answered', 'labelled', 'pool'])
def test_a_file_of_a_complete_stage_is_spoiled(name, spoiled, reference):
    folder, again = spoiled
    path = getattr(folder.stage(0), name)
    halve(path)
    with pytest.raises(InputError, match=f'{path.name} was changed.*--redo-from 0'):
        again()
    again(redo_from=0)
    assert_same(reference, folder.path)


@pytest.mark.parametrize('content', ['', '[]', '{}'])
@pytest.mark.parametrize('stage', [0, 1])
def test_results_of_a_complete_stage_are_kept_twice(content, stage, spoiled, reference):
    folder, again = spoiled
    path = folder.stage(stage).metrics
    path.write_text(content)
    with pytest.raises(InputError, match=r'metrics.json was changed.*Remove it'):
        again()
    path.unlink()
    again()
    assert_same(reference, folder.path)


@pytest.mark.parametrize('name', ['test', 'initial'])
def test_lists_of_the_trial_are_believed_only_whole(name, spoiled, reference):
    folder, again = spoiled
    path = getattr(folder, name)
    whole = path.read_text()
    path.write_text(''.join(f'{i}\n' for i in read_image_ids(path)[:3]))
    with pytest.raises(InputError, match=f'{name}.txt was changed.*Remove it'):
        again()
    path.unlink()
    again()
    assert path.read_text() == whole


def test_a_test_set_that_lost_images_is_noticed(spoiled, copied_data):
    folder, again = spoiled
    path = copied_data / 'VOCdemo/ImageSets/Main/test.txt'
    path.write_text(''.join(f'{name}\n' for name in path.read_text().split()[:6]))
    with pytest.raises(InputError, match=r'test: 16 .* before, 6'):
        again(data=copied_data)


@pytest.mark.parametrize('content', ['[]', '{', '{"stages": 3}', 'null'])
def test_a_manifest_that_is_none(content, spoiled):
    folder, again = spoiled
    folder.state.write_text(content)
    with pytest.raises(InputError, match='al_state.json cannot be read.*--work-dir'):
        again()


def test_a_stage_in_the_manifest_without_files(spoiled):
    folder, again = spoiled
    state = json.loads(folder.state.read_text())
    del state['stages'][0]['files']
    folder.state.write_text(json.dumps(state))
    with pytest.raises(InputError, match='al_state.json cannot be read'):
        again()


def test_folders_of_other_programs_do_not_matter(interrupted, reference):
    folder, again = interrupted('in training')
    for place in (folder.path, folder.stage(0).path, folder.stage(1).path):
        (place / '.ipynb_checkpoints').mkdir()
    (folder.path / 'stage_notes').mkdir()
    again()
    assert_same(reference, folder.path)
    again(redo_from=1)
    assert_same(reference, folder.path)
    assert (folder.path / 'stage_notes').exists()


def test_what_a_kill_left_half_written_is_removed(interrupted, reference):
    folder, again = interrupted('in training')
    left = [folder.path / '.al_state.json.ab12_cd9.json']
    left.append(folder.stage(1).path / '.model.pth.ab12_cd9.pth')
    for path in left:
        path.write_bytes(b'half')
    again()
    assert not any(path.exists() for path in left)
    assert_same(reference, folder.path)


@pytest.mark.parametrize('point', ['in evaluation', 'in scoring', 'after selection'])
def test_weights_of_the_running_stage_are_halved(point, interrupted, reference):
    folder, again = interrupted(point)
    halve(folder.stage(0).model)
    with pytest.raises(InputError, match=r'model.pth is not a readable.*Remove it'):
        again()
    folder.stage(0).model.unlink()
    again()
    assert folder.stage(0).model.exists()
    assert_same(reference, folder.path)


def test_results_of_the_running_stage_are_emptied(interrupted, reference):
    folder, again = interrupted('in scoring')
    folder.stage(0).metrics.write_text('')
    with pytest.raises(InputError, match='metrics.json is not a JSON.*Remove it'):
        again()
    folder.stage(0).metrics.unlink()
    again()
    assert_same(reference, folder.path)


@pytest.mark.parametrize('point', ['in training', 'after selection'])
def test_pool_images_left_out_in_mid_trial(point, interrupted, copied_data, reference):
    """The advice for an image that cannot be read: remove it, and its line."""
    folder, again = interrupted(point, copied_data)
    stage = folder.stage(1 if point == 'in training' else 0)
    chosen = read_image_ids(stage.selected) if stage.selected.exists() else []
    image_id = next(i for i in read_image_ids(stage.pool) if i not in chosen)
    name = image_id.split('/')[1]
    image = copied_data / 'VOCdemo' / 'JPEGImages' / f'{name}.jpg'
    content = image.read_bytes()
    image.write_bytes(content[:100])
    with pytest.raises(InputError, match=f'{name}.jpg cannot.*\n.*remove'):
        again()
    image.unlink()
    path = copied_data / 'VOCdemo/ImageSets/Main/trainval.txt'
    path.write_text(path.read_text().replace(f'{name}\n', ''))
    if point == 'in training':
        with pytest.raises(InputError, match='Stage 1 .* is being trained'):
            again()
        again(redo_from=1)
    else:
        again()
    (change,) = json.loads(folder.state.read_text())['changes']
    assert change['change'].startswith('images: 48')
    assert image_id not in read_image_ids(folder.stage(1).pool)


def test_labelled_images_cannot_be_left_out(interrupted, copied_data):
    folder, again = interrupted('after completion', copied_data)
    name = read_image_ids(folder.stage(0).answered)[0].split('/')[1]
    path = copied_data / 'VOCdemo/ImageSets/Main/trainval.txt'
    path.write_text(path.read_text().replace(f'{name}\n', ''))
    with pytest.raises(InputError, match=f'{name}.* is labelled or selected already'):
        again()


def test_bad_boxes_of_a_pick_may_be_dropped_from_then_on(
    interrupted, copied_data, reference
):
    folder, again = interrupted('before selection', copied_data)
    name = read_image_ids(reference / 'stage_00' / 'selected.txt')[0].split('/')[1]
    path = copied_data / 'VOCdemo' / 'Annotations' / f'{name}.xml'
    text = path.read_text()
    start = text.index('<xmax>')
    path.write_text(text[:start] + '<xmax>999' + text[text.index('</xmax>') :])
    with pytest.raises(InputError, match=f'{name}.xml.*leaves its image.*bad_boxes'):
        again()
    again(**{'data_source.bad_boxes': 'drop'})
    (change,) = json.loads(folder.state.read_text())['changes']
    assert 'bad_boxes' in change['change'] and change['from_stage'] == 0


def test_stages_may_be_added_to_a_finished_trial(spoiled):
    folder, again = spoiled
    weights = folder.stage(1).model.read_bytes()
    again(**{'active_learning.stages': 3, 'active_learning.budget': [6, 4]})
    assert folder.stage(1).model.read_bytes() == weights
    assert len(read_image_ids(folder.stage(1).answered)) == 4
    assert len(read_image_ids(folder.stage(2).labelled)) == 18


@pytest.mark.parametrize('is_finished', [False, True])
def test_a_work_dir_that_cannot_be_written_to(
    is_finished, spoiled, interrupted, request, capsys
):
    if is_finished:
        folder, again = request.getfixturevalue('spoiled')
    else:
        shutil.rmtree(spoiled[0].path)
        folder, again = interrupted('in training')
    folder.lock.unlink(missing_ok=True)
    folder.lock.mkdir()  # as root, permissions would not stop us
    if is_finished:
        again()
        said = capsys.readouterr().out
        assert 'nothing to do' in said and 'pascal_voc/mAP' in said
    else:
        with pytest.raises(InputError, match='cannot be written to.*--work-dir'):
            again()


def test_a_full_disk_names_the_file_and_loses_nothing(demo_data, tmp_path, reference):
    command = [
        sys.executable,
        '-W',
        'ignore',
        str(ROOT / 'tools' / 'al_train.py'),
        str(config_path('demo_tjls')),
        '--work-dir',
        str(tmp_path / 'work'),
        '--cfg-options',
        *command_line(demo_data, **{'active_learning.stages': 1}),
    ]
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        command, env=env, capture_output=True, text=True, preexec_fn=small_files
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('ERROR')]
    assert 'stage_00/model.pth cannot be written' in line
    assert 'Traceback' not in done.stderr
    cfg = make_config(demo_data, tmp_path / 'work', **{'active_learning.stages': 1})
    run_stages(cfg)
    whole = (reference / 'stage_00' / 'model.pth').read_bytes()
    assert (tmp_path / 'work' / 'stage_00' / 'model.pth').read_bytes() == whole


def test_images_are_decoded_once(spoiled, monkeypatch, copied_data):
    from tjls_mm.active.plan import TrialPlan

    folder, again = spoiled
    checked = []
    monkeypatch.setattr(TrialPlan, 'check_images', lambda self: checked.append(1))
    more = {'active_learning.stages': 3}
    with monkeypatch.context() as patch:
        kill_at(patch, 'before selection')
        with pytest.raises(BaseException, match='^$'):
            again(**more)
    assert not checked
    image = next((copied_data / 'VOCdemo' / 'JPEGImages').glob('*.jpg'))
    os.utime(image, (1, 1))
    again(data=copied_data, **more)
    assert checked


def test_stages_added_and_killed_then(spoiled, monkeypatch):
    folder, again = spoiled
    weights = folder.stage(1).model.read_bytes()
    more = {'active_learning.stages': 3}
    for point in ('before selection', 'after selection'):
        with monkeypatch.context() as patch:
            kill_at(patch, point)
            with pytest.raises(BaseException, match='^$'):
                again(**more)
    again(**more)
    assert folder.stage(1).model.read_bytes() == weights
    assert len(read_image_ids(folder.stage(2).labelled)) == 20


def test_fewer_stages_than_are_complete(spoiled):
    with pytest.raises(InputError, match='2 stages .* are complete.*set it to 2'):
        spoiled[1](**{'active_learning.stages': 1})


def test_budgets_are_what_is_left(spoiled):
    """Of 48 images 14 are labelled: one more stage may have 34, whatever was before."""
    folder, again = spoiled
    more = {'active_learning.stages': 3, 'active_learning.budget': 34}
    with pytest.raises(InputError, match='leaves no image in the pool'):
        again(**more)
    with pytest.raises(
        InputError, match=r'14 labelled images and 1 sel.* 2 stages fit'
    ):
        again(**{**more, 'active_learning.budget': 35})
    again(**{**more, 'active_learning.budget': 30})
    assert len(read_image_ids(folder.stage(2).labelled)) == 44


def test_another_process_worked_between_a_look_and_the_lock(
    demo_data, tmp_path, reference, monkeypatch
):
    """Whoever gets the lock believes what is on disk then, not what was before."""
    from tjls_mm.active.trial import Trial

    cfg = make_config(demo_data, tmp_path / 'work')
    real, others = Trial._acquire, []

    def acquire(self, must=True):
        if not others:
            others.append(shutil.copytree(reference, tmp_path / 'work'))
        return real(self, must)

    monkeypatch.setattr(Trial, '_acquire', acquire)
    before = (reference / 'al_state.json').read_bytes()
    run_stages(cfg)
    assert (tmp_path / 'work' / 'al_state.json').read_bytes() == before
    assert_same(reference, tmp_path / 'work')


def test_killed_while_the_lists_of_fewer_images_are_written(interrupted, copied_data):
    from tjls_mm.active import stage as module

    folder, again = interrupted('after selection', copied_data)
    stage = folder.stage(0)
    chosen = set(read_image_ids(stage.selected))
    image_id = next(i for i in read_image_ids(stage.pool) if i not in chosen)
    name = image_id.split('/')[1]
    (copied_data / 'VOCdemo' / 'JPEGImages' / f'{name}.jpg').unlink()
    path = copied_data / 'VOCdemo/ImageSets/Main/trainval.txt'
    path.write_text(path.read_text().replace(f'{name}\n', ''))
    real = module.write_image_ids
    for count in (1, 2):  # labelled.txt, pool.txt
        calls = []

        def write(*args, calls=calls, count=count):
            real(*args)
            calls.append(args)
            if len(calls) == count:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, 'write_image_ids', write)
            with pytest.raises(KeyboardInterrupt):
                again()
    again()
    assert image_id not in read_image_ids(folder.stage(0).pool)
    assert folder.stage(1).model.exists()


def test_a_config_may_be_corrected_before_anything_is_trained(demo_data, tmp_path):
    from tjls_mm.engine import StageTrainLoop

    cfg = make_config(demo_data, tmp_path / 'work', **{'randomness.seed': 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageTrainLoop, 'run_iter', lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_stages(cfg)
    cfg = make_config(demo_data, tmp_path / 'work', **{'active_learning.stages': 1})
    run_stages(cfg)
    state = json.loads((tmp_path / 'work' / 'al_state.json').read_text())
    assert state['seed'] == 0 and state['stages'][0]['status'] == 'complete'


def test_giving_up_everything_checks_first(spoiled, copied_data):
    folder, again = spoiled
    name = (copied_data / 'VOCdemo/ImageSets/Main/test.txt').read_text().split()[0]
    (copied_data / 'VOCdemo' / 'Annotations' / f'{name}.xml').write_text('<')
    with pytest.raises(InputError, match=f'{name}.xml'):
        again(redo_from=0, data=copied_data)
    assert folder.stage(0).model.exists() and folder.stage(1).model.exists()


def test_files_that_look_like_ours(spoiled, interrupted, reference):
    shutil.rmtree(spoiled[0].path)
    folder, again = interrupted('in training')
    state = folder.stage(1).checkpoints()[0]
    shutil.copy(state, state.with_name('iter_1_copy.pth'))
    (folder.path / 'stage_7').mkdir()
    again()
    state.with_name('iter_1_copy.pth').unlink()
    assert_same(reference, folder.path)


def test_hooks_that_average_are_part_of_the_config(spoiled):
    average = {'default_hooks.ema': dict(type='EMAHook')}
    with pytest.raises(InputError, match=r'default_hooks.ema.type.*EMAHook'):
        spoiled[1](**average)
    spoiled[1](**{'default_hooks.logger.interval': 7})
