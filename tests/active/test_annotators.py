"""Labelled is what was answered: fewer, nothing in it, later."""

import json

import pytest
from conftest import make_config

from tjls_mm.active.trial import run_stages
from tjls_mm.annotation import Annotator
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.registry import ANNOTATORS
from tjls_mm.stage_folder import TrialFolder


@ANNOTATORS.register_module(force=True)
class HalfHearted(Annotator):
    """Answers every other image."""

    def annotate(self, source, image_ids, folder):
        return image_ids[::2]


@ANNOTATORS.register_module(force=True)
class Desk(Annotator):
    """Answers what somebody has put into a list file meanwhile."""

    def annotate(self, source, image_ids, folder):
        desk = folder.path / 'desk.txt'
        return read_image_ids(desk) if desk.exists() else None


def trial(demo_data, tmp_path, annotator: str, **options):
    cfg = make_config(
        demo_data,
        tmp_path / 'work',
        'demo_random',
        **{
            'active_learning.annotator': dict(type=f'tjls_mm.{annotator}'),
            'active_learning.stages': 3,
            'train_cfg.max_epochs': 1,
            'param_scheduler.0.total_steps': 1,
            **options,
        },
    )
    return cfg, TrialFolder(tmp_path / 'work')


def test_unanswered_images_go_back_to_the_pool(demo_data, tmp_path):
    cfg, folder = trial(demo_data, tmp_path, 'HalfHearted')
    run_stages(cfg)
    sizes = [len(read_image_ids(folder.stage(k).labelled)) for k in range(3)]
    assert sizes == [8, 11, 14]
    first, second = folder.stage(0), folder.stage(1)
    selected, answered = (
        read_image_ids(path) for path in (first.selected, first.answered)
    )
    assert answered == selected[::2]
    assert set(selected[1::2]) <= set(read_image_ids(second.pool))
    assert json.loads(first.asked.read_text())['asked'] == 6
    assert json.loads(first.metrics.read_text())['picks']['count'] == 3


def test_a_trial_waits_and_goes_on(demo_data, tmp_path, capsys):
    cfg, folder = trial(demo_data, tmp_path, 'Desk')
    run_stages(cfg)
    first = folder.stage(0)
    said = capsys.readouterr().out
    assert 'stage 1/3 waits for the labels of 6 images' in said
    assert str(first.selected) in said
    state = json.loads(folder.state.read_text())
    assert [s['status'] for s in state['stages']] == ['waiting']
    assert not first.answered.exists() and not folder.stage(1).path.exists()
    before = {path: path.stat().st_mtime_ns for path in (first.model, first.selected)}

    run_stages(cfg)  # nobody has answered yet
    assert 'waits for the labels' in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}

    selected = read_image_ids(first.selected)
    write_image_ids(first.path / 'desk.txt', selected[:5])
    run_stages(cfg)
    assert read_image_ids(first.answered) == selected[:5]
    assert len(read_image_ids(folder.stage(1).labelled)) == 13
    state = json.loads(folder.state.read_text())
    assert [s['status'] for s in state['stages']] == ['complete', 'waiting']


def test_nothing_in_it_is_an_answer(copied_data, tmp_path):
    """An image whose annotation names no object is labelled."""
    cfg, folder = trial(copied_data, tmp_path, 'Oracle')
    cfg.active_learning.stages = 2
    for path in (copied_data / 'VOCdemo' / 'Annotations').glob('*.xml'):
        if path.stem in test_images(copied_data):
            continue
        path.write_text('<annotation></annotation>')
    run_stages(cfg)
    record = json.loads(folder.stage(1).metrics.read_text())
    assert record['n_labelled'] == 14 and record['n_boxes'] == 0


def test_images(data) -> set[str]:
    names = (data / 'VOCdemo/ImageSets/Main/test.txt').read_text().split()
    return set(names)


test_images.__test__ = False


def test_answers_for_other_images_are_refused(demo_data, tmp_path):
    cfg, folder = trial(demo_data, tmp_path, 'Desk')
    run_stages(cfg)
    first = folder.stage(0)
    stranger = read_image_ids(first.labelled)[:1]
    write_image_ids(first.path / 'desk.txt', stranger)
    with pytest.raises(InputError, match='Desk answered for.*selected.txt'):
        run_stages(cfg)
    write_image_ids(first.path / 'desk.txt', read_image_ids(first.selected))
    run_stages(cfg)
    assert first.answered.exists()


def test_weights_removed_while_waiting_keep_the_question(demo_data, tmp_path):
    """Who has begun to label must not find another question."""
    cfg, folder = trial(demo_data, tmp_path, 'Desk')
    run_stages(cfg)
    first = folder.stage(0)
    selected = read_image_ids(first.selected)
    write_image_ids(first.path / 'desk.txt', selected)
    run_stages(cfg)
    second = folder.stage(1)
    asked = second.selected.stat().st_mtime_ns
    second.model.unlink()
    run_stages(cfg)
    assert second.model.exists() and second.selected.stat().st_mtime_ns == asked
    assert read_image_ids(first.answered) == selected
