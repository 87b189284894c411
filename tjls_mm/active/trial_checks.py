"""Checks of config, plan, work dir, weights and stages, and the rehearsal."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.filesize import decimal

from tjls_mm.active.checks import (
    learner_problems,
    need_problems,
    part_problems,
    section_problems,
    split_problems,
    weight_problems,
)
from tjls_mm.active.examination import (
    Examination,
    Finding,
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
from tjls_mm.errors import InputError
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.registry import IMAGE_SOURCES, QUERIES, build_own
from tjls_mm.stage_folder import TrialFolder

NEARLY = 0.9
"""Share of the memory or of the disk from which on it may not suffice."""


def check_config(exam: Examination) -> Iterator[Finding]:
    """Sections, settings, and types of parts."""
    yield from map(problem, section_problems(exam.cfg))
    yield from map(problem, setting_problems(exam.cfg))
    yield from map(problem, part_problems(exam.cfg))


def check_data(exam: Examination) -> Iterator[Finding]:
    """The data source and its image sets."""
    if not exam.cfg.get('data_source'):
        yield problem('There is no data_source to look at.')
        return
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
    needs = query.needs.without(PRETRAINED_FEATURE)
    learner = inspect_learner(cfg, method, (*needs.pool, *needs.gathered))
    yield from learner_problems(cfg, exam.source, learner)
    yield from need_problems(method, needs, learner)


def check_work_dir(exam: Examination) -> Iterator[Finding]:
    """Whether the trial can begin or continue in its work dir; nothing is written."""
    folder = TrialFolder(exam.cfg.work_dir)
    path = existing_folder(folder.path)
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


def existing_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
