"""List what would stop a trial later, in seconds and without training it."""

import contextlib
import io
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.config import Config
from packaging.requirements import Requirement
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from tjls_mm.active.checks import (
    learner_problems,
    need_problems,
    part_problems,
    section_problems,
    split_problems,
    weight_problems,
)
from tjls_mm.active.data_checks import (
    check_annotations,
    check_duplicates,
    check_images,
)
from tjls_mm.active.examination import (
    Check,
    Examination,
    Finding,
    Result,
    StageSize,
    fact,
    problem,
    warning,
)
from tjls_mm.active.learner import inspect_learner
from tjls_mm.active.manifest import Manifest
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.rehearsal import rehearse
from tjls_mm.active.settings import read_settings, setting_problems
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.engine.gather_stage import AUC_IMAGES
from tjls_mm.errors import InputError
from tjls_mm.registry import IMAGE_SOURCES, QUERIES, build_own
from tjls_mm.report.statistics import seeds_for_level, seeds_for_power
from tjls_mm.stage_folder import TrialFolder

PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')
SETS = ('onedl', 'openmmlab')
"""Extras of this package: the sets that it is tested on."""

SHOWN = 10
"""Findings of one kind that a check shows at most."""

NEARLY = 0.9
"""Share of the memory or of the disk from which on it may not suffice."""

LEVEL, POWER = 0.05, 0.8


def check_versions(exam: Examination) -> Iterator[Finding]:
    """Packages, compiled operators and the device."""
    installed = {}
    for dist in metadata.distributions():
        installed.setdefault(_plain(dist.metadata['Name']), dist.version)
    ours = {name: [name] for name in PACKAGES}
    ours['mmdet'].append('onedl-mmdetection')
    for name in ('mmengine', 'mmcv', 'mmpretrain'):
        ours[name].append(f'onedl-{name}')
    ours['mmcv'].append('mmcv-lite')
    found = {k: [n for n in names if n in installed] for k, names in ours.items()}
    for name, names in found.items():
        if len(names) > 1:
            yield warning(
                f'{" and ".join(names)} are both installed, and one has written over '
                'the other: make a new environment with one of the two sets.'
            )
        elif not names and name != 'mmpretrain':
            yield warning(f'{name} is not installed as a package.')
    shown = [f'{n} {installed[n]}' for names in found.values() for n in names]
    yield fact(f'Python {platform.python_version()}, {", ".join(shown)}.')
    yield from _tested_sets(installed)
    # A stand-in of tjls_mm.compat comes from no file.
    operators = find_spec('mmcv._ext')
    how = 'has' if operators and operators.origin else 'comes without'
    yield fact(f'mmcv {how} compiled operators.')
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        yield fact(f'GPU: {gpu.name}, {decimal(gpu.total_memory)}.')
    else:
        yield fact(f'No GPU; {torch.get_num_threads()} threads of the CPU.')


def _tested_sets(installed: dict[str, str]) -> Iterator[Finding]:
    try:
        lines = metadata.requires('tjls_mm') or ()
    except metadata.PackageNotFoundError:  # run from its folder
        return
    differing = {}
    for extra in SETS:
        needed = [Requirement(line) for line in lines]
        needed = [r for r in needed if r.marker and r.marker.evaluate({'extra': extra})]
        differing[extra] = [
            f'{r.name} {installed.get(_plain(r.name), "(none)")} for {r.specifier}'
            for r in needed
            # A build says more behind a plus, as in 2.1.2+cu121.
            if installed.get(_plain(r.name), '0').split('+')[0] not in r.specifier
        ]
    extra, lacks = min(differing.items(), key=lambda item: len(item[1]))
    if lacks:
        yield warning(
            f'The set is none of the two that are tested; nearest is {extra!r}, and '
            f'here is {", ".join(lacks)}.'
        )


def _plain(name: str | None) -> str:
    return re.sub('[-_.]+', '-', str(name)).lower()


def check_config(exam: Examination) -> Iterator[Finding]:
    """Sections, settings, and types of parts."""
    yield from map(problem, section_problems(exam.cfg))
    yield from map(problem, setting_problems(exam.cfg))
    yield from map(problem, part_problems(exam.cfg))


def check_data(exam: Examination) -> Iterator[Finding]:
    """The data source and its image sets."""
    source = build_own(IMAGE_SOURCES, exam.cfg.data_source)
    listed = []
    for split in ('pool', 'test'):
        try:
            listed.append(source.list_images(split))
        except InputError as error:
            yield problem(str(error))
    if len(listed) < 2:
        return
    yield from map(problem, split_problems(*listed))
    exam.source, (exam.image_ids, exam.test_ids) = source, listed
    yield fact(
        f'{source.task}, {len(source.classes)} classes, {len(listed[0]):,} images to '
        f'label, {len(listed[1]):,} to test.'
    )


def check_plan(exam: Examination) -> Iterator[Finding]:
    """The learner, the query strategy, and a stage that can be made of both."""
    try:
        exam.plan = TrialPlan(exam.cfg)
    except InputError as error:
        yield problem(str(error))
        # The plan ends at its first problem; of the learner there may be more.
        with contextlib.suppress(InputError):
            yield from map(problem, _learner_problems(exam))
        return
    if exam.plan.n_initial == len(exam.image_ids) and exam.plan.n_stages == 1:
        yield fact('All images are labelled, in one stage.')


def _learner_problems(exam: Examination) -> Iterator[str]:
    cfg, (_, method) = exam.cfg, read_settings(exam.cfg)
    query = build_own(QUERIES, method.query)
    query = query.for_task(exam.source.task, method.features is not None)
    needs = query.needs.without('pretrained_feature')
    learner = inspect_learner(cfg, method, (*needs.pool, *needs.gathered))
    yield from learner_problems(cfg, exam.source, learner)
    yield from need_problems(method, needs, learner)


def check_work_dir(exam: Examination) -> Iterator[Finding]:
    """Whether the trial can begin or continue in its work dir; nothing is written."""
    folder = TrialFolder(exam.cfg.work_dir)
    path = _existing(folder.path)
    if not path.is_dir():
        yield problem(f'{path} is a file: expected a folder. Use another --work-dir.')
        return
    if not os.access(path, os.W_OK | os.X_OK):
        yield problem(
            f'{path} cannot be written to: see to it that it can, or use another '
            '--work-dir.'
        )
    if not folder.state.exists():
        if folder.stage_numbers():
            yield problem(
                f'{folder.path} holds stages but no {folder.state.name}: it is not '
                'the work dir of a trial. Use another --work-dir.'
            )
        return
    manifest = Manifest(folder)
    manifest.load()
    if manifest.is_untouched():
        return
    manifest.resume(exam.plan.facts)
    yield fact(
        f'{folder.path} holds this trial, {manifest.n_complete} of '
        f'{exam.plan.n_stages} stages complete: it is continued.'
    )
    yield from map(fact, manifest.notes)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_weights(exam: Examination) -> Iterator[Finding]:
    """Pretrained weights, which are fetched where they are not in the cache."""
    plan = exam.plan
    problems = list(weight_problems(exam.cfg, plan.settings, plan.learner.config))
    yield from map(problem, problems)
    if not problems:
        plan.check_weights()


def check_stages(exam: Examination) -> Iterator[Finding]:
    """How many images, iterations and updates every stage has."""
    plan, n_labelled, stages = exam.plan, exam.plan.n_initial, []
    total, folder = len(plan.image_ids), TrialFolder(exam.cfg.work_dir)
    for number in range(plan.n_stages):
        budget = plan.budget(number, n_labelled)
        n_pool = total - n_labelled
        inputs = StageInputs(
            number, folder.stage(number), n_labelled, n_pool, folder.test
        )
        volume = plan.deriver.volume(plan.deriver.derive(inputs), 1)
        sizes = volume['iterations'], volume['task_updates']
        stages.append(StageSize(n_labelled, n_pool, budget, *sizes))
        n_labelled += budget
    exam.stages = stages
    yield from _describe_stages(stages)
    batch = plan.deriver.batches(1).labelled
    if plan.n_initial < batch:
        yield warning(
            f'A batch of {batch} labelled images holds some of the {plan.n_initial} '
            'of stage 0 twice: train_dataloader.batch_size could be smaller, or '
            'active_learning.initial larger.'
        )
    budgets = [stage.budget for stage in stages[:-1]]
    if isinstance(plan.settings.budget, (int, float)) and len(set(budgets)) > 1:
        yield warning(
            f'The last selection takes what is left, {budgets[-1]} images in place of '
            f'{budgets[0]}.'
        )


def _describe_stages(stages: Sequence[StageSize]) -> Iterator[Finding]:
    ends = 4
    for number, stage in enumerate(stages):
        if ends <= number < len(stages) - 1 and len(stages) > 2 * ends:
            if number == ends:
                yield fact('…')
            continue
        yield fact(
            f'stage {number}: {stage.labelled:,} labelled, {stage.pool:,} in the pool, '
            f'{stage.task_updates:,} updates of the task in {stage.iterations:,} '
            'iterations.'
        )


def check_updates(exam: Examination) -> Iterator[Finding]:
    """Updates of every kind, an evaluation, a scored batch and a query, for real."""
    plan = exam.plan
    exam.rehearsal = found = rehearse(plan)
    if plan.initial is None:
        yield fact('Test images stood in for labelled ones, which are not chosen yet.')
    losses = ', '.join(f'{loss:.4g} ({turn})' for turn, loss in found.losses.items())
    images = plan.deriver.batches(1).per_process
    yield fact(
        f'{found.iterations} iterations with {images} images each ran; loss {losses}.'
    )
    if found.stumble:
        yield warning(
            f'{plan.method.query["type"]} cannot select from a few images '
            f'({found.stumble}): if more of them do not help, it fails after stage 0 '
            'has been trained.'
        )
    memory = decimal(found.memory)
    if found.capacity is None:
        grew = decimal(found.growth)
        yield fact(f'The process took {memory} of memory, {grew} more than before.')
        return
    yield fact(f'{memory} of the memory of the GPU, {decimal(found.capacity)}.')
    if found.memory > NEARLY * found.capacity:
        yield warning(
            f'{memory} nearly fill the GPU, and larger images or more boxes may need '
            'more: lower train_dataloader.batch_size.'
        )


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
    path = _existing(TrialFolder(exam.cfg.work_dir).path)
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
