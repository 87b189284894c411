"""Trials side by side: means over seeds, differences to a control, verdicts, files."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from tjls_mm.errors import InputError
from tjls_mm.files import write_text
from tjls_mm.report.curves import csv_text, draw_curves, draw_win_rates
from tjls_mm.report.rule_table import (
    counts_in_words,
    nothing_common,
    plain_cells,
    rule_cells,
    rule_notes,
    rule_numbers,
    verdict_lines,
)
from tjls_mm.report.stage_line import metric_name, wide_console
from tjls_mm.report.stage_table import (
    mean_rows,
    mean_table,
    paired_rows,
    paired_table,
    short_table,
)
from tjls_mm.report.trial_summary import (
    SHARED,
    TrialSummary,
    comparison_problems,
    read_summary,
    read_trials,
)
from tjls_mm.report.verdicts import (
    MARGIN,
    Rule,
    common_counts,
    common_rows,
    compare_with,
    points_per_unit,
)
from tjls_mm.report.win_rates import win_rates

__all__ = [
    'MARGIN',
    'Comparison',
    'TrialSummary',
    'comparison_problems',
    'comparison_tables',
    'draw_means',
    'find_control',
    'mean_rows',
    'paired_rows',
    'print_comparison',
    'read_summary',
    'read_trials',
    'write_comparison',
]


def find_control(names: Iterable[str], again: Iterable[str] = ()) -> str | None:
    """'random', or the one name that ends with it, or begins so if none does.

    What all names begin with, up to an underscore, does not count: of d_random and
    d_foreground_random it is d_random. Names of second Randoms, ``again``, are no
    controls.
    """
    names = [name for name in names if name not in {*again}]
    for exact in ('random', f'{_shared_start(names)}random'):
        if exact in names:
            return exact
    found = [name for name in names if name.endswith('random')]
    found = found or [name for name in names if name.startswith('random')]
    return found[0] if len(found) == 1 else None


def _shared_start(names: Sequence[str]) -> str:
    """What several names begin with, up to an underscore."""
    start = os.path.commonprefix(names) if names[1:] else ''
    return start[: start.rfind('_') + 1]


@dataclass(frozen=True)
class Comparison:
    """Trials in one table, however they are ordered.

    Args:
        given_trials: At least one, of which ``comparison_problems`` finds none. Stage 0
            that the rules of a ladder share is left out.
        given_names: Columns in order, with or without trials; by default the control, a
            second Random, the rules from best to worst, then what is not compared.
        given_control: Name of the control; by default that of ``find_control``.
        n_seeds: That every name is to have; by default the most that one has.
        margin: Points that a rule may lose and not be meaningfully worse, > 0.

    Raises:
        InputError: If there is no such control, or the margin is none.
    """

    given_trials: Sequence[TrialSummary]
    given_names: Sequence[str] = ()
    given_control: str | None = None
    n_seeds: int = 0
    margin: float = MARGIN

    def __post_init__(self) -> None:
        known = sorted({trial.name for trial in self.trials})
        if self.given_control not in (None, *known):
            raise InputError(
                f'control {self.given_control!r} is none of the trials: expected one '
                f'of {", ".join(known)}.'
            )
        if not 0 < self.margin < float('inf'):
            raise InputError(f'margin must be above 0 (points), got {self.margin}')

    @cached_property
    def trials(self) -> list[TrialSummary]:
        kept = [t for t in self.given_trials if t.name != SHARED or len(t.rows) > 1]
        return kept or list(self.given_trials)

    @property
    def metric(self) -> str:
        return metric_name(self.trials[0].rows)

    @cached_property
    def control(self) -> str | None:
        if self.given_control:
            return self.given_control
        again = {trial.name for trial in self.trials if trial.is_again}
        return find_control(sorted({t.name for t in self.trials}), again)

    @cached_property
    def _measured(self) -> tuple[Rule | None, list[Rule]]:
        return compare_with(self.trials, self.control) if self.control else (None, [])

    @cached_property
    def names(self) -> list[str]:
        own, rules = self._measured
        first = [rule.name for rule in (own, *rules) if rule]
        rest = sorted({trial.name for trial in self.trials} - {*first})
        return list(self.given_names or [*first, *rest])

    @cached_property
    def means(self) -> dict[str, list[dict]]:
        """``mean_rows`` in the order of the names."""
        means = mean_rows(self.trials)
        return {name: means[name] for name in self.names if name in means}

    @cached_property
    def curves(self) -> dict[str, list[dict]]:
        """``mean_rows`` of ``common_rows``, the points that a curve goes through."""
        return {name: mean_rows(self._common[name])[name] for name in self.means}

    @property
    def ceilings(self) -> set[str]:
        """Names of trials that have all labels from stage 0 on."""
        return {trial.name for trial in self.trials if trial.is_ceiling}

    @cached_property
    def _common(self) -> dict[str, list[TrialSummary]]:
        """``common_rows`` by name."""
        return {
            name: common_rows([t for t in self.trials if t.name == name])
            for name in sorted({trial.name for trial in self.trials})
        }

    @cached_property
    def short(self) -> dict[str, str]:
        """Names without what all of them begin with, up to an underscore."""
        names = sorted({*self.names, *(trial.name for trial in self.trials)})
        start = _shared_start(names)
        return {name: name.removeprefix(start) for name in names}

    def rule_table(self) -> tuple[str, list[list[str]]]:
        """Title and cells with a row per rule; no cells where nothing is compared."""
        own, rules = self._measured
        unit = ' (1 point is 0.01)' if points_per_unit(self.trials) > 1 else ''
        title = f'{self.metric} in points{unit}: area under the learning curve'
        if own:
            title += f' {counts_in_words(own.counts)} labelled images'
            title += f', paired with {self.short[self.control]} by seed'
            title += ': mean (95 % interval)'
            return title, rule_cells(own, rules, self.short)
        common = [trial for trials in self._common.values() for trial in trials]
        several = [trial for trial in common if len(trial.rows) > 1]
        if counts := common_counts(several):
            title += f' {counts_in_words(counts)} labelled images'
            return title, plain_cells(several, counts, self.short)
        return title, []

    def stage_tables(self) -> list[tuple[str, list[list[str]]]]:
        """Titles and cells of means and of paired differences, stage by stage."""
        tables = [mean_table(self.means, self.names, self.n_seeds)]
        if self.control:
            paired = paired_table(self.trials, self.names, self.control)
            tables += [paired] if paired[1][1:] else []
        return tables

    def lines(self) -> list[str]:
        """Verdicts, a line per rule."""
        own, rules = self._measured
        return verdict_lines(own, rules, self.short, self.margin) if own else []

    def notes(self) -> list[str]:
        """What to know before believing the table."""
        notes = []
        if len(self.trials) < len(self.given_trials):
            notes = [f'{SHARED}: stage 0 of a ladder, no rule of its own, left out.']
        own, rules = self._measured
        if own:
            return [*notes, *rule_notes(self.trials, own, rules, self.short)]
        if self.control:
            mine = [t for t in self.trials if t.name == self.control]
            return [*notes, nothing_common(mine, self.short[self.control])]
        notes.append('No control (one name that ends with random, or --control NAME).')
        return [*notes, *self._behind()]

    def _behind(self) -> Iterator[str]:
        """Seeds that are not in a table without a control."""
        for name, kept in self._common.items():
            every = {trial.seed for trial in self.trials if trial.name == name}
            if seeds := sorted(every - {trial.seed for trial in kept}):
                listed = ', '.join(map(str, seeds))
                others = 'has not the stages that the other seeds have'
                yield f'{self.short[name]}: without seed {listed} ({others}).'

    def numbers(self) -> list[dict]:
        """Rows of ``rules.csv``; none where nothing is compared."""
        own, rules = self._measured
        return rule_numbers(own, rules, self.margin) if own else []


def comparison_tables(
    trials: Sequence[TrialSummary],
    names: Sequence[str] = (),
    n_seeds: int = 0,
    control: str | None = None,
) -> list[tuple[str, list[list[str]]]]:
    """Titles and cells of what was measured stage by stage, the header first.

    A row per number of labelled images, a column per name: means; then, where there is
    a control, mean paired differences to it. For the arguments see ``Comparison``.
    """
    return Comparison(trials, names, control, n_seeds).stage_tables()


def print_comparison(
    trials: Sequence[TrialSummary],
    names: Sequence[str] = (),
    n_seeds: int = 0,
    control: str | None = None,
    margin: float = MARGIN,
) -> None:
    """Print means by stage, a row per rule, verdicts and notes (see ``Comparison``).

    Names stand without what all of them begin with.
    """
    comparison = Comparison(trials, names, control, n_seeds, margin)
    scale, short = points_per_unit(comparison.trials), comparison.short
    console, several = wide_console(), ' ± sample deviation over seeds'
    title = f'{comparison.metric} in points by labelled images: mean{several}'
    tables = [(title, short_table(comparison.means, scale, short))]
    for title, cells in (*tables, comparison.rule_table()):
        if cells:
            # A table would fold a title to its own width.
            console.print(title, highlight=False, markup=False)
            table = _narrow_table(cells)
            # Better lines that a terminal wraps than figures that are cut off.
            options = console.options.update(max_width=1000)
            width = max(console.width, console.measure(table, options=options).minimum)
            console.print(table, width=width, crop=False)
    for line in (*comparison.lines(), *(f'Note: {n}' for n in comparison.notes())):
        console.print(line, highlight=False, markup=False)


def _narrow_table(cells: list[list[str]]) -> Table:
    """A table with intervals below what they are of."""
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for i, name in enumerate(cells[0]):
        # Headers fold, names and figures do not.
        narrow = dict(overflow='fold', min_width=_width(cells, i))
        table.add_column(name, justify='right', **narrow)
    for row in cells[1:]:
        table.add_row(*(cell.replace(' (', '\n(') for cell in row))
    return table


def _width(cells: list[list[str]], column: int) -> int:
    return max(len(part) for row in cells[1:] for part in row[column].split(' ('))


def write_comparison(
    folder: Path,
    title: str,
    trials: Sequence[TrialSummary],
    names: Sequence[str] = (),
    n_seeds: int = 0,
    control: str | None = None,
    margin: float = MARGIN,
) -> list[str]:
    """Write a comparison into a folder, each file atomically (see ``Comparison``).

    ``table.md`` (tables, verdicts, notes), ``table.csv`` (means by stage),
    ``rules.csv`` (a row per rule, where there is a control), ``curves.png`` and
    ``wins.png`` (where two names share a stage after stage 0).

    Returns:
        Names of the files written.
    """
    comparison = Comparison(trials, names, control, n_seeds, margin)
    rows = [{'name': n, **row} for n, rows in comparison.means.items() for row in rows]
    numbers = comparison.numbers()
    write_text(folder / 'table.md', _markdown(title, comparison))
    write_text(folder / 'table.csv', csv_text(rows))
    draw_means(folder / 'curves.png', comparison)
    written = ['table.md', 'table.csv', 'curves.png']
    (folder / 'rules.csv').unlink(missing_ok=True)  # of other trials than these
    if numbers:
        write_text(folder / 'rules.csv', csv_text(numbers))
        written.append('rules.csv')
    shares, pairs = win_rates(comparison.trials, list(comparison.means))
    met = np.flatnonzero(pairs.any(axis=0))
    (folder / 'wins.png').unlink(missing_ok=True)
    if len(met):
        known = [comparison.short[list(comparison.means)[i]] for i in met]
        draw_win_rates(folder / 'wins.png', known, shares[np.ix_(met, met)])
        written.append('wins.png')
    return written


def _markdown(title: str, comparison: Comparison) -> str:
    lines = [f'# {title}']
    rule_title, rule_rows = comparison.rule_table()
    tables = [(rule_title, rule_rows)] if rule_rows else []
    for i, (caption, cells) in enumerate([*tables, *comparison.stage_tables()]):
        lines += ['', f'{caption}.', '', *_markdown_table(cells)]
        if i == 0:
            for group in (comparison.lines(), comparison.notes()):
                lines += ['', *(f'- {line}' for line in group)] if group else []
    return '\n'.join(lines) + '\n'


def _markdown_table(cells: list[list[str]]) -> list[str]:
    header, *rows = cells
    rule = ['--:'] * len(header)
    return [f'| {" | ".join(row)} |' for row in (header, rule, *rows)]


def draw_means(path: Path, comparison: Comparison) -> None:
    """Draw its curves as a PNG file, with its ceilings."""
    draw_curves(path, comparison.curves, comparison.ceilings)
