"""The ladder: query strategies compared from the same weights, stage 0 trained once."""

import copy
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size

from tjls_mm.active.config_file import load_config
from tjls_mm.active.manifest import Manifest
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.settings import nearest
from tjls_mm.active.stage import Stage
from tjls_mm.active.trial import run_stages
from tjls_mm.annotation import Oracle
from tjls_mm.errors import InputError, TrainingDiverged, raise_first
from tjls_mm.files import atomic_path, file_hash, read_json, write_json
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.processes import on_main_process
from tjls_mm.query import QueryStrategy
from tjls_mm.registry import QUERIES
from tjls_mm.stage_folder import StageFolder, TrialFolder
from tjls_mm.stage_record import StageRecord

SHARED = 'shared'
"""Name of the trials whose stage 0 all rules of a seed take over."""

OF_A_RULE = ('method.query.', 'active_learning.')
"""Settings that may differ between a rule and what it takes over."""


@QUERIES.register_module()
class NeedsOfAll(QueryStrategy):
    """Asks for what several strategies need, and chooses nothing.

    Args:
        pool, labelled, passes: See ``Needs``.
    """

    def __init__(
        self, pool: Sequence[str], labelled: Sequence[str], passes: int
    ) -> None:
        self.needs = Needs(pool=pool, labelled=labelled, passes=passes)

    def select(self, pool, labelled, budget, seed):
        raise InputError('NeedsOfAll chooses nothing: use it for a last stage.')


def needs_of_all(all_needs: Sequence[Needs]) -> Needs:
    """What any of several strategies needs.

    Raises:
        InputError: If they ask for different numbers of stochastic passes.
    """
    passes = {needs.passes for needs in all_needs if needs.passes}
    if len(passes) > 1:
        raise InputError(
            f'The rules ask for {sorted(passes)} stochastic passes, and these are made '
            'once for all: give them one number of passes.'
        )
    pool, labelled = (
        sorted({name for needs in all_needs for name in getattr(needs, part)})
        for part in ('pool', 'labelled')
    )
    return Needs(pool=pool, labelled=labelled, passes=max(passes, default=0))


def run_ladder(
    cfg: Config,
    rules: Mapping[str, Mapping],
    seeds: Sequence[int],
    folder: Path,
    only: Sequence[str] | None = None,
    seed_done: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run a trial per rule and seed; those of a seed share stage 0.

    Stage 0 of a seed is trained, evaluated and scored once, in ``shared_seedS``, for
    all rules; ``RULE_seedS`` takes it over and goes on as a trial of its own, with the
    picks, weights and metrics that it would have by itself. What is there already is
    not run again. A rule that fails does not stop the others.

    Args:
        cfg: Config of a trial with simulated labels; its ``method.query`` is not used.
        rules: Name to the config of a query strategy.
        seeds: At least one, each once.
        folder: Of all work dirs.
        only: Names of the rules to run now, None for all; stage 0 is scored for all.
        seed_done: Called whenever all rules of a seed have run.

    Returns:
        What went wrong, a line for each rule and seed.

    Raises:
        InputError: If config, rules or the shared stage cannot be used.
    """
    if len(set(seeds)) < len(seeds):
        raise InputError(f'Seeds must be different ones, got {list(seeds)}.')
    needs = check_ladder(cfg, rules, folder, only)
    failures, source = [], None
    for seed in seeds:
        target = TrialFolder(folder / f'{SHARED}_seed{seed}')
        on_main_process(_share_features, source, target)
        source = shared = _run_shared(cfg, needs, seed, target)
        for name in only or rules:
            own = _config(cfg, rules[name], seed, folder / f'{name}_seed{seed}')
            on_main_process(_share_features, shared, TrialFolder(own.work_dir))
            try:
                _run_rule(own, shared)
            except (InputError, TrainingDiverged) as error:
                if get_world_size() > 1 and not getattr(error, 'is_shared', False):
                    raise  # the other processes do not know
                failures.append(f'{name}, seed {seed}: {error}')
        seed_done()
    return failures


def ladder_work_dirs(rules: Iterable[str], folder: Path) -> list[Path]:
    """Work dirs of these rules that have results after stage 0, of all seeds."""
    found = []
    for name in rules:
        of_rule = re.compile(re.escape(name) + r'_seed(\d+)')
        seeds = [of_rule.fullmatch(path.name) for path in folder.glob('*')]
        for seed in sorted(int(match[1]) for match in seeds if match):
            path = folder / f'{name}_seed{seed}'
            summary = TrialFolder(path).summary
            if summary.exists() and len(read_json(summary).get('stages', ())) > 1:
                found.append(path)
    return found


def read_rules(path: str) -> dict[str, dict]:
    """Names and configs of query strategies from the ``rules`` of a text config.

    Raises:
        InputError: If it holds none, or a name is no name of a folder.
    """
    rules = load_config(path).get('rules')
    if not isinstance(rules, Mapping) or not rules:
        raise InputError(
            f'{path}: expected rules=dict(NAME=dict(type=...), ...), found {rules!r}.'
        )
    for name, query in rules.items():
        if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', name) or name == SHARED:
            raise InputError(
                f'{path}: a rule is named {name!r}, and names a folder: use letters, '
                f'digits, "_", "-" and ".", and not {SHARED!r}.'
            )
        if not isinstance(query, Mapping) or not isinstance(query.get('type'), str):
            raise InputError(
                f'{path}: rules.{name} must be dict(type=NAME, ...), got {query!r}.'
            )
    return {name: query.to_dict() for name, query in rules.items()}


def check_ladder(
    cfg: Config,
    rules: Mapping[str, Mapping],
    folder: Path,
    only: Sequence[str] | None = None,
) -> Needs:
    """Plan a trial of every rule; what all that can be planned need together.

    Raises:
        InputError: If a rule of ``only`` cannot be run; it lists all that is wrong.
    """
    for name in only or ():
        if name not in rules:
            raise InputError(f'There is no rule {name!r}{nearest(name, rules)}')
    problems, needs = [], []
    for name, query in rules.items():
        try:
            plan = TrialPlan(_config(cfg, query, 0, folder / name), get_world_size())
            plan.budget(0, plan.n_initial)
            if not isinstance(plan.annotator, Oracle):
                raise InputError(
                    'A ladder needs the labels of all images: write '
                    "active_learning.annotator=dict(type='tjls_mm.Oracle')."
                )
            needs.append(plan.query.needs)
        except InputError as error:
            if only is None or name in only:
                problems.append(f'rule {name!r}: {error}')
    raise_first(['\n'.join(dict.fromkeys(problems))] if problems else ())
    return needs_of_all(needs)


def _run_shared(
    cfg: Config, needs: Needs, seed: int, folder: TrialFolder
) -> TrialFolder:
    needs = on_main_process(_gathered, needs, folder)
    query = {'type': 'tjls_mm.NeedsOfAll', **asdict(needs)}
    cfg = _config(cfg, query, seed, folder.path)
    cfg.active_learning.update(stages=1, budget=1, keep_outputs=True)
    return TrialFolder(run_stages(cfg))


def _gathered(needs: Needs, folder: TrialFolder) -> Needs:
    """What stage 0 has gathered, which must be enough; else what it is to gather."""
    config = read_json(folder.state).get('config') if folder.state.exists() else None
    if not isinstance(config, dict):
        return needs  # a damaged state is the trial's to refuse
    parts = {
        part: {v for k, v in config.items() if k.startswith(f'method.query.{part}[')}
        for part in ('pool', 'labelled')
    }
    passes = config.get('method.query.passes', 0)
    missing = [
        n
        for part, names in parts.items()
        for n in getattr(needs, part)
        if n not in names
    ]
    if missing or needs.passes not in (0, passes):
        lacks = missing or f'{needs.passes} stochastic passes'
        raise InputError(
            f'{folder.path} was scored for other rules: {lacks} were not gathered. '
            'Use another --work-dir, or remove this folder and those of all rules of '
            'its seed. (Rules that are in the file from the beginning can be run '
            'later, with --only.)'
        )
    return Needs(**{k: sorted(v) for k, v in parts.items()}, passes=passes)


def _config(cfg: Config, query: Mapping, seed: int, work_dir: Path) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(work_dir)
    cfg.method.query = ConfigDict(copy.deepcopy(dict(query)))
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    return cfg


def _run_rule(cfg: Config, shared: TrialFolder) -> None:
    def take_over(stage: Stage) -> None:
        if stage.number == 0:
            manifest = stage.trial.manifest
            on_main_process(_check_alike, shared, manifest)
            on_main_process(share_stage, shared.stage(0), stage.folder)

    checked = on_main_process(read_json, shared.state)['checked']
    run_stages(cfg, prepared=take_over, checked=checked)


def _check_alike(shared: TrialFolder, own: Manifest) -> None:
    """InputError unless stage 0 of both is one experiment."""
    other = read_json(shared.state)
    ours, theirs = (
        {k: v for k, v in content['config'].items() if not k.startswith(OF_A_RULE)}
        for content in (own.content, other)
    )
    changed = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
    processes = [content['stages'][0]['processes'] for content in (own.content, other)]
    if processes[0][-1:] != processes[1][-1:]:
        changed.append(f'number of processes ({processes[1]} before)')
    if changed:
        raise InputError(
            f'{shared.path} was made with other settings than {own.folder.path}: '
            f'{", ".join(changed[:5])}. Use another --work-dir, or the settings of '
            'before.'
        )


def share_stage(shared: StageFolder, own: StageFolder) -> None:
    """Give a prepared stage the weights, metrics and outputs of another.

    What is there is left alone; what a kill leaves out, the stage makes itself.

    Raises:
        InputError: If the two are not of the same images.
    """
    lists = 'labelled', 'pool', 'held_out', 'bank'
    for one, two in ((getattr(shared, n), getattr(own, n)) for n in lists):
        hashes = [file_hash(path) if path.exists() else None for path in (one, two)]
        if hashes[0] != hashes[1]:
            raise InputError(
                f'{one} and {two} differ: stage 0 can be shared by trials of the same '
                'images, seed and learner only. Use another --work-dir.'
            )
    if own.model.exists() or own.answered.exists():
        return
    own.remove_outputs()
    if shared.outputs_index.exists():
        shutil.copytree(shared.outputs, own.outputs, copy_function=_link)
    record, before = StageRecord(own), StageRecord(shared).read()
    before.pop('features', None)  # of rules that choose by them
    mine = record.read()
    seconds = {**before.get('seconds', {}), **mine.get('seconds', {})}
    write_json(record.path, {**before, **mine, 'seconds': seconds})
    for name in ('trained_on', 'model'):  # the weights last: they mark it as trained
        if getattr(shared, name).exists():
            with atomic_path(getattr(own, name)) as path:
                shutil.copyfile(getattr(shared, name), path)


def _share_features(source: TrialFolder | None, own: TrialFolder) -> None:
    if source is None or not source.features.exists() or own.features.exists():
        return
    with atomic_path(own.feature_list) as path:
        shutil.copyfile(source.feature_list, path)
    part = own.features.with_name(f'.{own.features.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source.features, part, copy_function=_link)
    part.rename(own.features)


def _link(source: str, target: str) -> str:
    """A second name for a file that nobody writes into, or a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
