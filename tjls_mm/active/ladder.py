"""The ladder: query strategies compared from the same weights, stage 0 trained once."""

import copy
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size

from tjls_mm.active.config_file import load_config
from tjls_mm.active.manifest import flatten_config
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.settings import nearest
from tjls_mm.active.stage import Stage
from tjls_mm.active.trial import run_stages
from tjls_mm.errors import InputError, raise_first
from tjls_mm.files import atomic_path, file_hash, read_json, write_json
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.processes import on_main_process
from tjls_mm.query import QueryStrategy
from tjls_mm.registry import QUERIES
from tjls_mm.stage_folder import StageFolder, TrialFolder
from tjls_mm.stage_record import StageRecord


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
    seed_done: Callable[[list[Path]], None] = lambda folders: None,
) -> list[Path]:
    """Run a trial per rule and seed; those of a seed share stage 0.

    Stage 0 of a seed is trained, evaluated and scored once, in ``shared_seedS``, for
    all rules; ``RULE_seedS`` takes it over and goes on as a trial of its own, with the
    results that it would have by itself. What is there already is not run again.

    Args:
        cfg: Config of a trial with simulated labels; its ``method.query`` is not used.
        rules: Name to the config of a query strategy.
        seeds: At least one.
        folder: Of all work dirs.
        seed_done: Called with the work dirs so far whenever a seed is complete.

    Returns:
        The work dirs of the rules, seed by seed.

    Raises:
        InputError: If config, rules or work dirs cannot be used.
    """
    needs = check_ladder(cfg, rules, folder)
    done, shared = [], None
    for seed in seeds:
        target = TrialFolder(folder / f'shared_seed{seed}')
        if shared is not None:  # the same images whatever the seed
            on_main_process(_share_features, shared, target)
        shared = _run_shared(cfg, needs, seed, target)
        for name, query in rules.items():
            own = _config(cfg, query, seed, folder / f'{name}_seed{seed}')
            on_main_process(_share_features, shared, TrialFolder(own.work_dir))
            _run_rule(own, shared)
            done.append(Path(own.work_dir))
        seed_done(done)
    return done


def read_rules(path: str, only: Sequence[str] | None = None) -> dict[str, dict]:
    """Names and configs of query strategies from the ``rules`` of a text config.

    Args:
        path: Of the file.
        only: Names to keep, in this order; None for all.

    Raises:
        InputError: If it holds none, a name is no name of a folder, or is unknown.
    """
    rules = load_config(path).get('rules')
    if not isinstance(rules, Mapping) or not rules:
        raise InputError(
            f'{path}: expected rules=dict(NAME=dict(type=...), ...), found {rules!r}.'
        )
    for name, query in rules.items():
        if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', name):
            raise InputError(
                f'{path}: a rule is named {name!r}, and names a folder: use letters, '
                'digits, "_", "-" and ".".'
            )
        if not isinstance(query, Mapping) or not isinstance(query.get('type'), str):
            raise InputError(
                f'{path}: rules.{name} must be dict(type=NAME, ...), got {query!r}.'
            )
    for name in only or ():
        if name not in rules:
            raise InputError(f'{path} has no rule {name!r}{nearest(name, rules)}')
    return {name: rules[name].to_dict() for name in only or rules}


def check_ladder(cfg: Config, rules: Mapping[str, Mapping], folder: Path) -> Needs:
    """Plan a trial of every rule; what they need together.

    Raises:
        InputError: If a rule cannot be planned; it lists all that is wrong.
    """
    problems, needs = [], []
    for name, query in rules.items():
        try:
            cfg_of_rule = _config(cfg, query, 0, folder / name)
            needs.append(TrialPlan(cfg_of_rule, get_world_size()).query.needs)
        except InputError as error:
            problems.append(f'rule {name!r}: {error}')
    raise_first(['\n'.join(problems)] if problems else ())
    return needs_of_all(needs)


def _run_shared(cfg: Config, needs: Needs, seed: int, folder: TrialFolder):
    needs = on_main_process(_with_gathered, needs, folder)
    query = {'type': 'tjls_mm.NeedsOfAll', **asdict(needs)}
    cfg = _config(cfg, query, seed, folder.path)
    cfg.active_learning.update(stages=1, keep_outputs=True)
    return TrialFolder(run_stages(cfg))


def _with_gathered(needs: Needs, folder: TrialFolder) -> Needs:
    """With what is gathered already; where that is too little, stage 0 goes."""
    if not folder.state.exists():
        return needs
    config = read_json(folder.state)['config']
    parts = {
        part: {v for k, v in config.items() if k.startswith(f'method.query.{part}[')}
        | set(getattr(needs, part))
        for part in ('pool', 'labelled')
    }
    passes = needs.passes or config.get('method.query.passes', 0)
    both = Needs(**{k: sorted(v) for k, v in parts.items()}, passes=passes)
    query = flatten_config(
        {'method': {'query': {'type': 'tjls_mm.NeedsOfAll', **asdict(both)}}}
    )
    if any(config.get(key) != value for key, value in query.items()):
        # The same seed makes the same weights again.
        for number in folder.stage_numbers():
            shutil.rmtree(folder.stage(number).path)
        folder.state.unlink()
    return both


def _config(cfg: Config, query: Mapping, seed: int, work_dir: Path) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(work_dir)
    cfg.method.query = ConfigDict(copy.deepcopy(dict(query)))
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    return cfg


def _run_rule(cfg: Config, shared: TrialFolder) -> None:
    def take_over(stage: Stage) -> None:
        if stage.number == 0:
            on_main_process(share_stage, shared.stage(0), stage.folder)

    checked = on_main_process(read_json, shared.state)['checked']
    folder = run_stages(cfg, prepared=take_over, checked=checked)
    if read_json(TrialFolder(folder).state)['stages'][-1]['status'] != 'complete':
        raise InputError(
            f'{folder} waits for labels: a ladder needs those of all images, as '
            "annotator=dict(type='tjls_mm.Oracle') has them."
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
                'images, seed and learner only. Remove both work dirs.'
            )
    if own.model.exists() or own.answered.exists():
        return
    own.remove_outputs()
    if shared.outputs_index.exists():
        shutil.copytree(shared.outputs, own.outputs, copy_function=_link)
    record, before = StageRecord(own), StageRecord(shared).read()
    mine = record.read()
    seconds = {**before.get('seconds', {}), **mine.get('seconds', {})}
    write_json(record.path, {**before, **mine, 'seconds': seconds})
    for name in ('trained_on', 'model'):  # the weights last: they mark it as trained
        if getattr(shared, name).exists():
            with atomic_path(getattr(own, name)) as path:
                shutil.copyfile(getattr(shared, name), path)


def _share_features(shared: TrialFolder, own: TrialFolder) -> None:
    if shared.features.exists() and not own.features.exists():
        with atomic_path(own.feature_list) as path:
            shutil.copyfile(shared.feature_list, path)
        shutil.copytree(shared.features, own.features, copy_function=_link)


def _link(source: str, target: str) -> str:
    """A second name for a file that nobody writes into, or a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
