"""Run the trials of a sweep, variants x seeds, one after the other, into one table.

A sweep file is a text config (see configs/sweeps) of ``trials``, names to ``config``
(a path relative to the sweep file) and ``options`` (overrides by dotted key), perhaps
``seeds`` and ``title``. Each trial is a run of al_train.py with a work dir and a log.
The same command continues where it stopped and leaves complete trials alone.
"""

import argparse
import contextlib
import copy
import difflib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, DictAction

from tjls_mm.active.config_file import adopted, load_config, read_config
from tjls_mm.active.manifest import flatten_config, hash_config
from tjls_mm.active.settings import read_settings
from tjls_mm.errors import InputError, raise_first
from tjls_mm.files import write_text
from tjls_mm.report import comparison

AL_TRAIN = Path(__file__).with_name('al_train.py')
NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*')  # neither hidden nor an option


@dataclass(frozen=True)
class SweepTrial:
    """A variant, with its config, and a seed; ``folder`` is its work dir."""

    variant: str
    cfg: Config
    seed: int
    folder: Path

    def summary(self) -> comparison.TrialSummary | None:
        """Its results so far; None where there are none, or of another config."""
        try:
            found = comparison.read_summary(self.folder)
        except InputError:  # running the trial writes it anew
            return None
        expected = hash_config(flatten_config(self.cfg)), self.seed
        return found if (found.config_hash, found.seed) == expected else None

    def n_left(self) -> int:
        found = self.summary()
        return read_settings(self.cfg)[0].stages - (len(found.rows) if found else 0)

    def run(self) -> str | None:
        """Run what is left of it; what went wrong, if anything."""
        log_file = self.folder.with_name(f'{self.folder.name}.log')
        config = self.folder.with_name(f'{self.variant}.py')
        write_text(config, config_text(self.cfg))
        command = [sys.executable, str(AL_TRAIN), str(config)]
        command += ['--work-dir', str(self.folder), '--seed', str(self.seed)]
        with open(log_file, 'a', encoding='utf-8') as log:
            print(f'--- {time.ctime()} {" ".join(command)}', file=log, flush=True)
            code = subprocess.run(command, stdout=log, stderr=log).returncode
        left = self.n_left()
        if not code and not left:
            return None
        lines = log_file.read_text(encoding='utf-8', errors='replace').splitlines()
        errors = [i for i, line in enumerate(lines) if line.startswith('ERROR')]
        last = '\n'.join(lines[errors[-1] if errors else -1 :])
        return f'exit code {code}, {left} stages left, {log_file}\n{last}'


def read_sweep(
    path: Path, work_dir: Path, seeds: Sequence[int] | None, options: Mapping
) -> tuple[str, list[SweepTrial]]:
    """Title and trials, seed by seed, or InputError that names all that is wrong."""
    content = read_config(str(path)).to_dict()
    trials, configs = content.get('trials'), {}
    seeds = content.get('seeds', [0]) if seeds is None else seeds
    problems = [f'{k!r} is unknown' for k in {*content} - {'title', 'seeds', 'trials'}]
    plain = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
    if not plain or not seeds or len(set(seeds)) < len(seeds):
        problems.append(f'seeds must list different integers >= 0, got {seeds}')
    if not isinstance(trials, dict) or not trials:
        problems.append(f'trials must be dict(NAME=dict(config=FILE)), got {trials!r}')
        trials = {}
    for name, trial in trials.items():
        try:
            configs[name] = read_variant(path.parent, name, trial, options)
        except InputError as error:
            problems.append(f'trial {name!r}: {error}')
    raise_first(['\n'.join(f'{path}: {p}' for p in problems)] if problems else ())
    runs = [(s, n, work_dir / f'{n}_seed{s}') for s in seeds for n in configs]
    trials = [SweepTrial(name, configs[name], seed, to) for seed, name, to in runs]
    return str(content.get('title', path.stem)), trials


def read_variant(folder: Path, name, trial, on_top: Mapping) -> Config:
    """Config of a trial of a sweep file, with its options and others on top.

    An option names a key of the config, or a new one where an unknown one is refused:
    below a dict with ``type``, ``active_learning`` or ``method``.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError('a name is letters, digits, "_", and inside "-" and "."')
    given = {'options': {}, **trial} if isinstance(trial, dict) else {}
    if {*given} != {'config', 'options'} or not isinstance(given['options'], dict):
        raise InputError(f'expected dict(config=FILE, options={{...}}), got {trial!r}')
    cfg = load_config(str(folder / str(given['config'])))
    for options in (given['options'], on_top):
        now = cfg.to_dict()
        problems = [p for k, v in options.items() for p in _problems(now, str(k), v)]
        raise_first([', '.join(problems)] if problems else ())
        try:  # merging takes _delete_ out of the options themselves
            cfg.merge_from_dict(copy.deepcopy(dict(options)))
        except (LookupError, TypeError, AttributeError, AssertionError) as error:
            raise InputError(f'options do not fit: {error!r}') from None
    cfg = adopted(cfg)
    read_settings(cfg)
    config_text(cfg)
    return cfg


def _problems(part, dotted: str, value, above: str = '') -> Iterator[str]:
    key, _, rest = dotted.partition('.')
    where = f'{above}.{key}' if above else key
    if where == 'randomness.seed':
        yield 'randomness.seed: seeds says with which to run'
    elif isinstance(part, list | tuple):
        if not key.isdigit() or int(key) >= len(part):
            yield f'{above} is a list of {len(part)}, and {key!r} no place in it'
        elif rest:
            yield from _problems(part[int(key)], rest, value, where)
    elif not isinstance(part, Mapping):
        yield f'{above} is {part!r} and holds no settings'
    elif key not in part:
        # read_settings knows the keys of the latter, those at their default too.
        is_open = 'type' in part or above in ('active_learning', 'method')
        near = difflib.get_close_matches(key, part, 1, 0.85 if is_open else 0.6)
        if near or rest or not is_open:
            hint = f'; did you mean {near[0]!r}?' if near else ''
            yield f'the config has no {where}{hint}'
    elif rest:
        yield from _problems(part[key], rest, value, where)
    elif isinstance(value, Mapping) and isinstance(part[key], Mapping):
        for name in () if value.get('_delete_') else value:
            yield from _problems(part[key], str(name), value[name], where)


def config_text(cfg: Config) -> str:
    """A merged config as a file that reads as the same config, or InputError."""
    with contextlib.suppress(Exception):  # a text config is Python
        text = cfg.pretty_text
        if Config.fromstring(text, '.py').to_dict() == cfg.to_dict():
            return text
    raise InputError('its config cannot be written as a file: values must be plain')


def write_table(title: str, trials: Sequence[SweepTrial], show: bool = False) -> None:
    """Write and print what is there; InputError if it is no table of one kind."""
    found = [summary for trial in trials if (summary := trial.summary())]
    raise_first(comparison.comparison_problems(found))
    names = list(dict.fromkeys(trial.variant for trial in trials))
    n_seeds, folder = len({trial.seed for trial in trials}), trials[0].folder.parent
    if found:
        files = comparison.write_comparison(folder, title, found, names, n_seeds)
    if found and show:
        comparison.print_comparison(found, names, n_seeds)
        print(f'{folder}: {", ".join(files)}')


def run_sweep(args: argparse.Namespace) -> int:
    """Run what is left of a sweep and write its table; 1 if a trial failed."""
    pairs = (option.partition('=') for option in args.cfg_options)
    options = {key: DictAction._parse_iterable(value) for key, _, value in pairs}
    title, trials = read_sweep(args.sweep, args.work_dir, args.seeds, options)
    known = {trial.variant for trial in trials}
    only = known if args.only is None else {*args.only}
    raise_first(f'--only {n}: unknown. Known: {sorted(known)}.' for n in only - known)
    chosen = [trial for trial in trials if trial.variant in only]
    print(f'{title}: {len(chosen)} trials in {args.work_dir}', flush=True)
    failures = []
    for i, trial in enumerate(chosen, 1):
        label, left = f'[{i}/{len(chosen)}] {trial.folder.name}', trial.n_left()
        if args.dry_run or not left:
            print(f'{label}: {left} stages left' if left else f'{label}: complete')
            continue
        print(f'{label}: started at {time.strftime("%H:%M:%S")}', flush=True)
        failure = trial.run()
        print(f'{label}: {"FAILED" if failure else "finished"}', flush=True)
        failures += [f'{label}: {failure}'] if failure else []
        with contextlib.suppress(InputError):  # raised at the end
            write_table(title, trials)
    if failures:
        print(*failures, f'{len(failures)} failed: the same command retries.', sep='\n')
    if not args.dry_run:
        write_table(title, trials, show=True)
    return int(bool(failures))


def main(argv: Sequence[str] | None = None) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add('sweep', type=Path, help='sweep file, see configs/sweeps')
    add('--work-dir', type=Path, help='default: work_dirs/<name of the sweep file>')
    add('--seeds', nargs='+', type=int, help="in place of the file's")
    add('--only', nargs='+', metavar='NAME', help='run these; the table has all')
    add('--dry-run', action='store_true', help='check and list the trials, run none')
    add('--cfg-options', nargs='+', default=[], help='KEY=VALUE, for all trials')
    args = parser.parse_args(argv)
    args.work_dir = args.work_dir or Path('work_dirs') / args.sweep.stem
    try:
        return run_sweep(args)
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Stopped. The same command continues.', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
