"""The loop over stages: files are the state between them."""

import contextlib
import gc
import io
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.runner import Runner

from tjls_mm.active.main_process import on_every_process, on_main_process
from tjls_mm.active.manifest import Manifest, flatten_config
from tjls_mm.active.preflight import TrialPlan, check_pretrained
from tjls_mm.active.report import (
    draw_gallery,
    print_table,
    stage_line,
    stage_row,
    write_report,
)
from tjls_mm.active.stage_config import (
    StageInputs,
    bank_size,
    derive_stage_config,
    derive_standalone_config,
    plan_batches,
)
from tjls_mm.active.stage_record import StageRecord
from tjls_mm.engine.pool_scoring_hook import TRAINED_ON_FILE
from tjls_mm.engine.stage_checkpoint_hook import (
    MODEL_FILE,
    RESUME_GLOB,
    read_checkpoint,
)
from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.query.pool_outputs import SCORES_FILE, read_scores
from tjls_mm.randomness import derive_seed, generator

SELECTED_FILE = 'selected.txt'
TEST_LIST = 'test.txt'


def run_stages(cfg: Config, redo_from: int | None = None) -> Path:
    """Run a trial, or what is left of it.

    Args:
        cfg: Config of the trial, with ``work_dir`` and ``randomness.seed``.
        redo_from: Give up this stage and those after it first.

    Returns:
        The work dir with all results.

    Raises:
        InputError: If config, data or work dir cannot be used; nothing is
            written then.
    """
    with Trial(cfg, redo_from) as trial:
        for number in trial.stages_left():
            lists = trial.begin(number)
            trial.train_and_score(number, lists)
            trial.select(number, lists)
            trial.complete(number)
        trial.report()
    return trial.work_dir


class Trial:
    """One run of all stages with one seed, on disk.

    Process 0 reads and writes files; the others follow.

    Args:
        cfg: Config of the trial.
        redo_from: Give up this stage and those after it first.
    """

    def __init__(self, cfg: Config, redo_from: int | None = None) -> None:
        self.cfg = cfg
        self.work_dir = Path(cfg.work_dir)
        self.redo_from = redo_from
        self.world_size = get_world_size()
        self.manifest = Manifest(self.work_dir)
        self._lock = FileLock(self.work_dir / '.lock', timeout=0)

    def __enter__(self) -> 'Trial':
        self.plan = on_every_process(TrialPlan, self.cfg, self.world_size)
        try:
            on_main_process(self._open)
        except BaseException:
            self._lock.release()
            raise
        if not is_main_process():
            self.manifest.open(
                flatten_config(self.cfg),
                self.plan.seed,
                self.plan.image_ids,
                self.plan.initial,
            )
        return self

    def __exit__(self, *exc) -> None:
        self._lock.release()

    def _open(self) -> None:
        fresh = not self.manifest.path.exists()
        if fresh and self.work_dir.exists() and any(self.work_dir.glob('stage_*')):
            raise InputError(
                f'{self.work_dir} holds stages but no {self.manifest.path.name}: it '
                'is not the work dir of a trial. Use another --work-dir.'
            )
        if fresh:
            check_pretrained(self.cfg)
            self.plan.check_files(self.plan.initial)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f'Another process is running the trial in {self.work_dir}. Wait '
                'for it, or use another --work-dir.'
            ) from None
        self.manifest.open(
            flatten_config(self.cfg),
            self.plan.seed,
            self.plan.image_ids,
            self.plan.initial,
            self.redo_from,
        )
        if self.redo_from is not None:
            self._give_up(self.redo_from)
        if fresh:
            write_image_ids(self.work_dir / TEST_LIST, self.plan.test_ids)
            self.manifest.save()
        elif self.manifest.n_complete < self.plan.n_stages:
            check_pretrained(self.cfg)
            # Files may have changed while nothing ran.
            labelled = self._membership(self.manifest.n_complete)[0]
            self.plan.check_files(labelled)
        number = self.manifest.n_complete
        if self.manifest.knows(number):
            if list(self.manifest.stage_folder(number).glob(RESUME_GLOB)):
                self.manifest.check_processes(number, self.world_size)
            self._check_checkpoint(number)

    def _give_up(self, number: int) -> None:
        self.manifest.save()
        for folder in sorted(self.work_dir.glob('stage_*')):
            if int(folder.name.removeprefix('stage_')) >= number:
                shutil.rmtree(folder)

    def _check_checkpoint(self, number: int) -> None:
        folder = self.manifest.stage_folder(number)
        kept = f'Stages 0 to {number - 1} are kept.' if number else ''
        model = folder / MODEL_FILE
        if model.exists():
            read_checkpoint(
                model,
                f'It holds the weights of stage {number}. Remove it, and the same '
                f'command trains this stage again. {kept}',
            )
            return
        for path in folder.glob(RESUME_GLOB):
            read_checkpoint(
                path,
                f'Remove it, and the same command trains stage {number} from its '
                f'beginning. {kept}',
            )

    def stages_left(self) -> Iterator[int]:
        """Numbers of the stages that are not complete."""
        self._say(
            f'{self.work_dir.name}: {len(self.plan.image_ids)} images, '
            f'{len(self.plan.initial)} labelled at first, '
            f'{self.plan.n_stages} stages, seed {self.plan.seed}, '
            + plan_batches(self.cfg, self.world_size).describe(self.world_size)
        )
        done = self.manifest.n_complete
        if done == self.plan.n_stages:
            self._say(f'All {done} stages are complete: nothing to do.')
        elif done:
            self._say(f'{done} of {self.plan.n_stages} stages are complete.')
        return iter(range(done, self.plan.n_stages))

    def _membership(self, number: int) -> tuple[list[str], list[str]]:
        """Labelled and pool ids of a stage, sorted, from what was selected."""
        labelled = set(self.plan.initial)
        for earlier in range(number):
            folder = self.manifest.stage_folder(earlier)
            selected = read_image_ids(folder / SELECTED_FILE)
            unknown = [i for i in selected if i in labelled]
            if unknown or len(selected) != self.plan.budgets[earlier]:
                raise InputError(
                    f'{folder / SELECTED_FILE}: expected {self.plan.budgets[earlier]}'
                    f' ids of the pool, found {len(selected)}, of which '
                    f'{len(unknown)} were labelled before.'
                )
            labelled |= set(selected)
        return sorted(labelled), sorted(set(self.plan.image_ids) - labelled)

    def begin(self, number: int) -> StageInputs:
        """Write the lists of a stage.

        Args:
            number: Of the stage.

        Returns:
            What it is run on.
        """
        labelled, pool = self._membership(number)
        folder = self.manifest.stage_folder(number)
        inputs = StageInputs(
            number,
            folder,
            len(labelled),
            len(pool),
            self.work_dir / TEST_LIST,
            self.world_size,
        )
        on_main_process(self._write_lists, inputs, labelled, pool)
        return inputs

    def _write_lists(
        self, stage: StageInputs, labelled: list[str], pool: list[str]
    ) -> None:
        started = time.perf_counter()
        folder = stage.folder
        if not self.manifest.knows(stage.number) and folder.exists():
            # Begun and not noted, or given up and not removed, when a kill came.
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob('.*'):  # half-written when a kill came
            leftover.unlink()
        write_image_ids(folder / 'labelled.txt', labelled)
        write_image_ids(folder / 'pool.txt', pool)
        self.plan.source.write_annotation_lists(
            folder, {'labelled': labelled, 'pool': pool}
        )
        config = derive_stage_config(self.cfg, self.plan.source, stage)
        size = bank_size(config)
        if size:
            bank = draw_bank(labelled, pool, size, self.plan.seed, stage.number)
            write_image_ids(folder / 'bank.txt', bank)
        with atomic_path(folder / 'config.py') as path:
            derive_standalone_config(config).dump(path)
        counts = self.plan.source.count_labels(labelled)
        record = StageRecord(folder)
        record.update(
            stage=stage.number,
            n_labelled=len(labelled),
            n_pool=len(pool),
            # Besides images, what the task labels in them, such as boxes.
            **{f'n_{k}': sum(v.values()) for k, v in counts.items() if k != 'images'},
            **{f'labelled_{kind}': count for kind, count in counts.items()},
            training={**config.active_learning.volume, 'processes': self.world_size},
        )
        record.set_seconds('prepare', time.perf_counter() - started)
        self.manifest.begin(stage.number, ['labelled.txt', 'pool.txt'], self.world_size)

    def train_and_score(self, number: int, stage: StageInputs) -> None:
        """Train, evaluate and score: what an MMEngine Runner does in a stage.

        Args:
            number: Of the stage.
            stage: What it is run on.
        """
        if on_main_process(self._is_scored, stage):
            return
        cfg = derive_stage_config(self.cfg, self.plan.source, stage)
        _continue_from_files(cfg, stage.folder)
        runner = _build_runner(cfg)
        runner.train()
        # A Runner is full of reference cycles; its memory would pile up.
        del runner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        barrier()

    def _is_scored(self, stage: StageInputs) -> bool:
        needs_scores = self.plan.query.needs and stage.n_pool
        return StageRecord(stage.folder).has('metrics') and (
            not needs_scores or (stage.folder / SCORES_FILE).exists()
        )

    def select(self, number: int, stage: StageInputs) -> None:
        """Choose what to label next, and have it labelled.

        Args:
            number: Of the stage; the last one selects nothing.
            stage: What it was run on.
        """
        if number < len(self.plan.budgets):
            on_main_process(self._select, stage)

    def _select(self, stage: StageInputs) -> None:
        started = time.perf_counter()
        folder, number = stage.folder, stage.number
        pool_ids = read_image_ids(folder / 'pool.txt')
        pool: dict[str, dict[str, float]] = {image_id: {} for image_id in pool_ids}
        if self.plan.query.needs:
            logits = read_scores(folder / SCORES_FILE)
            if logits.keys() != pool.keys():
                raise InputError(
                    f'{folder / SCORES_FILE} does not score the images of pool.txt: '
                    f'{len(logits)} against {len(pool)}. Remove it, and the same '
                    'command scores the pool again from model.pth.'
                )
            pool = {image_id: {'logit': logits[image_id]} for image_id in pool}
        selected = self.plan.query.select(
            pool,
            self.plan.budgets[number],
            derive_seed(self.plan.seed, number, 'query'),
        )
        _check_selected(selected, pool, self.plan.budgets[number])
        self.plan.annotator.label(self.plan.source, selected, number)
        record = StageRecord(folder)
        record.update(picks=self._describe(selected, pool, folder))
        try:
            draw_gallery(folder / 'selected.png', selected, self.plan.source.open_image)
        # A picture for the eye must not stop a trial, whatever a file holds.
        except Exception as error:
            self._say(f'No gallery of the picks of stage {number}: {error}')
        record.add_seconds('select', time.perf_counter() - started)
        write_image_ids(folder / SELECTED_FILE, selected)

    def _describe(self, selected: list[str], pool, folder: Path) -> dict:
        picks = {
            'count': len(selected),
            **self.plan.source.count_labels(selected),
        }
        path = folder / TRAINED_ON_FILE
        if path.exists():
            trained_on = set(read_image_ids(path))
            hits = sum(image_id in trained_on for image_id in selected)
            picks['trained_on_share'] = hits / len(selected)
            picks['trained_on_chance'] = len(trained_on) / len(pool)
        return picks

    def complete(self, number: int) -> None:
        """Mark a stage as complete and say how it went."""
        on_main_process(self._complete, number)

    def _complete(self, number: int) -> None:
        folder = self.manifest.stage_folder(number)
        files = [SELECTED_FILE] if (folder / SELECTED_FILE).exists() else []
        self.manifest.complete(number, files)
        self._say(stage_line(number, self.plan.n_stages, StageRecord(folder).read()))
        self._write_report()

    def _rows(self) -> list[dict]:
        return [
            stage_row(k, StageRecord(self.manifest.stage_folder(k)).read())
            for k in range(self.manifest.n_complete)
        ]

    def _write_report(self) -> None:
        write_report(self.work_dir, self.work_dir.name, self.plan.seed, self._rows())

    def report(self) -> None:
        """Print the table of the trial and where its picture is."""
        if is_main_process():
            # A kill may have come between the last stage's end and its report.
            self._write_report()
            print_table(self.work_dir.name, self._rows())
            self._say(f'Learning curve: {self.work_dir / "curve.png"}')

    @staticmethod
    def _say(text: str) -> None:
        if is_main_process():
            print(text, flush=True)


def draw_bank(
    labelled: list[str], pool: list[str], size: int, seed: int, stage: int
) -> list[str]:
    """Reference images of the context bank.

    Args:
        labelled: Sorted ids.
        pool: Sorted ids.
        size: B - 1, B being the batch that images attend over.
        seed: Of the trial.
        stage: Its number.

    Returns:
        ⌈B/2⌉ labelled ids, then pool ids; where one side is short, the other
        fills up.

    Raises:
        InputError: If both together are fewer than ``size``.
    """
    if len(labelled) + len(pool) < size:
        raise InputError(
            f'The context bank needs {size} images (batch size less one), the data '
            f'set has {len(labelled) + len(pool)}: use a smaller '
            'train_dataloader.batch_size.'
        )
    from_labelled = min((size + 2) // 2, len(labelled))
    from_labelled = max(from_labelled, size - len(pool))
    rng = generator(seed, stage, 'bank')
    rows = rng.choice(len(labelled), from_labelled, replace=False)
    others = rng.choice(len(pool), size - from_labelled, replace=False)
    return [labelled[i] for i in rows] + [pool[i] for i in others]


def _check_selected(selected: list[str], pool, budget: int) -> None:
    if len(set(selected)) != budget or not set(selected) <= pool.keys():
        raise RuntimeError(
            f'The query strategy returned {len(set(selected))} distinct ids, '
            f'expected {budget} of the pool.'
        )


def _continue_from_files(cfg: Config, folder: Path) -> None:
    """Point a stage config at what an earlier run of the stage left."""
    cfg.resume = False
    if (folder / MODEL_FILE).exists():
        cfg.load_from = str(folder / MODEL_FILE)
        cfg.train_cfg.trained = True
        return
    # By iteration: a kill can leave the checkpoint before beside the last one.
    checkpoints = sorted(
        folder.glob(RESUME_GLOB), key=lambda p: int(p.stem.removeprefix('iter_'))
    )
    if checkpoints:
        cfg.load_from = str(checkpoints[-1])
        cfg.resume = True


def _build_runner(cfg: Config) -> Runner:
    if cfg.active_learning.get('console', 'log') == 'log':
        return Runner.from_cfg(cfg)
    # The log file gets everything; the console shows bars, summaries, warnings.
    with contextlib.redirect_stdout(io.StringIO()):
        runner = Runner.from_cfg(cfg)
    for handler in runner.logger.handlers if is_main_process() else []:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stdout)
            handler.setLevel(logging.WARNING)
    return runner
