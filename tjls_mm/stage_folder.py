"""The files of a trial and of its stages: their names are spelt here only."""

import re
import shutil
from pathlib import Path


def _file(name: str, meaning: str) -> property:
    return property(lambda self: self.path / name, doc=meaning)


class _Folder:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)


class StageFolder(_Folder):
    """What a stage reads and writes; a step's last file marks it as done."""

    labelled = _file('labelled.txt', 'image_ids of labelled images, sorted.')
    pool = _file('pool.txt', 'image_ids of the pool, sorted.')
    held_out = _file('held_out.txt', 'Labelled, but no branch is trained on that.')
    bank = _file('bank.txt', 'Reference images of the context bank.')
    config = _file('config.py', "Config for mmdet's and mmpretrain's own tools.")
    trained_on = _file('pool_trained_on.txt', 'Pool images that training has seen.')
    model = _file('model.pth', 'Weights at the end of training.')
    last_checkpoint = _file('last_checkpoint', 'Path of the newest training state.')
    metrics = _file('metrics.json', 'Results, step by step (see StageRecord).')
    outputs = _file('outputs', 'Folder of pool outputs.')
    outputs_index = _file('outputs/index.json', 'Mark of the outputs, written last.')
    measured = _file('outputs/measured.txt', 'Labelled images that judge a branch.')
    selection = _file('selection.csv', 'Scores of the pool and ranks of the picks.')
    gallery = _file('selected.png', 'What the picks look like.')
    pick_classes = _file('picks.png', 'Classes of the picks, expected and labelled.')
    selected = _file('selected.txt', 'Picks, first choice first.')
    to_annotate = _file('to_annotate', 'Folder for people: images, suggestions.')
    drop = _file('answers', 'Folder where people put what they labelled.')
    problems = _file('problems.csv', 'What is wrong with it.')
    annotations = _file('annotations.json', 'Labels of people; others are on disk.')
    asked = _file('annotator.json', 'Who was asked, and classes of the answer.')
    answered = _file('answered.txt', 'Picks that got an answer.')

    def outputs_of(self, part: str) -> Path:
        """Folder of the outputs of 'pool' or 'labelled' images."""
        return self.outputs / part

    def checkpoint(self, iteration: int) -> Path:
        """State of training after so many iterations."""
        return self.path / f'iter_{iteration}.pth'

    def checkpoints(self) -> list[Path]:
        """States of training, oldest first."""
        # By number: iter_9.pth is older than iter_10.pth.
        numbers = _numbers(self.path, r'iter_(\d+)\.pth')
        return [self.checkpoint(number) for number in numbers]

    def remove_checkpoints(self, keep: Path | None = None) -> None:
        """Remove states of training, all but one."""
        for path in self.checkpoints():
            if path != keep:
                path.unlink(missing_ok=True)
        if keep is None:
            self.last_checkpoint.unlink(missing_ok=True)

    def remove_outputs(self) -> None:
        # The mark first: what is half removed must not be taken for whole.
        self.outputs_index.unlink(missing_ok=True)
        shutil.rmtree(self.outputs, ignore_errors=True)


class TrialFolder(_Folder):
    """The work dir of a trial."""

    state = _file('al_state.json', 'Manifest: what the work dir holds, how far.')
    lock = _file('.lock', 'Held by the process that runs the trial.')
    initial = _file('initial.txt', 'image_ids labelled at stage 0, sorted.')
    features = _file('pretrained_features', 'Folder of pretrained features.')
    feature_list = _file('pretrained_features.txt', 'image_ids that have them.')
    test = _file('test.txt', 'image_ids of the test images, sorted.')
    summary = _file('summary.json', 'Rows of all complete stages.')
    curve_csv = _file('curve.csv', 'The same as a table.')
    kept = _file('kept_answers', 'What people labelled of stages given up.')
    curve_png = _file('curve.png', 'The learning curve.')

    def stage(self, number: int) -> StageFolder:
        return StageFolder(self.path / f'stage_{number:02d}')

    def remove_stage(self, number: int) -> Path | None:
        """Remove the folder of a stage; where what people labelled is kept, if any."""
        stage = self.stage(number)
        asked = [p for p in (stage.drop, stage.annotations) if _holds_work(p)]
        kept = None
        if asked:
            count = 0
            while (kept := self.kept / f'{stage.path.name}_{count}').exists():
                count += 1
            kept.mkdir(parents=True)
            for path in asked:
                path.rename(kept / path.name)
        shutil.rmtree(stage.path)
        return kept

    def stage_numbers(self) -> list[int]:
        """Of the stage folders that are there; other folders are not ours."""
        numbers = _numbers(self.path, r'stage_(\d{2,})')
        return [number for number in numbers if self.stage(number).path.is_dir()]


class RankingFolder(_Folder):
    """The work dir of a ranking of images."""

    lock = TrialFolder.lock
    outputs = _file('outputs', 'Folder of what models said, kept for the next time.')
    images = _file('images.json', 'Which images were found, and which are unreadable.')
    ranking = _file('ranking.csv', 'Scores of the pool and ranks of the picks.')
    gallery = _file('gallery.png', 'What the picks look like.')
    to_annotate = _file('to_annotate', 'Folder for who labels the picks.')
    picked_images = _file('to_annotate/images', 'The picks, named by their rank.')
    picked_names = _file('to_annotate/images.csv', 'Which of these is which image.')
    record = _file('ranking.json', 'How the picks were made.')
    selected = StageFolder.selected


def _holds_work(path: Path) -> bool:
    return path.exists() and (path.is_file() or any(path.iterdir()))


def _numbers(folder: Path, pattern: str) -> list[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(m[1]) for m in map(re.compile(pattern).fullmatch, names) if m)
