"""``al_state.json``: what a work dir holds and how far it is."""

import hashlib
import json
from pathlib import Path

from tjls_mm import __version__
from tjls_mm.errors import InputError
from tjls_mm.files import file_hash, write_json

FILE = 'al_state.json'

SECTIONS = (
    'model',
    'data_preprocessor',
    'sync_bn',
    'train_dataloader',
    'val_dataloader',
    'val_cfg',
    'val_evaluator',
    'score_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'auto_scale_lr',
    'custom_hooks',
    'load_from',
    'data_source',
    'active_learning',
)
"""Parts of a config that decide about results."""

MAY_DIFFER = frozenset(
    {
        'data_root',
        'num_workers',
        'persistent_workers',
        'pin_memory',
        'prefetch_factor',
        'backend_args',
        'console',
        'download',
    }
)
"""Keys, anywhere, that do not: places, fetching, workers, logging."""


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
    return flat


class Manifest:
    """State of a trial on disk.

    Args:
        work_dir: Of the trial.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.path = work_dir / FILE
        self.content: dict = {}

    def open(
        self,
        config: dict[str, object],
        seed: int,
        image_ids: list[str],
        initial: list[str],
        redo_from: int | None = None,
    ) -> None:
        """Start a trial, or continue the one that the work dir holds.

        Args:
            config: Of ``flatten_config``.
            seed: Of the trial.
            image_ids: All images, labelled and pool.
            initial: Images labelled at stage 0.
            redo_from: Give up this stage and those after it.

        Raises:
            InputError: If the work dir belongs to another trial, or one of its
                list files was changed.
        """
        images = {'images': _describe(image_ids), 'initial': _describe(initial)}
        if not self.path.exists():
            if redo_from is not None:
                raise InputError(f'--redo-from: {self.work_dir} holds no trial.')
            text = json.dumps(config, sort_keys=True)
            self.content = {
                'tjls_mm': __version__,
                'config_hash': hashlib.sha256(text.encode()).hexdigest(),
                'seed': seed,
                **images,
                'config': config,
                'stages': [],
            }
            return
        try:
            self.content = json.loads(self.path.read_text(encoding='utf-8'))
            old = self.content['config'], self.content['seed']
            self.content['stages'], self.content['images'], self.content['initial']
        except (ValueError, KeyError) as error:
            raise InputError(
                f'{self.path} cannot be read ({error!r}): expected the state of a '
                'trial. Restore it, or use another --work-dir.'
            ) from None
        changes = _differences({**old[0], 'seed': old[1]}, {**config, 'seed': seed})
        for name, now in images.items():
            before = self.content[name]
            if before != now:
                changes.append(
                    f'{name}: {before["count"]} (SHA-256 {before["sha256"][:8]}…) '
                    f'before, {now["count"]} ({now["sha256"][:8]}…) now'
                )
        if changes:
            shown = '\n'.join(f'  {line}' for line in changes[:10])
            more = f'\n  and {len(changes) - 10} more' if len(changes) > 10 else ''
            raise InputError(
                f'{self.work_dir} holds a trial of another config, seed or data '
                f'set:\n{shown}{more}\nUse another --work-dir, or the config and '
                'seed of that trial. Nothing was changed.'
            )
        if redo_from is not None:
            n_stages = len(self.content['stages'])
            if not 0 <= redo_from < n_stages:
                raise InputError(
                    f'--redo-from {redo_from}: {self.work_dir} holds stages 0 to '
                    f'{n_stages - 1}.'
                )
            self.content['stages'] = self.content['stages'][:redo_from]
        self._check_lists()

    def _check_lists(self) -> None:
        for number, entry in enumerate(self.content['stages']):
            for name, expected in entry['files'].items():
                path = self.stage_folder(number) / name
                found = file_hash(path) if path.exists() else None
                if found == expected:
                    continue
                what = 'is missing' if found is None else 'was changed'
                intact = f'stages 0 to {number - 1} are' if number else 'no stage is'
                raise InputError(
                    f'{path} {what} since this trial wrote it (expected SHA-256 '
                    f'{expected[:12]}…, found {found and found[:12]}…). Restore it; '
                    f'or give up stage {number} and what follows with '
                    f'--redo-from {number}: {intact} intact and kept.'
                )

    def save(self) -> None:
        """Write atomically."""
        write_json(self.path, self.content)

    def stage_folder(self, number: int) -> Path:
        """Folder of a stage."""
        return self.work_dir / f'stage_{number:02d}'

    @property
    def n_complete(self) -> int:
        """Number of complete stages; they come first."""
        return sum(s['status'] == 'complete' for s in self.content['stages'])

    def knows(self, number: int) -> bool:
        """Whether a stage was begun."""
        return number < len(self.content['stages'])

    def check_processes(self, number: int, processes: int) -> None:
        """Refuse to go on in the middle of a stage with other processes.

        Raises:
            InputError: If the stage was begun by another number of processes.
        """
        if not self.knows(number):
            return
        before = self.content['stages'][number]['processes'][-1:]
        if before and before != [processes]:
            raise InputError(
                f'Stage {number} was begun by {before[0]} processes and would go on '
                f'with {processes}: batches and schedule would change in the middle. '
                f'Go on with {before[0]}, or begin the stage again with '
                f'--redo-from {number}.'
            )

    def begin(self, number: int, files: list[str], processes: int) -> None:
        """Note that a stage has its lists and is being run."""
        stages = self.content['stages']
        folder = self.stage_folder(number)
        if not self.knows(number):
            hashes = {name: file_hash(folder / name) for name in files}
            stages.append({'status': 'running', 'files': hashes, 'processes': []})
        if stages[number]['processes'][-1:] != [processes]:
            stages[number]['processes'].append(processes)
        self.save()

    def complete(self, number: int, files: list[str]) -> None:
        """Note that a stage is done."""
        entry = self.content['stages'][number]
        folder = self.stage_folder(number)
        entry['files'].update({name: file_hash(folder / name) for name in files})
        entry['status'] = 'complete'
        self.save()


def _describe(image_ids: list[str]) -> dict:
    digest = hashlib.sha256('\n'.join(image_ids).encode()).hexdigest()
    return {'count': len(image_ids), 'sha256': digest}


def _differences(old: dict, new: dict) -> list[str]:
    lines = []
    for key in sorted({*old, *new}):
        before, now = old.get(key, '(not set)'), new.get(key, '(not set)')
        if before != now:
            lines.append(f'{key}: {before!r} before, {now!r} now')
    return lines
