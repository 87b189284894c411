"""What trials say of themselves, and which may stand in one table."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tjls_mm.errors import InputError, raise_first
from tjls_mm.files import read_json
from tjls_mm.report.stage_line import metric_name
from tjls_mm.stage_folder import TrialFolder

AGAIN = ('random_again', 'random2')
"""Ends of names that say: Random with other draws, beside the control."""

SHARED = 'shared'
"""Name of what the rules of a ladder share: stage 0, without picks of its own."""

SETS = {
    'images': 'images (labelled and pool together)',
    'test': 'test images',
    'initial': 'images labelled at first',
}
"""Sets that a summary counts and hashes, in words."""


@dataclass(frozen=True)
class TrialSummary:
    """What a trial says of itself in ``summary.json``.

    Attributes:
        name: Trials of one name differ by their seed.
        config_hash: Of what decides about results, the seed left out.
        sets: 'images', 'test' and 'initial' to (count, SHA-256) of the image_ids.
        rows: Of ``stage_row``, one per complete stage, at least one.
        draw: Of a Random query, from ``al_state.json``; 0 where nothing says it.
    """

    folder: Path
    name: str
    seed: int
    config_hash: str
    sets: dict[str, tuple[int, str]]
    rows: list[dict]
    draw: int = 0

    @property
    def is_again(self) -> bool:
        """Whether it is a second Random: its query's ``draw``, or its name, says so."""
        return self.draw > 0 or self.name.endswith(AGAIN)

    @property
    def is_ceiling(self) -> bool:
        """Whether all images are labelled from stage 0 on."""
        return self.sets['initial'] == self.sets['images']


def read_summary(folder: str | Path) -> TrialSummary:
    """What a trial left, else InputError; its name without '_seed0' at the end."""
    path = TrialFolder(folder).summary
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        name, seed, rows = (content[key] for key in ('name', 'seed', 'stages'))
        sets = {k: (content[k]['count'], content[k]['sha256']) for k in SETS}
        if type(seed) is not int or not rows:
            raise ValueError(f'seed {seed!r}, {len(rows)} stages')
        for row in rows:
            row['n_labelled'] + row[metric_name([row])] + 0.0
        name, config = name.removesuffix(f'_seed{seed}'), content['config_hash']
        draw = _random_draw(folder)
        return TrialSummary(Path(folder), name, seed, config, sets, rows, draw)
    except (FileNotFoundError, NotADirectoryError):
        expected = 'expected the work dir of a trial with at least one complete stage'
        raise InputError(f'{path} does not exist: {expected}.') from None
    # Whatever JSON holds, and what is none.
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(
            f'{path} is not the summary of a trial ({type(error).__name__}: {error}): '
            'expected name, seed, config_hash, images, initial, test and the rows of '
            "complete stages. Run the trial's command again or leave the folder out."
        ) from None


def _random_draw(folder: str | Path) -> int:
    try:
        config = read_json(TrialFolder(folder).state)['config']
        kind, draw = config['method.query.type'], config['method.query.draw']
        return draw if kind.rpartition('.')[2] == 'Random' and draw > 0 else 0
    # The name may still say it.
    except (OSError, LookupError, TypeError, AttributeError):
        return 0


def comparison_problems(trials: Sequence[TrialSummary]) -> Iterator[str]:
    """Why trials must not stand in one table.

    Trials of one name differ in their seed and nothing else, any two in neither metric,
    images nor test images, and two of one seed not in the images labelled at first,
    unless one has labelled them all. Messages name two folders and what differs.
    A metric that is no finite number stands in no table either.
    """
    first_of_name: dict[str, TrialSummary] = {}
    first_of_seed: dict[int, TrialSummary] = {}
    seen: dict[tuple[str, int], TrialSummary] = {}
    for trial in trials:
        other = seen.setdefault((trial.name, trial.seed), trial)
        if other is not trial:
            yield (
                f'{other.folder} and {trial.folder} are both {trial.name!r} with seed '
                f'{trial.seed}: a mean is taken over different seeds. Leave one out.'
            )
        other = first_of_name.setdefault(trial.name, trial)
        if other.config_hash != trial.config_hash:
            yield (
                f'{other.folder} and {trial.folder} are both called {trial.name!r}, '
                f'but their configs differ{_differing_settings(other, trial)}: a mean '
                'is over seeds of one config. Leave one out, or give the work dirs '
                'different names.'
            )
        metric, found = metric_name(trials[0].rows), metric_name(trial.rows)
        if metric != found:
            yield (
                f'{trials[0].folder} is measured by {metric}, {trial.folder} by '
                f'{found}: leave one out.'
            )
        for row in trial.rows:
            if not math.isfinite(value := row.get(found, math.nan)):
                yield (
                    f'{trial.folder} has {found} {value} at {row["n_labelled"]} '
                    'labelled images, expected a finite number: leave it out.'
                )
        others = {'images': trials[0], 'test': trials[0]}
        # A ceiling has all images labelled from the first stage on.
        if not trial.is_ceiling:
            others['initial'] = first_of_seed.setdefault(trial.seed, trial)
        for key, other in others.items():
            if other.sets[key] != trial.sets[key]:
                sets = (other.sets[key], trial.sets[key])
                one, two = (f'{count} (SHA-256 {str(h)[:8]}…)' for count, h in sets)
                seed = f' with seed {trial.seed}' if key == 'initial' else ''
                yield (
                    f'{other.folder} and {trial.folder} differ in the {SETS[key]}'
                    f'{seed}: {one} against {two}. That says nothing of methods: leave '
                    'one out.'
                )


def _differing_settings(one: TrialSummary, two: TrialSummary) -> str:
    """' in a.b (1 against 2)' where the states of both trials say it, or nothing."""
    try:
        states = (TrialFolder(trial.folder).state for trial in (one, two))
        old, new = (read_json(state)['config'] for state in states)
        keys = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    # A hint beside a message that stands without it.
    except (OSError, LookupError, TypeError, AttributeError):
        return ''
    shown = [f'{k} ({old.get(k)!r} against {new.get(k)!r})' for k in keys[:3]]
    if len(keys) > 3:
        shown.append(f'{len(keys) - 3} more')
    return f' in {", ".join(shown)}' if shown else ''


def read_trials(folders: Sequence[str | Path]) -> list[TrialSummary]:
    """Trials of these work dirs; InputError unless they may stand in one table."""
    trials = [read_summary(folder) for folder in folders]
    raise_first(comparison_problems(trials))
    return trials
