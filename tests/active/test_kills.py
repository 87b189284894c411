"""A kill before any change of a file: the same command ends in the same results."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import make_classifier_config, make_config
from test_trial import Killed, assert_same, checkpoint_every

from tjls_mm.active.trial import run_stages

CALLS = (
    (os, 'replace'),
    (os, 'unlink'),
    (os, 'rename'),
    (os, 'mkdir'),
    (shutil, 'rmtree'),
)
"""What changes a folder: every file of ours appears by one of them."""


class Killer:
    """Raises before the n-th change below a folder; counts them otherwise."""

    def __init__(self, monkeypatch, folder: Path, at: int | None = None) -> None:
        self.folder, self.at, self.count = str(folder), at, 0
        for owner, name in CALLS:
            monkeypatch.setattr(owner, name, self._wrap(getattr(owner, name)))

    def _wrap(self, real):
        def wrapper(path, *args, **kwargs):
            if str(path).startswith(self.folder):
                self.count += 1
                if self.count == self.at:
                    raise Killed
                if self.at and self.count > self.at:
                    return None  # the dead do not tidy up
            return real(path, *args, **kwargs)

        return wrapper


def trial(task: str, data: Path, work_dir: Path):
    if task == 'detection':
        return make_config(data, work_dir, **checkpoint_every(2))
    return make_classifier_config(data, work_dir, **checkpoint_every(4))


@pytest.fixture(scope='module', params=['detection', 'classification'])
def whole(request, demo_data, class_folders, tmp_path_factory):
    """A trial that nobody stopped, and how many changes of files it made."""
    from mmengine.registry import init_default_scope

    task = request.param
    init_default_scope('mmdet' if task == 'detection' else 'mmpretrain')
    data = demo_data if task == 'detection' else class_folders
    work_dir = tmp_path_factory.mktemp('whole') / 'work'
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch, work_dir)
        run_stages(trial(task, data, work_dir))
    return task, data, work_dir, killer.count


def kill_and_go_on(whole, at: int, tmp_path: Path) -> None:
    task, data, reference, _ = whole
    work_dir = tmp_path / f'killed_{at}'
    with pytest.MonkeyPatch.context() as patch:
        Killer(patch, work_dir, at)
        with pytest.raises(Killed):
            run_stages(trial(task, data, work_dir))
    run_stages(trial(task, data, work_dir))
    assert_same(reference, work_dir)
    left = [p.name for p in work_dir.rglob('.*') if p.name != '.lock']
    left += [p.name for p in work_dir.rglob('iter_*.pth')]
    assert not left
    shutil.rmtree(work_dir)


def test_kills_here_and_there(whole, tmp_path):
    count = whole[3]
    assert count > 40
    kill_and_go_on(whole, count // 3, tmp_path)


@pytest.mark.slow
def test_a_kill_before_every_change_of_a_file(whole, tmp_path):
    failed = {}
    for at in range(1, whole[3] + 1):
        try:
            kill_and_go_on(whole, at, tmp_path)
        except Exception as error:  # all of them are looked at before it fails
            failed[at] = repr(error)[:500]
    assert not failed
