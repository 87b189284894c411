"""A stage: seven steps, each a function of files."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner

from tjls_mm.active.bank import draw_bank
from tjls_mm.active.predicted_answers import predicted_answers
from tjls_mm.active.stage_config import (
    StageInputs,
    derive_evaluation_config,
    derive_standalone_config,
)
from tjls_mm.engine.evaluate import run_evaluation
from tjls_mm.engine.gather_stage import gather_stage
from tjls_mm.errors import InputError, raise_first
from tjls_mm.files import (
    atomic_path,
    file_hash,
    read_json,
    remove_leftovers,
    write_json,
)
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.outputs import Outputs
from tjls_mm.processes import on_main_process
from tjls_mm.query.selection import check_selection, read_picked, write_selection
from tjls_mm.query.strategy import Selection
from tjls_mm.randomness import derive_seed, generator
from tjls_mm.report.classes import draw_classes
from tjls_mm.report.control import add_labels, mean_loss, no_better
from tjls_mm.report.gallery import draw_gallery
from tjls_mm.report.nearest import HASHED, thumbnail
from tjls_mm.report.picks import Explanation, explain_picks, predicted_marks
from tjls_mm.stage_record import StageRecord

if TYPE_CHECKING:
    from tjls_mm.active.trial import Trial


_RUNS = itertools.count(1)


class Stage:
    """One stage of a trial.

    Every step asks first whether it is done: whether the file that it writes last is
    there. Process 0 looks and tells the others, so all do the same.
    """

    def __init__(self, trial: Trial, number: int) -> None:
        self.trial = trial
        self.plan = trial.plan
        self.number = number
        self.folder = trial.folder.stage(number)
        self.record = StageRecord(self.folder)

    def prepare(self) -> None:
        """Write who is labelled, who is not, and the config."""
        prepared = on_main_process(self._prepare)
        n_labelled, n_pool, self.budget, self.answer_files = prepared
        self.plan.source.use_answers(self.answer_files)
        self.inputs = self._inputs(n_labelled, n_pool)

    def _inputs(self, n_labelled: int, n_pool: int) -> StageInputs:
        test, size = self.trial.folder.test, self.trial.world_size
        answers = self.answer_files
        return StageInputs(
            self.number, self.folder, n_labelled, n_pool, test, size, answers
        )

    def _prepare(self) -> tuple[int, int, int, tuple[Path, ...]]:
        started = time.perf_counter()
        folder, manifest = self.folder, self.trial.manifest
        labelled, pool = self.trial.membership(self.number)
        self.answer_files = self.trial.use_answers(self.number)
        budget = self.plan.budget(self.number, len(labelled))
        sizes = len(labelled), len(pool)
        knows = manifest.knows(self.number)
        if not knows and folder.path.exists():
            # Begun and not noted, or given up and not removed, when a kill came.
            self.trial.folder.remove_stage(self.number)
        folder.path.mkdir(exist_ok=True)
        remove_leftovers(folder.path)
        # What is not trained yet is prepared anew: settings may have changed.
        is_trained = folder.model.exists() or folder.checkpoints()
        done = knows and is_trained and folder.config.exists()
        if done and self.record.has('n_labelled'):
            if read_image_ids(folder.pool) == pool:
                manifest.begin(self.number, self._lists(), self.trial.world_size)
                return *sizes, budget, self.answer_files
        if knows:
            lists = folder.labelled, folder.pool, folder.held_out, folder.bank
            manifest.forget(self.number, lists)
        # Written last: without it, a kill from here on prepares the stage again.
        folder.config.unlink(missing_ok=True)
        write_image_ids(folder.labelled, labelled)
        write_image_ids(folder.pool, pool)
        self.plan.source.write_annotation_lists(
            folder.path, {'labelled': labelled, 'pool': pool}
        )
        stage = self._inputs(*sizes)
        deriver, seed = self.plan.deriver, self.plan.seed
        count = deriver.held_out_count(len(labelled))
        if count:
            rng = generator(seed, self.number, 'held out')
            rows = rng.choice(len(labelled), count, replace=False)
            write_image_ids(folder.held_out, [labelled[row] for row in sorted(rows)])
        size = deriver.bank_size(self.trial.world_size)
        if size and not folder.model.exists():
            bank = draw_bank(labelled, pool, size, seed, self.number)
            write_image_ids(folder.bank, bank)
        config = deriver.derive(stage)
        counts = self.plan.source.count_labels(labelled)
        self.record.update(
            stage=self.number,
            n_labelled=len(labelled),
            n_pool=len(pool),
            # Besides images, what the task labels in them, such as boxes.
            **{f'n_{k}': sum(v.values()) for k, v in counts.items() if k != 'images'},
            **{f'labelled_{kind}': count for kind, count in counts.items()},
            training=deriver.volume(config, self.trial.world_size),
        )
        if self.plan.uses_features(self.number):
            self.record.update(features=manifest.content['features'])
        self.record.set_seconds('prepare', time.perf_counter() - started)
        with atomic_path(folder.config) as path:
            derive_standalone_config(config).dump(path)
        manifest.begin(self.number, self._lists(), self.trial.world_size)
        return *sizes, budget, self.answer_files

    def _lists(self) -> list:
        folder = self.folder
        lists = (folder.labelled, folder.pool, folder.held_out, folder.bank)
        return [path for path in lists if path.exists()]

    @cached_property
    def config(self) -> Config:
        """Of the stage, as derived for this run."""
        return self.plan.deriver.derive(self.inputs)

    def train(self) -> None:
        """Train; evaluation and gathering follow on the model in memory."""
        is_trained, checkpoint = on_main_process(self._training_state)
        if is_trained:
            return
        config = self.config
        config.resume = checkpoint is not None
        if checkpoint:
            config.load_from = checkpoint
        with self._runner(config) as runner:
            runner.train()

    def _training_state(self) -> tuple[bool, str | None]:
        folder = self.folder
        if folder.model.exists():
            folder.remove_checkpoints()  # a kill can leave them beside the weights
            return True, None
        # What was made of weights that are no more; what people do is kept.
        folder.remove_outputs()
        content = self.record.read()
        if content.pop('metrics', None) is not None:
            write_json(folder.metrics, content)
        asked = self.trial.manifest.is_waiting(self.number)
        if not asked and not folder.answered.exists():
            folder.selected.unlink(missing_ok=True)
        checkpoints = folder.checkpoints()
        return False, str(checkpoints[-1]) if checkpoints else None

    def evaluate(self) -> None:
        """Evaluate the weights on the test images."""
        if on_main_process(self.record.has, 'metrics'):
            return
        with self._runner_of_weights() as runner:
            run_evaluation(runner)

    def gather(self) -> None:
        """Gather what the query strategy needs of the pool."""
        deriver = self.plan.deriver
        if not deriver.scores_pool(self.inputs) or on_main_process(self._is_gathered):
            return
        with self._runner_of_weights() as runner:
            model = getattr(runner.model, 'module', runner.model)
            score, seed = self.config.score_dataloader, deriver.gather_seed(self.number)
            folder = self.folder
            gather_stage(model, folder, folder, score, deriver.needs, seed)

    def _is_gathered(self) -> bool:
        folder = self.folder
        has_logit = 'logit' in self.plan.learner.provides
        if has_logit and not self.record.has('discriminator'):
            return False
        # Whoever selected needs them no more; they may be gone.
        return self._is_selected() or (
            folder.outputs_index.exists()
            and read_json(folder.outputs_index).get('pool') == file_hash(folder.pool)
        )

    def select(self) -> None:
        """Choose what to label next."""
        if not on_main_process(self._is_selected):
            on_main_process(self._select)

    def _is_selected(self) -> bool:
        folder = self.folder
        mark = folder.selected if self.budget else folder.selection
        return not self.inputs.n_pool or mark.exists()

    def _select(self) -> None:
        started = time.perf_counter()
        folder, budget, deriver = self.folder, self.budget, self.plan.deriver
        image_ids = read_image_ids(folder.pool)
        pool = Outputs.from_arrays(image_ids, {})
        if deriver.scores_pool(self.inputs):
            pool = Outputs.open(folder.outputs_of('pool'), folder.pool)
            # A ladder gathers for other strategies too: each gets what it asked for.
            asked = {*deriver.needs.pool, 'logit'}
            asked |= {'boxes'} if 'box_feature' in asked else set()
            kept = {name: pool[name] for name in pool if name in asked}
            pool = Outputs.from_arrays(pool.image_ids, kept)
        if not budget:  # the last stage: scores, and nothing to choose
            write_selection(folder.selection, pool, [], {})
            return
        pool = self.trial.add_features(pool, self.plan.query.needs.pool)
        labelled = self._labelled()
        seed = derive_seed(self.plan.seed, self.number, 'query')
        answer = self.plan.query.select(pool, labelled, budget, seed)
        selection = check_selection(
            answer, len(image_ids), budget, self.plan.method.query['type']
        )
        selected = [image_ids[row] for row in selection.rows]
        why = self._explain(selected, pool, labelled, selection)
        columns = {**selection.columns, **why.columns}
        write_selection(folder.selection, pool, selection.rows, columns, why.texts)
        with self._for_the_eye('gallery'):
            self._draw_gallery(selected, pool, why.captions)
        with self._for_the_eye('classes'):
            unit = 'boxes' if 'boxes' in pool else 'images'
            draw_classes(folder.pick_classes, why.record, unit)
        self.record.add_seconds('select', time.perf_counter() - started)
        self.record.update(picks=why.record)
        write_image_ids(folder.selected, selected)

    @contextlib.contextmanager
    def _for_the_eye(self, what: str) -> Iterator[None]:
        """What people look at must not stop a trial, whatever a file holds."""
        try:
            yield
        except Exception as error:
            self.trial.say(f'No {what} of picks of stage {self.number}: {error}')

    def _explain(
        self,
        selected: list[str],
        pool: Outputs,
        labelled: Outputs,
        selection: Selection,
    ) -> Explanation:
        source, thumbnails, why = self.plan.source, [], Explanation()
        with self._for_the_eye('thumbnails'):
            thumbnails = [thumbnail(source.open_image(i)) for i in selected[:HASHED]]
        seed = derive_seed(self.plan.seed, self.number, 'why')
        with self._for_the_eye('reasons'):
            why = explain_picks(
                pool, labelled, selection, source.classes, thumbnails, seed
            )
        return why

    def _draw_gallery(
        self, selected: list[str], pool: Outputs, captions: Mapping[str, str]
    ) -> None:
        source = self.plan.source
        size = getattr(source, 'image_size', None)
        marks = predicted_marks(pool, source.classes, size)
        draw_gallery(self.folder.gallery, selected, source.open_image, marks, captions)

    def _labelled(self) -> Outputs:
        """What the query strategy needs of the labelled images."""
        gathered = self.plan.deriver.needs.gathered
        found = Outputs.open(self.folder.outputs_of('labelled')) if gathered else {}
        image_ids = read_image_ids(self.folder.labelled)
        return self.trial.labelled_outputs(image_ids, found, self.plan.query.needs)

    def annotate(self) -> bool:
        """Ask the annotator; whether there is an answer, else the trial waits."""
        return not self.budget or on_main_process(self._annotate)

    def _annotate(self) -> bool:
        folder, source = self.folder, self.plan.source
        if folder.answered.exists():
            self.trial.use_answers(self.number + 1)
            if 'count' not in self.record.read().get('picks', {}):
                answered = read_image_ids(folder.answered)
                self._record_picks(answered, self._describe(answered))
            return True
        selected = read_image_ids(folder.selected)
        annotator = self.plan.annotator
        annotator.predictions = self._predictions
        # Of an answer that a kill cut short, perhaps by another annotator.
        folder.annotations.unlink(missing_ok=True)
        answered = annotator.annotate(source, selected, folder)
        if not answered:
            return False
        strangers = sorted(set(answered) - set(selected))
        if strangers or len(set(answered)) < len(answered):
            whom = repr(strangers[0]) if strangers else 'an image twice'
            raise InputError(
                f'{type(annotator).__name__} answered for {whom}: expected '
                f'some of the {len(selected)} images of {folder.selected}, each once.'
            )
        if folder.annotations.exists():
            source.use_answers([*self.answer_files, folder.annotations])
            raise_first(source.annotation_problems(answered, 'selected'))
        picks = self._describe(list(answered))
        kind = self.plan.settings.annotator['type']
        asked = {'annotator': kind, 'asked': len(selected)}
        write_json(folder.asked, {**asked, **picks})
        self._record_picks(list(answered), picks)
        write_image_ids(folder.answered, answered)
        return True

    def _predictions(self, image_ids: Sequence[str], above: float) -> dict:
        """What the model says of images from a score on; of none if nobody asked it."""
        if not self.folder.outputs_index.exists():
            return {}
        pool = Outputs.open(self.folder.outputs_of('pool'))
        return predicted_answers(pool, image_ids, self.plan.source, above)

    def _record_picks(self, answered: list[str], labels: dict) -> None:
        """Add what labels say of picks to what was known when they were chosen."""
        picks = {**self.record.read().get('picks', {}), **labels}
        if 'control' in picks:
            with self._for_the_eye('comparison with the control'):
                picks['control'] = self._compare(picks['control'], answered)
        with self._for_the_eye('classes'):
            unit = 'boxes' if 'boxes' in picks else 'images'
            draw_classes(self.folder.pick_classes, picks, unit)
        self.record.update(picks=picks)

    def _compare(self, groups: dict, answered: list[str]) -> dict:
        """Chosen and control images by their labels."""
        source, labels = self.plan.source, {}
        control = read_picked(self.folder.selection, 'control')
        for name, mark in (('chosen', '0'), ('control', '1')):
            ids = [image_id for image_id in answered if control.get(image_id) == mark]
            counts, loss = source.count_labels(ids), self._loss(ids)
            labels[name] = dict(answered=len(ids), counts=counts, loss=loss)
        groups, before = add_labels(groups, labels), {}
        if self.number:
            before = self.trial.manifest.entry(self.number - 1).get('record') or {}
        stages = before.get('picks', {}).get('control', {}).get('stages_no_better', 0)
        return {**groups, 'stages_no_better': stages + 1 if no_better(groups) else 0}

    def _loss(self, image_ids: list[str]) -> float | None:
        """Of a classifier on images that are labelled now, if it spoke of them."""
        folder = self.folder
        if not image_ids or not folder.outputs_index.exists():
            return None
        pool = Outputs.open(folder.outputs_of('pool'))
        if 'probability' not in pool:
            return None
        return mean_loss(pool, image_ids, self.plan.source.label_counts(image_ids))

    def _describe(self, answered: list[str]) -> dict:
        counts = self.plan.source.count_labels(answered)
        picks = {'count': len(answered), **counts}
        trained_on = set(read_image_ids(self.folder.trained_on))
        if trained_on:
            hits = sum(image_id in trained_on for image_id in answered)
            picks['trained_on_share'] = hits / len(answered)
            picks['trained_on_chance'] = len(trained_on) / self.inputs.n_pool
        return picks

    @contextlib.contextmanager
    def _runner_of_weights(self) -> Iterator[Runner]:
        config = derive_evaluation_config(self.config)
        config.load_from, config.resume = str(self.folder.model), False
        with self._runner(config) as runner:
            runner.call_hook('before_run')
            runner.load_or_resume()
            yield runner
            runner.call_hook('after_run')

    @contextlib.contextmanager
    def _runner(self, config: Config) -> Iterator[Runner]:
        runner = build_runner(config, self.plan.settings.console)
        yield runner
        barrier()


def build_runner(cfg: Config, console: str) -> Runner:
    """A Runner whose console is as ``active_learning.console`` says."""
    # A Runner is full of reference cycles; the memory of the last would pile up.
    gc.collect()
    if cfg.get('visualizer') is not None:
        # Kept by name for as long as the process lives; its folder may be gone.
        cfg.visualizer.name += f', run {next(_RUNS)}'
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if console == 'log':
        return Runner.from_cfg(cfg)
    # The log file gets everything; the console shows bars, summaries, warnings.
    with contextlib.redirect_stdout(io.StringIO()):
        runner = Runner.from_cfg(cfg)
    for handler in runner.logger.handlers if is_main_process() else []:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stdout)
            handler.setLevel(logging.WARNING)
    return runner
