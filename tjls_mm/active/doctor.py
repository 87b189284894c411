"""List what would stop a trial later, in seconds and without training it."""

import io
from collections.abc import Callable, Iterator, Sequence

from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tjls_mm.active.cost_checks import check_disk, check_seeds, check_time
from tjls_mm.active.data_checks import (
    check_annotations,
    check_duplicates,
    check_images,
)
from tjls_mm.active.examination import Check, Examination, Result
from tjls_mm.active.trial_checks import (
    check_config,
    check_data,
    check_plan,
    check_stages,
    check_updates,
    check_weights,
    check_work_dir,
)
from tjls_mm.active.version_checks import check_versions

SHOWN = 10
"""Findings of one kind that a check shows at most."""

CHECKS = (
    Check('versions', check_versions),
    Check('config', check_config),
    Check('data', check_data),
    Check('plan', check_plan, after=('config', 'data')),
    Check('work dir', check_work_dir, after=('plan',)),
    Check('weights', check_weights, after=('plan',)),
    Check('images', check_images, after=('data',)),
    Check('annotations', check_annotations, after=('plan',)),
    Check('duplicates', check_duplicates, after=('images',)),
    Check('stages', check_stages, after=('plan',)),
    Check('updates', check_updates, after=('weights', 'images', 'annotations')),
    Check('time', check_time, after=('stages', 'updates')),
    Check('disk', check_disk, after=('stages', 'updates')),
    Check('seeds', check_seeds),
)


def examine(
    exam: Examination,
    begin: Callable[[str], None] = lambda name: None,
    checks: Sequence[Check] = CHECKS,
) -> list[Result]:
    """Run all checks, those too that come after a failed one they do not need.

    Args:
        exam: Config and how closely to look at it; filled in by the checks.
        begin: Called with the name of a check before it runs.
        checks: In order, with those that they come after.
    """
    results: dict[str, Result] = {}
    for check in checks:
        missing = next((n for n in check.after if not results[n].passed), None)
        if missing is None:
            begin(check.name)
            results[check.name] = Result(check.name, check.find(exam))
        else:
            # Name what was found, not what was skipped for it in turn.
            cause = results[missing].skipped_for or missing
            results[check.name] = Result(check.name, [], cause)
    return list(results.values())


def has_problem(results: Sequence[Result]) -> bool:
    """Whether something would stop the trial."""
    kinds = {finding.kind for result in results for finding in result.findings}
    return 'problem' in kinds


def run_doctor(cfg: Config, **options) -> int:
    """Examine a trial and print what was found; exit status, 1 with a problem.

    Args:
        cfg: Of the trial, with ``work_dir`` and ``randomness.seed``.
        **options: Of ``Examination``.
    """
    console = Console()

    def begin(name: str) -> None:
        # Not a live display: bars of the checks are some.
        if console.is_terminal:
            console.print(f'{name} …'.ljust(30), end='\r', highlight=False)

    results = examine(Examination(cfg, **options), begin)
    print_results(console, results)
    return int(has_problem(results))


STYLES = {'problem': 'bold red', 'warning': 'yellow', 'fact': '', 'skipped': 'dim'}


def print_results(console: Console, results: Sequence[Result]) -> None:
    """A line for each finding, and how many there are."""
    table = Table.grid(padding=(0, 2))
    counts = dict.fromkeys(STYLES, 0)
    for result in results:
        name = result.name
        for kind, text in _lines(result):
            style = STYLES[kind]
            label = '' if kind == 'fact' else kind
            table.add_row(Text(name), Text(label, style), Text(text, style))
            name = ''
        for finding in result.findings:
            counts[finding.kind] += 1
        counts['skipped'] += result.skipped_for is not None
    if console.is_terminal:
        console.print(table)
    else:  # its columns would cut paths in two
        text = io.StringIO()
        Console(file=text, width=10_000).print(table)
        print(*map(str.rstrip, text.getvalue().splitlines()), sep='\n')
    if counts['problem']:
        verdict = 'The trial would stop.'
    else:
        verdict = 'Nothing was found that would stop the trial.'
    kinds = ('problem', 'warning')
    number = ', '.join(f'{counts[k]} {k}{"s" * (counts[k] != 1)}' for k in kinds)
    skipped = f', {counts["skipped"]} checks skipped' if counts['skipped'] else ''
    console.print(f'{verdict} {number}{skipped}.', highlight=False)


def _lines(result: Result) -> Iterator[tuple[str, str]]:
    if result.skipped_for:
        yield 'skipped', f'needs {result.skipped_for!r} without problems.'
        return
    for kind in ('problem', 'warning', 'fact'):
        texts = [finding.text for finding in result.findings if finding.kind == kind]
        yield from ((kind, text) for text in texts[:SHOWN])
        if len(texts) > SHOWN:
            yield kind, f'and {len(texts) - SHOWN} more.'
    if not result.findings:
        yield 'fact', 'ok'
