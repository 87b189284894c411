"""``al_state.json``: what a work dir holds and how far it is."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tjls_mm import __version__
from tjls_mm.errors import InputError
from tjls_mm.files import file_hash, read_json, write_json
from tjls_mm.image_ids import read_image_ids
from tjls_mm.stage_folder import TrialFolder

SECTIONS = (
    'model data_preprocessor sync_bn train_dataloader val_dataloader val_cfg '
    'val_evaluator score_dataloader train_cfg optim_wrapper param_scheduler '
    'auto_scale_lr custom_hooks default_hooks load_from data_source active_learning '
    'method'
).split()
"""Parts of a config that decide about results."""

MAY_DIFFER = frozenset(
    'data_root num_workers persistent_workers pin_memory prefetch_factor backend_args '
    'console download keep_outputs trust_checkpoints'.split()
)
"""Keys, anywhere, that do not: places, fetching, workers, logging."""

LOGGING = tuple(
    f'default_hooks.{name}'
    for name in ('logger', 'timer', 'visualization', 'checkpoint')
)
"""Hooks that do not either."""

WRITTEN_AGAIN = (
    '{} was changed since this trial wrote it. Remove it, and the same command writes '
    'it again.'
)

STAGES_TO_COME = (
    'active_learning.budget',
    'active_learning.stages',
    'active_learning.allow_short_stage',
    'active_learning.annotator',
    'data_source.bad_boxes',
    'data_source.ignore_classes',
)
"""Settings that may be changed for stages that have not been trained."""


def flatten_config(cfg: dict) -> dict[str, object]:
    """The deciding values of a config by dotted key, JSON types only."""
    flat: dict[str, object] = {}

    def visit(prefix: str, value) -> None:
        if isinstance(value, dict):
            for key in value:
                if key not in MAY_DIFFER:
                    visit(f'{prefix}.{key}', value[key])
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                visit(f'{prefix}[{i}]', item)
        else:
            is_plain = isinstance(value, (str, int, float, bool, type(None)))
            flat[prefix] = value if is_plain else repr(value)

    for section in SECTIONS:
        if cfg.get(section) is not None:
            visit(section, cfg[section])
    return {k: v for k, v in flat.items() if not k.startswith(LOGGING)}


def hash_config(flat: dict[str, object]) -> str:
    """SHA-256 of a flattened config."""
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def describe_ids(image_ids: Sequence[str]) -> dict:
    """Count and SHA-256 of a list of image_ids."""
    digest = hashlib.sha256('\n'.join(image_ids).encode()).hexdigest()
    return {'count': len(image_ids), 'sha256': digest}


@dataclass(frozen=True)
class TrialFacts:
    """What a trial is, as far as results depend on it.

    ``config`` is that of ``flatten_config``, lists of image_ids are sorted, and
    ``initial_listed`` says whether a file or folder names the first labelled images;
    ``initial`` is None until a strategy has chosen them.
    """

    config: dict[str, object]
    seed: int
    image_ids: list[str]
    test_ids: list[str]
    initial: list[str] | None
    initial_listed: bool


class Manifest:
    """State of a trial on disk; process 0 alone reads and writes it.

    Args:
        folder: Of the trial.
    """

    def __init__(self, folder: TrialFolder) -> None:
        self.folder = folder
        self.path = folder.state
        self.content: dict = {}
        self.notes: list[str] = []

    def is_untouched(self) -> bool:
        """Whether nothing is lost if the trial begins anew, with another config too."""
        folder = self.folder.stage(0)
        began = self.n_complete or folder.model.exists() or folder.checkpoints()
        return not began and len(self.stages) < 2

    def start(self, facts: TrialFacts) -> None:
        """Begin a trial."""
        self.content = {
            'tjls_mm': __version__,
            'config_hash': hash_config(facts.config),
            'seed': facts.seed,
            'images': describe_ids(facts.image_ids),
            'test': describe_ids(facts.test_ids),
            'initial': facts.initial and describe_ids(facts.initial),
            'config': facts.config,
            'checked': self.content.get('checked'),
            'changes': [],
            'stages': [],
        }

    def load(self) -> None:
        """Read what the work dir holds; InputError if it is no state of a trial."""
        self.notes = []
        try:
            self.content = json.loads(self.path.read_text(encoding='utf-8'))
            for key in ('config', 'seed', 'images', 'test', 'initial', 'changes'):
                self.content[key]
            for entry in self.stages:
                entry['files'].items(), entry['processes'], entry['status']
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'{self.path} cannot be read ({type(error).__name__}: {error}): '
                'expected the state of a trial of this version. Restore it, or use '
                'another --work-dir.'
            ) from None

    def resume(self, facts: TrialFacts, redo_from: int | None = None) -> None:
        """Continue the trial that was loaded, as the config describes it now.

        Args:
            facts: Of the trial.
            redo_from: Give up this stage and those after it.

        Raises:
            InputError: If it is another trial, or one of its files was changed.
        """
        count = len(self.stages)
        if redo_from is not None and not 0 <= redo_from < count:
            raise InputError(
                f'--redo-from {redo_from}: {self.folder.path} holds stages 0 to '
                f'{count - 1}.'
            )
        del self.stages[count if redo_from is None else redo_from :]
        self._take_changes(facts)
        self._check_files()

    @property
    def stages(self) -> list[dict]:
        """One entry per stage that was begun."""
        return self.content['stages']

    def _take_changes(self, facts: TrialFacts) -> None:
        old = {**self.content['config'], 'seed': self.content['seed']}
        new = {**facts.config, 'seed': facts.seed}
        changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        to_come = STAGES_TO_COME
        folder = self.folder.stage(0)
        if folder.metrics.exists() and 'metrics' not in read_json(folder.metrics):
            to_come += ('val_evaluator',)  # nothing was evaluated by it
        later = [key for key in changed if key.startswith(to_come)]
        refused = [_difference(key, old, new) for key in changed if key not in later]
        noted = [_difference(key, old, new) for key in later]
        for name, now in (('test', facts.test_ids), ('images', facts.image_ids)):
            before, found = self.content[name], describe_ids(now)
            if before == found:
                continue
            line = (
                f'{name}: {before["count"]} (SHA-256 {before["sha256"][:8]}…) before, '
                f'{found["count"]} ({found["sha256"][:8]}…) now'
            )
            reason = name == 'images' and self._problem_of_removal(now)
            if name == 'images' and not reason:
                noted.append(line)
            else:
                refused.append(f'{line}{reason or ""}')
        images = describe_ids(facts.image_ids)
        initial = describe_ids(facts.initial) if facts.initial_listed else None
        if self.content['images'] == images and initial not in (
            None,
            self.content['initial'],
        ):
            refused.append('active_learning.initial: its images have changed')
        if refused:
            more = [f'and {len(refused) - 10} more'] * (len(refused) > 10)
            shown = '\n  '.join([*refused[:10], *more])
            raise InputError(
                f'{self.folder.path} holds a trial of another config, seed or data '
                f'set:\n  {shown}\nUse another --work-dir, or the config and seed of '
                'that trial. Nothing was changed.'
            )
        if noted:
            self._note(noted, facts)

    def _note(self, noted: list[str], facts: TrialFacts) -> None:
        running = self.n_complete
        folder = self.folder.stage(running)
        if self.knows(running) and folder.checkpoints() and not folder.model.exists():
            raise InputError(
                f'Stage {running} in {self.folder.path} is being trained, and this '
                f'would change it in the middle: {"; ".join(noted)}. Change it back '
                'until the stage is complete, or begin the stage again with '
                f'--redo-from {running}.'
            )
        self.content.update(
            config=facts.config,
            config_hash=hash_config(facts.config),
            images=describe_ids(facts.image_ids),
        )
        for line in noted:
            self.content['changes'].append({'from_stage': running, 'change': line})
            self.notes.append(f'Changed from stage {running} on: {line}')

    def _problem_of_removal(self, image_ids: list[str]) -> str | None:
        """Why images may not be left out from now on, or None if they may."""
        if not self.stages:
            return None
        folder = self.folder.stage(len(self.stages) - 1)
        known = {*read_image_ids(folder.labelled), *read_image_ids(folder.pool)}
        new = set(image_ids) - known
        if new:
            return f'; {min(new)!r} was not in the pool'
        lists = [folder.labelled, *[folder.selected] * folder.selected.exists()]
        gone = {i for path in lists for i in read_image_ids(path)} - set(image_ids)
        return f'; {min(gone)!r} is labelled or selected already' if gone else None

    def _check_files(self) -> None:
        lists = {'test': self.folder.test, 'initial': self.folder.initial}
        for name, path in lists.items():
            # A missing one is written again, see Trial.
            found = describe_ids(read_image_ids(path)) if path.exists() else None
            if found not in (None, self.content[name]):
                raise InputError(WRITTEN_AGAIN.format(path))
        for number, entry in enumerate(self.stages):
            for name, expected in entry['files'].items():
                self._check_file(number, name, expected)

    def _check_file(self, number: int, name: str, expected: str) -> None:
        folder = self.folder.stage(number)
        path = folder.path / name
        found = file_hash(path) if path.exists() else None
        if found == expected:
            return
        if path == folder.metrics:
            if found is None:  # kept here too
                return
            raise InputError(WRITTEN_AGAIN.format(path))
        what = 'is missing' if found is None else 'was changed'
        intact = f'stages 0 to {number - 1} are' if number else 'no stage is'
        raise InputError(
            f'{path} {what} since this trial wrote it (expected SHA-256 '
            f'{expected[:12]}…, found {found and found[:12]}…). Restore it; '
            f'or give up stage {number} and what follows with '
            f'--redo-from {number}: {intact} intact and kept.'
        )

    def entry(self, number: int) -> dict:
        """Of a stage."""
        return self.stages[number]

    def save(self) -> None:
        """Write atomically."""
        write_json(self.path, self.content)

    @property
    def n_complete(self) -> int:
        """Number of complete stages; they come first."""
        return sum(s['status'] == 'complete' for s in self.stages)

    def knows(self, number: int) -> bool:
        """Whether a stage was begun."""
        return number < len(self.stages)

    def check_processes(self, number: int, processes: int) -> None:
        """Refuse to go on in the middle of training with other processes."""
        before = self.entry(number)['processes'][-1:]
        if before and before != [processes]:
            raise InputError(
                f'Stage {number} was begun by {before[0]} processes and would go on '
                f'with {processes}: batches and schedule would change in the middle. '
                f'Go on with {before[0]}, or begin the stage again with '
                f'--redo-from {number}.'
            )

    def begin(self, number: int, files: Iterable[Path], processes: int) -> None:
        """Note that a stage has its lists and is being run."""
        if not self.knows(number):
            self.stages.append({'status': 'running', 'files': {}, 'processes': []})
        entry = self.entry(number)
        entry['files'].update(_hashes(files))
        if entry['processes'][-1:] != [processes]:
            entry['processes'].append(processes)
        self.save()

    def is_waiting(self, number: int) -> bool:
        """Whether somebody may be labelling what a stage selected."""
        return self.knows(number) and self.entry(number)['status'] == 'waiting'

    def note(self, facts: dict) -> None:
        """Keep facts that are known once a trial runs."""
        self.content.update(facts)
        self.save()

    def wait(self, number: int) -> None:
        """Note that a stage waits for labels."""
        self.entry(number)['status'] = 'waiting'
        self.save()

    def complete(self, number: int, record: dict) -> None:
        """Note that a stage is done, with the content of its ``metrics.json``."""
        f = self.folder.stage(number)
        files = f.model, f.metrics, f.selection, f.selected, f.asked, f.answered
        files += (f.annotations,)
        entry = self.entry(number)
        entry['files'].update(_hashes(path for path in files if path.exists()))
        entry.update(record=record, status='complete')
        self.save()

    def reopen_last(self) -> None:
        """Let the last stage select: stages were added after it."""
        self.stages[-1]['status'] = 'running'
        folder = self.folder.stage(len(self.stages) - 1)
        # What it writes again; its lists and weights are to stay as they are.
        self.forget(len(self.stages) - 1, [folder.metrics, folder.selection])

    def forget(self, number: int, files: Iterable[Path]) -> None:
        """Let a stage write some of its files anew."""
        for path in files:
            self.entry(number)['files'].pop(path.name, None)
        self.save()


def _hashes(paths: Iterable[Path]) -> dict[str, str]:
    return {path.name: file_hash(path) for path in paths}


def _difference(key: str, old: dict, new: dict) -> str:
    before, now = old.get(key, '(not set)'), new.get(key, '(not set)')
    return f'{key}: {before!r} before, {now!r} now'
