"""Checks of hours, of room on the disk, and of what they buy."""

import shutil
from collections.abc import Iterator

from rich.filesize import decimal

from tjls_mm.active.examination import Examination, Finding, fact, problem, warning
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.active.trial_checks import NEARLY, existing_folder
from tjls_mm.engine.gather_stage import AUC_IMAGES
from tjls_mm.report.statistics import seeds_for_level, seeds_for_power
from tjls_mm.stage_folder import TrialFolder

LEVEL, POWER = 0.05, 0.8
"""Of the test of a difference, and how often it is to find one."""


def check_time(exam: Examination) -> Iterator[Finding]:
    """Hours, from the seconds of a few iterations."""
    found, plan = exam.rehearsal, exam.plan
    yield fact(
        f'{found.update_s:.3g} s per iteration, {found.evaluate_s:.3g} s per image '
        f'evaluated and {found.score_s:.3g} s per image scored, on this machine now.'
    )
    seconds = [_stage_seconds(exam, number) for number in range(plan.n_stages)]
    exam.seconds = sum(seconds)
    yield fact(
        f'About {_duration(min(seconds))} to {_duration(max(seconds))} per stage, '
        f'{_duration(exam.seconds)} in all, without selection and labelling.'
    )


def _stage_seconds(exam: Examination, number: int) -> float:
    found, plan, stage = exam.rehearsal, exam.plan, exam.stages[number]
    seconds = stage.iterations * found.update_s + len(exam.test_ids) * found.evaluate_s
    folder = TrialFolder(exam.cfg.work_dir)
    inputs = StageInputs(
        number, folder.stage(number), stage.labelled, stage.pool, folder.test
    )
    if not plan.deriver.scores_pool(inputs):
        return seconds
    scored = stage.pool
    if plan.deriver.needs.gathered:
        scored += stage.labelled
    if 'logit' in plan.learner.provides:
        scored += min(stage.labelled, AUC_IMAGES)
    return seconds + scored * found.score_s


def check_disk(exam: Examination) -> Iterator[Finding]:
    """Weights of all stages, states of training and outputs, against what is free."""
    found, plan = exam.rehearsal, exam.plan
    outputs = [found.outputs * (s.pool + s.labelled) for s in exam.stages]
    kept = sum(outputs) if plan.settings.keep_outputs else max(outputs)
    # A state is complete before the one before it is removed.
    needed = plan.n_stages * found.weights + 2 * found.state + int(kept)
    path = existing_folder(TrialFolder(exam.cfg.work_dir).path)
    free = shutil.disk_usage(path).free
    text = (
        f'{decimal(needed)} are needed ({plan.n_stages} x {decimal(found.weights)} of '
        f'weights, 2 x {decimal(found.state)} while training, {decimal(int(kept))} of '
        f'outputs); {decimal(free)} are free at {path}'
    )
    if needed > free:
        yield problem(f'{text}: make room, or use another --work-dir.')
    elif needed > NEARLY * free:
        yield warning(f'{text}: that is close.')
    else:
        yield fact(f'{text}.')


def check_seeds(exam: Examination) -> Iterator[Finding]:
    """What difference between two methods the planned seeds could show."""
    n_seeds, deviation = exam.n_seeds, exam.deviation
    if n_seeds < 2:
        yield warning('One seed shows no difference between methods: plan 5 or more.')
        return
    ratio = smallest_ratio(n_seeds)
    task = exam.source.task if exam.source else ''
    metric = {'detection': ' of mAP', 'classification': ' of accuracy'}.get(task, '')
    unit = 'point' if deviation == 1 else 'points'
    if ratio is None:
        yield warning(f'{n_seeds} seeds show no difference to speak of: plan more.')
    else:
        yield fact(
            f'{n_seeds} paired seeds show a mean difference of {ratio * deviation:.1f} '
            f'points{metric} in {POWER:.0%} of all cases (t-test, {LEVEL:.0%}), if '
            f'differences of paired seeds deviate by {deviation:g} {unit}. That '
            'deviation is an assumption (--deviation): pilots of your own say more.'
        )
    if n_seeds < seeds_for_level(LEVEL):
        yield fact(
            f'The sign-flip test of al_compare needs {seeds_for_level(LEVEL)} seeds '
            f'to reach {LEVEL:.0%}.'
        )
    if exam.seconds is not None:
        total = _duration(2 * n_seeds * exam.seconds)
        yield fact(f'{n_seeds} seeds of a method and its control: about {total}.')


def smallest_ratio(n_seeds: int) -> float | None:
    """The smallest mean difference, in deviations, that so many paired seeds show.

    At ``LEVEL`` with ``POWER``; rounded up by at most 0.01. None beyond 20.

    >>> round(smallest_ratio(5), 1)
    1.7
    """
    low, high = 0.0, 20.0
    if n_seeds < 2 or seeds_for_power(high, LEVEL, POWER, most=n_seeds) is None:
        return None
    while high - low > 0.01:
        middle = (low + high) / 2
        enough = seeds_for_power(middle, LEVEL, POWER, most=n_seeds) is not None
        low, high = (low, middle) if enough else (middle, high)
    return high


def _duration(seconds: float) -> str:
    for unit, size in (('h', 3600), ('min', 60)):
        if seconds >= 1.5 * size:
            return f'{seconds / size:.1f} {unit}'
    return f'{seconds:.1f} s'
