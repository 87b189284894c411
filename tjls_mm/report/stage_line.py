"""A stage in one row and one line, with what to know before trusting its picks."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tjls_mm.errors import InputError
from tjls_mm.report.classes import classes_in_words
from tjls_mm.report.control import control_in_words, control_warning

STEPS = ('train', 'evaluate', 'gather', 'select')
CHANCE_AUC = 0.55
HARD_PULL = 1.0
ONE_SIDED = 1.64  # standard errors: chance passes them once in twenty times
LABEL_COUNTS = ('n_boxes',)
"""What a task labels besides images; shown where a record has it."""


def primary_metric(record: Mapping) -> tuple[str, float]:
    """The metric that curves show, the evaluator's first; InputError without one."""
    metrics = record.get('metrics') if isinstance(record, Mapping) else None
    if not isinstance(metrics, Mapping) or not metrics:
        raise InputError(
            "metrics.json of a complete stage holds no 'metrics': expected names and "
            f'values, found {metrics!r}. Restore it, or use --redo-from STAGE.'
        )
    return next(iter(metrics.items()))


def stage_row(number: int, record: Mapping) -> dict:
    """One row of table and curve, of the ``metrics.json`` of a stage.

    It has ``stage``, ``n_labelled``, ``n_boxes`` where the task has boxes, the primary
    metric under its name, and ``train_s``, ``evaluate_s``, ``gather_s`` and
    ``select_s`` in seconds, None for a step that did not run.
    """
    name, value = primary_metric(record)
    seconds = record.get('seconds', {})
    return {
        'stage': number,
        'n_labelled': record['n_labelled'],
        **{key: record[key] for key in LABEL_COUNTS if key in record},
        name: value,
        **{f'{step}_s': seconds.get(step) for step in STEPS},
    }


def metric_name(rows: Sequence[Mapping]) -> str:
    """Name of the metric column of rows of ``stage_row``: the first after counts."""
    counts = ('stage', 'n_labelled', *LABEL_COUNTS)
    return next(name for name in rows[0] if name not in counts)


def stage_warnings(record: Mapping) -> list[str]:
    """What a user should know before trusting the picks of a stage.

    Of a discriminator: that its AUC of held-out labelled against unseen pool images is
    below 0.55, or so low that chance explains it at 5 %; and that it pulls at what it
    shares with the task harder than the task does.
    """
    warnings = []
    report = record.get('discriminator') or {}
    auc, error = report.get('auc'), report.get('auc_chance_error')
    if auc is not None and auc < max(CHANCE_AUC, 0.5 + ONE_SIDED * error):
        warnings.append(
            f'discriminator AUC {auc:.2f} on {report["n_held_out"]} held-out and '
            f'{report["n_unseen"]} unseen images is near chance '
            f'(0.50 ± {error:.2f}): its order says little'
        )
    pull = report.get('pull')
    if pull is not None and pull > HARD_PULL:
        warnings.append(
            f'the discriminator pulls at the learner {pull:.1f} times as hard as the '
            'task and may cost it: lower gradient_scale or loss_weight in '
            'method.branches.discriminator'
        )
    picks = record.get('picks') or {}
    lean = leaning_class(picks.get('images', {}), record.get('labelled_images', {}))
    if lean:
        name, share, before = lean
        warnings.append(
            f'picks lean to {name!r}: {share:.0%} of what they show, '
            f'{before:.0%} of what is labelled'
        )
    share, chance = picks.get('trained_on_share'), picks.get('trained_on_chance')
    if share is not None and chance and share < chance / 2 and chance < 1:
        warnings.append(
            f'{share:.0%} of the picks were seen in training, {chance:.0%} by chance'
        )
    if warning := control_warning(picks.get('control') or {}):
        warnings.append(warning)
    return warnings


def picks_in_words(record: Mapping) -> list[str]:
    """The strategy's note, near-duplicates, the class that gained, and the control.

    Of each nothing, where there is nothing to say.
    """
    picks = record.get('picks') or {}
    found = picks.get('near_duplicates') or {}
    duplicates = ''
    if share := found.get('share'):
        duplicates = f'{share:.1%} near-duplicates'
        if 'pool_by_feature' in found:
            duplicates += f' (pool {found["pool_by_feature"]:.1%})'
    control = control_in_words(picks.get('control') or {})
    return [picks.get('note', ''), duplicates, classes_in_words(record), control]


def leaning_class(
    picks: Mapping[str, int], labelled: Mapping[str, int]
) -> tuple[str, float, float] | None:
    """The class that picks hold far more often than the labelled images.

    Both are images per class. Returns (class, share of picks, share of labelled), of
    class occurrences, of what gained most, if it at least doubled and gained 15 points.
    """
    total, total_labelled = sum(picks.values()), sum(labelled.values())
    if not total or not total_labelled:
        return None
    gains = []
    for name, count in picks.items():
        share, before = count / total, labelled.get(name, 0) / total_labelled
        if share >= 2 * before and share - before >= 0.15:
            gains.append((share - before, (name, share, before)))
    return max(gains)[1] if gains else None


def labels_in_words(row: Mapping) -> str:
    """' (523 boxes)' of a record or row, or nothing where an image is a label."""
    counts = [f'{row[k]} {k.removeprefix("n_")}' for k in LABEL_COUNTS if k in row]
    return f' ({", ".join(counts)})' if counts else ''


def stage_line(number: int, n_stages: int, record: Mapping) -> str:
    """The summary line of stage ``number``, from 0."""
    name, value = primary_metric(record)
    seconds = record.get('seconds', {})
    parts = [
        f'stage {number + 1}/{n_stages}',
        f'{record["n_labelled"]} labelled{labels_in_words(record)}',
        f'{name} {value:.4f}',
        ' '.join(f'{s} {seconds[s]:.1f}s' for s in STEPS if s in seconds),
    ]
    report = record.get('discriminator') or {}
    if report.get('auc') is not None:
        parts.append(f'discriminator AUC {report["auc"]:.2f}')
    if features := record.get('features'):
        parts.append(f'features {features["backbone"]} {features["weights"][:8]}')
    parts += picks_in_words(record)
    parts += [f'WARNING: {warning}' for warning in stage_warnings(record)]
    return ' | '.join(part for part in parts if part)


def wide_console() -> Console:
    """For tables: what is not a terminal has few columns."""
    return Console(width=max(100, Console().width))


def text_table(header: Iterable[str], rows: Iterable, title: str = '') -> Table:
    """A table of right-aligned cells, to be printed."""
    table = Table(title=title)
    for name in header:
        table.add_column(name, justify='right', overflow='fold')
    for row in rows:
        table.add_row(*row)
    return table


def print_table(title: str, rows: Sequence[Mapping]) -> None:
    """Print rows of one set of columns as a table, nothing if there are none."""

    def cell(name: str, value) -> str:
        if value is None:
            return ''
        if name.endswith('_s'):
            return f'{value:.1f}'
        return f'{value:.4f}' if isinstance(value, float) else str(value)

    if rows:
        cells = [[cell(*item) for item in row.items()] for row in rows]
        wide_console().print(text_table(rows[0], cells, title))
