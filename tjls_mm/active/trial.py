"""The loop over stages: files are the state between them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process

from tjls_mm.active.features import (
    build_features,
    describe_features,
    extract_features,
    features_of,
)
from tjls_mm.active.manifest import Manifest, describe_ids
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.stage import Stage
from tjls_mm.engine.stage_checkpoint_hook import read_checkpoint
from tjls_mm.errors import InputError
from tjls_mm.files import read_json, remove_leftovers, write_json
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.outputs import Needs, Outputs
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.processes import on_every_process, on_main_process
from tjls_mm.query.selection import check_selection
from tjls_mm.report.curves import write_report
from tjls_mm.report.stage_line import print_table, stage_line, stage_row
from tjls_mm.stage_folder import TrialFolder


def run_stages(
    cfg: Config,
    redo_from: int | None = None,
    prepared: Callable[[Stage], None] = lambda stage: None,
    checked: str | None = None,
    accept_partial: bool = False,
) -> Path:
    """Run a trial, or what is left of it.

    Args:
        cfg: Config of the trial, with ``work_dir`` and ``randomness.seed``.
        redo_from: Give up this stage and those after it first.
        prepared: Called with every stage before it is trained, on all processes.
        checked: 'checked' of the manifest of another trial: images of these sizes and
            times have been decoded.
        accept_partial: Take what there is of an annotator's answer, and give the other
            selected images back to the pool.

    Returns:
        The work dir with all results; complete, or waiting for labels.

    Raises:
        InputError: If config, data or work dir cannot be used; nothing is
            written then.
    """
    with Trial(cfg, redo_from, checked) as trial:
        trial.plan.annotator.accept_partial = accept_partial
        trial.choose_initial()
        for stage in trial.stages_left():
            stage.prepare()
            prepared(stage)
            stage.train()
            stage.evaluate()
            stage.gather()
            stage.select()
            if not stage.annotate():
                return trial.wait(stage)
            trial.complete(stage)
        trial.report()
    return trial.folder.path


class Trial:
    """One run of all stages with one seed, on disk.

    Process 0 reads and writes files; the others follow.
    """

    def __init__(
        self, cfg: Config, redo_from: int | None = None, checked: str | None = None
    ) -> None:
        self.cfg = cfg
        self.folder = TrialFolder(cfg.work_dir)
        self.redo_from = redo_from
        self.world_size = get_world_size()
        self.manifest = Manifest(self.folder)
        self.manifest.content['checked'] = checked
        self.features: Outputs | None = None
        self._lock = FileLock(self.folder.lock, timeout=0)

    def __enter__(self) -> 'Trial':
        self.plan = on_every_process(TrialPlan, self.cfg, self.world_size)
        try:
            state = on_main_process(self._open)
        except BaseException:
            self._lock.release()
            raise
        self.n_complete, self.is_read_only = state
        return self

    def __exit__(self, *exc) -> None:
        self._lock.release()

    def _open(self) -> tuple[int, bool]:
        """Begin or continue: complete stages, and whether nothing can be written."""
        folder, manifest, plan = self.folder, self.manifest, self.plan
        seen = self._read_state()
        if seen is not None:
            manifest.load()
        is_new = seen is None or (self.redo_from is None and manifest.is_untouched())
        if is_new:
            manifest.start(plan.facts)
        else:
            manifest.resume(plan.facts, self.redo_from)
        self.initial = self._initial() if manifest.stages else plan.initial
        done = self._n_complete()
        if done < plan.n_stages:
            plan.budget(done, len(self.membership(done)[0]) or plan.n_initial)
            self._check_files(done)
        is_read_only = not self._acquire(must=done < plan.n_stages)
        if self._read_state() != seen:  # another process has worked here meanwhile
            self._lock.release()
            return self._open()
        if is_read_only:
            return done, True
        remove_leftovers(folder.path)
        self._write_lists(anew=not manifest.stages)
        manifest.save()
        for number in folder.stage_numbers():
            if self.redo_from is not None and number >= self.redo_from:
                if kept := folder.remove_stage(number):
                    self.say(f'What people labelled of stage {number} is in {kept}.')
        if done < manifest.n_complete:
            manifest.reopen_last()
        for note in manifest.notes:
            self.say(note)
        for number in range(done):
            if not plan.settings.keep_outputs:
                folder.stage(number).remove_outputs()
        return done, False

    def _read_state(self) -> bytes | None:
        """Content of the manifest, None where there is none yet."""
        folder = self.folder
        if folder.path.exists() and not folder.path.is_dir():
            raise InputError(
                f'{folder.path} is a file: expected a folder, or a name that is not '
                'taken. Use another --work-dir.'
            )
        if folder.state.exists():
            return folder.state.read_bytes()
        if self.redo_from is not None:
            raise InputError(f'--redo-from: {folder.path} holds no trial.')
        if folder.stage_numbers():
            raise InputError(
                f'{folder.path} holds stages but no {folder.state.name}: it is not '
                'the work dir of a trial. Use another --work-dir.'
            )
        return None

    def _acquire(self, must: bool = True) -> bool:
        """Lock the work dir; False where it cannot be written to and need not."""
        if self._lock.is_locked:
            return True
        try:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            return True
        except Timeout:
            raise InputError(
                f'Another process is running the trial in {self.folder.path}. Wait '
                'for it, or use another --work-dir.'
            ) from None
        except OSError as error:
            if not must:
                return False
            raise InputError(
                f'{self.folder.path} cannot be written to ({error.strerror}): see to '
                'it that it can, or use another --work-dir.'
            ) from None

    def _n_complete(self) -> int:
        """Complete stages; one that was the last and is not any more has to select."""
        done, wanted = self.manifest.n_complete, self.plan.n_stages
        if done > wanted:
            raise InputError(
                f'{done} stages of {self.folder.path} are complete, and '
                f'active_learning.stages asks for {wanted}: set it to {done} or more.'
            )
        if 0 < done < wanted:
            answered = self.folder.stage(done - 1).answered.name
            return done - (answered not in self.manifest.entry(done - 1)['files'])
        return done

    def _initial(self) -> list[str]:
        """Labelled images of stage 0: what was drawn then, wherever it is written."""
        path = self.folder.initial
        return read_image_ids(path if path.exists() else self.folder.stage(0).labelled)

    def _write_lists(self, anew: bool) -> None:
        """Write lists and records that are not there: all are kept elsewhere too."""
        folder = self.folder
        lists = {folder.initial: self.initial, folder.test: self.plan.test_ids}
        for path, image_ids in lists.items():
            if image_ids is not None and (anew or not path.exists()):
                write_image_ids(path, image_ids)
        for number in range(self.manifest.n_complete):
            path = folder.stage(number).metrics
            if not path.exists():
                write_json(path, self.manifest.entry(number)['record'])
                self.say(f'{path} was missing and is written again.')

    def _check_files(self, number: int) -> None:
        """Check weights, annotations and images: they may have changed meanwhile."""
        plan, manifest = self.plan, self.manifest
        plan.check_weights()
        self.use_answers(number)
        plan.check_annotations(self.membership(number)[0])
        fingerprint = self._fingerprint()
        if manifest.content['checked'] != fingerprint:
            plan.check_images()
            manifest.content['checked'] = fingerprint
        if manifest.knows(number):
            if self.folder.stage(number).checkpoints():
                manifest.check_processes(number, self.world_size)
            self._check_checkpoint(number)

    def _fingerprint(self) -> str:
        """Hash of sizes and times of image files: equal ones were decoded before."""
        source = self.plan.source
        digest = hashlib.sha256()
        files = source.image_files([*self.plan.image_ids, *self.plan.test_ids])
        for image_id, path in files.items():
            try:
                stat = os.stat(path)
                facts = f'{stat.st_size} {stat.st_mtime_ns}'
            except OSError as error:
                facts = str(error.errno)
            digest.update(f'{image_id}\n{facts}\n'.encode())
        return digest.hexdigest()

    def _check_checkpoint(self, number: int) -> None:
        folder = self.folder.stage(number)
        kept = f'Stages 0 to {number - 1} are kept.' if number else ''
        if folder.model.exists():
            read_checkpoint(
                folder.model,
                f'It holds the weights of stage {number}. Remove it, and the same '
                f'command trains this stage again. {kept}',
            )
            return
        for path in folder.checkpoints():
            read_checkpoint(
                path,
                f'Remove it, and the same command trains stage {number} from its '
                f'beginning. {kept}',
            )

    def membership(self, number: int) -> tuple[list[str], list[str]]:
        """Labelled and pool ids of a stage, sorted, from what was answered."""
        labelled = set(self.initial or ())
        for earlier in range(number):
            labelled |= set(read_image_ids(self.folder.stage(earlier).answered))
        return sorted(labelled), sorted(set(self.plan.image_ids) - labelled)

    def use_answers(self, number: int) -> tuple[Path, ...]:
        """Let the source open what people said before a stage; files of answers."""
        paths = (self.folder.stage(k).annotations for k in range(number))
        # Versions before people were asked wrote counts under this name.
        files = tuple(
            path
            for path in paths
            if path.exists() and 'annotator' not in read_json(path)
        )
        self.plan.source.use_answers(files)
        return files

    def choose_initial(self) -> None:
        """Extract pretrained features; let a strategy choose what is labelled first.

        On all processes; each only where it is asked for and not done.
        """
        plan, done = self.plan, self.n_complete
        if done < plan.n_stages and plan.uses_features(done):
            config = plan.method.features
            model = on_every_process(build_features, self.cfg, config, True)
            on_main_process(self._note_features, describe_features(model))
            self.features = extract_features(model, plan, self.folder)
        on_main_process(self._choose_initial)

    def _note_features(self, facts: dict[str, str]) -> None:
        before = self.manifest.content.get('features') or facts
        if self.manifest.stages and before != facts:
            raise InputError(
                'The weights of method.features are others than when '
                f'{self.folder.path} was begun (hash {before["weights"][:8]}… before, '
                f'{facts["weights"][:8]}… now): restore them, or use another '
                '--work-dir.'
            )
        self.manifest.note({'features': facts})

    def _choose_initial(self) -> None:
        if self.initial is not None:
            return
        plan, all_ids = self.plan, self.plan.image_ids
        needs, seed = plan.first_query.needs, plan.initial_seed
        pool = self.add_features(Outputs.from_arrays(all_ids, {}), needs.pool)
        labelled = self.labelled_outputs([], {}, needs)
        count, config = plan.n_initial, plan.settings.initial
        answer = plan.first_query.select(pool, labelled, count, seed)
        selection = check_selection(answer, len(all_ids), count, config['type'])
        self.initial = sorted(all_ids[row] for row in selection.rows)
        write_image_ids(self.folder.initial, self.initial)
        self.say(f'{count} images to be labelled first, chosen by {config["type"]}.')
        # What is chosen must be labelled; which images that are stands in the file.
        plan.check_labelled(self.initial)
        self.manifest.note({'initial': describe_ids(self.initial)})

    def add_features(self, outputs: Outputs, names: Iterable[str]) -> Outputs:
        """Outputs of images of the trial, and pretrained features if they are named."""
        if PRETRAINED_FEATURE not in names:
            return outputs
        values = features_of(self.features, outputs.image_ids)
        return Outputs.from_arrays(
            outputs.image_ids, {**outputs, PRETRAINED_FEATURE: values}
        )

    def labelled_outputs(
        self, image_ids: list[str], found: Mapping, needs: Needs
    ) -> Outputs:
        """What a strategy needs of labelled images, beside what a learner said."""
        if 'label_count' in needs.labelled:
            found = {**found, 'label_count': self.plan.source.label_counts(image_ids)}
        return self.add_features(Outputs.from_arrays(image_ids, found), needs.labelled)

    def stages_left(self) -> Iterator[Stage]:
        """The stages that are not complete, in order."""
        plan, done = self.plan, self.n_complete
        if is_main_process():
            self.say(
                f'{self.folder.path.name}: {len(plan.image_ids)} images, '
                f'{len(self.initial)} labelled at first, {plan.n_stages} stages, seed '
                f'{plan.seed}, ' + plan.deriver.batches(self.world_size).describe()
            )
        if done == plan.n_stages:
            self.say(f'All {done} stages are complete: nothing to do.')
        elif done:
            self.say(f'{done} of {plan.n_stages} stages are complete.')
        return (Stage(self, number) for number in range(done, plan.n_stages))

    def wait(self, stage: Stage) -> Path:
        """Note that a stage waits for labels, and say what to do."""
        on_main_process(self._wait, stage)
        return self.folder.path

    def _wait(self, stage: Stage) -> None:
        self.manifest.wait(stage.number)
        count = len(read_image_ids(stage.folder.selected))
        what = self.plan.annotator.what_to_do(stage.folder)
        self.say(
            f'stage {stage.number + 1}/{self.plan.n_stages} waits for the labels of '
            f'{count} images. {what}'
        )

    def complete(self, stage: Stage) -> None:
        """Mark a stage as complete and say how it went."""
        on_main_process(self._complete, stage)

    def _complete(self, stage: Stage) -> None:
        record = stage.record.read()
        # Before it is complete: what a report cannot read must not be believed.
        line = stage_line(stage.number, self.plan.n_stages, record)
        stage_row(stage.number, record)
        self.manifest.complete(stage.number, record)
        self.say(line)
        self._write_report()
        if not self.plan.settings.keep_outputs:
            stage.folder.remove_outputs()

    def _rows(self) -> list[dict]:
        return [
            stage_row(number, self.manifest.entry(number)['record'])
            for number in range(self.manifest.n_complete)
        ]

    def _write_report(self) -> None:
        content = self.manifest.content
        facts = {k: content[k] for k in ('config_hash', 'images', 'initial', 'test')}
        summary = {
            'name': self.folder.path.name,
            'seed': self.plan.seed,
            **facts,
            'stages': self._rows(),
        }
        write_report(self.folder, summary)

    def report(self) -> None:
        """Print the table of the trial and where its picture is."""
        on_main_process(self._report)

    def _report(self) -> None:
        # A kill may have come between the last stage's end and its report.
        if not self.is_read_only:
            self._write_report()
        print_table(self.folder.path.name, self._rows())
        self.say(f'Learning curve: {self.folder.curve_png}')

    @staticmethod
    def say(text: str) -> None:
        """Print on process 0."""
        if is_main_process():
            print(text, flush=True)
