"""Run the trials of a sweep, variants x seeds, and put them into one table.

Every trial is a run of al_train.py in a process and a work dir of its own. The same
command again continues where it stopped; complete trials are left alone. Stop it with
Ctrl-C: the trials that are running stop too, and lose little.
"""

import argparse
import contextlib
import datetime
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.config import DictAction

from tjls_mm.active.comparison import (
    mean_rows,
    print_variants,
    read_trials,
    write_variants,
)
from tjls_mm.active.manifest import FILE as STATE_FILE
from tjls_mm.active.sweep import (
    Sweep,
    Variant,
    config_text,
    read_sweep,
    write_configs,
)
from tjls_mm.errors import InputError

AL_TRAIN = Path(__file__).with_name('al_train.py')
SECONDS_TO_STOP = 10


@dataclass(frozen=True)
class SweepTrial:
    """One variant with one seed.

    Attributes:
        variant: Which.
        seed: Which.
        work_dir: Of the sweep.
    """

    variant: Variant
    seed: int
    work_dir: Path

    @property
    def name(self) -> str:
        """For people: ``'tjls seed 0'``."""
        return f'{self.variant.name} seed {self.seed}'

    @property
    def folder(self) -> Path:
        """Work dir of the trial."""
        return self.work_dir / f'{self.variant.name}_seed{self.seed}'

    @property
    def log(self) -> Path:
        """What its runs printed, one after the other."""
        return self.work_dir / f'{self.folder.name}.log'

    @property
    def command(self) -> list[str]:
        """Command line that runs it, or what is left of it."""
        config = self.variant.config_file(self.work_dir)
        arguments = ['--work-dir', str(self.folder), '--seed', str(self.seed)]
        return [sys.executable, str(AL_TRAIN), str(config), *arguments]

    @property
    def n_stages(self) -> int:
        """Stages that it has when it is complete."""
        return self.variant.cfg.active_learning.stages

    def stages_done(self) -> int | None:
        """Complete and reported stages; None where the files are of another config."""
        if not (self.folder / STATE_FILE).exists():
            return 0
        try:
            state = _read_json(self.folder / STATE_FILE)
            found = state['config'], state['seed']
            done = sum(stage['status'] == 'complete' for stage in state['stages'])
            if found != (self.variant.settings, self.seed):
                return None
            if not done:
                return 0
            reported = _read_json(self.folder / 'summary.json')['stages']
        except (FileNotFoundError, ValueError, KeyError):
            # al_train.py says what is wrong with it.
            return 0
        return min(done, len(reported))

    def is_complete(self) -> bool:
        """Whether nothing is left to run."""
        return self.stages_done() == self.n_stages

    def describe(self) -> str:
        """How far it is, in words."""
        done = self.stages_done()
        if done is None:
            return f'{self.folder} holds another config or seed, will be refused'
        if done == self.n_stages:
            return 'complete'
        return f'{done} of {self.n_stages} stages complete'


@dataclass(frozen=True)
class Result:
    """How the run of a trial ended.

    Attributes:
        trial: Which.
        failure: What went wrong, None if it is complete.
        seconds: Its time; None if it was complete before.
    """

    trial: SweepTrial
    failure: str | None = None
    seconds: float | None = None

    def describe(self) -> str:
        """In words."""
        if self.seconds is None:
            return 'complete already'
        took = datetime.timedelta(seconds=round(self.seconds))
        if self.failure:
            return f'FAILED after {took}, {self.failure}: {self.trial.log}'
        return f'finished in {took}'


class TrialRunner:
    """Runs trials in processes of their own; leaving its context stops them.

    Args:
        jobs: How many at once.
        say: Called with lines for the user.
    """

    def __init__(self, jobs: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._pool = ThreadPoolExecutor(jobs)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._processes: set[subprocess.Popen] = set()

    def __enter__(self) -> 'TrialRunner':
        return self

    def __exit__(self, *exc) -> None:
        self._stop()
        self._pool.shutdown(cancel_futures=True)

    def run(self, trials: Sequence[SweepTrial]) -> Iterator[Result]:
        """Run what is left of trials.

        Args:
            trials: In the order in which they are started.

        Yields:
            Results in the order in which the trials end.
        """
        futures = [
            self._pool.submit(self._run, trial, f'[{i}/{len(trials)}] {trial.name}')
            for i, trial in enumerate(trials, 1)
        ]
        for future in as_completed(futures):
            yield future.result()

    def _run(self, trial: SweepTrial, label: str) -> Result:
        started = time.monotonic()
        try:
            self._wait_for_others(trial, label)
            if trial.is_complete():
                result = Result(trial)
            else:
                started = time.monotonic()
                failure = self._train(trial, label)
                result = Result(trial, failure, time.monotonic() - started)
        except OSError as error:
            result = Result(trial, str(error), time.monotonic() - started)
        if not self._stopping.is_set():
            self._say(f'{label}: {result.describe()}')
        return result

    def _wait_for_others(self, trial: SweepTrial, label: str) -> None:
        """A sweep that was killed without notice leaves its trials running."""
        if not (trial.folder / '.lock').exists():
            return
        said = False
        while not self._stopping.is_set():
            try:
                with FileLock(trial.folder / '.lock', timeout=0):
                    return
            except Timeout:
                if not said:
                    self._say(f'{label}: another process is running it, waiting')
                said = True
                self._stopping.wait(2)

    def _train(self, trial: SweepTrial, label: str) -> str | None:
        """Run al_train.py; what went wrong, if anything."""
        with open(trial.log, 'ab') as log:
            with self._lock:
                if self._stopping.is_set():
                    return 'stopped before its start'
                self._say(f'{label}: started at {time.strftime("%H:%M:%S")}')
                now = datetime.datetime.now().isoformat(' ', 'seconds')
                log.write(f'--- {now} {" ".join(trial.command)}\n'.encode())
                log.flush()
                process = subprocess.Popen(
                    trial.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                self._processes.add(process)
            code = process.wait()
            with self._lock:
                self._processes.remove(process)
        if code < 0:
            return f'killed by signal {-code}'
        if code:
            return f'exit code {code}'
        if not trial.is_complete():
            return f'it ended early, {trial.describe()}'
        return None

    def _stop(self) -> None:
        with self._lock:
            self._stopping.set()
            processes = list(self._processes)
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + SECONDS_TO_STOP
        for process in processes:
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()


def plan_trials(
    sweep: Sweep, work_dir: Path, only: Sequence[str] | None = None
) -> list[SweepTrial]:
    """The trials to run, in order.

    Seed by seed, so that all variants can be compared early.

    Raises:
        InputError: If ``only`` names an unknown variant.
    """
    known = [variant.name for variant in sweep.variants]
    for name in only or []:
        if name not in known:
            raise InputError(f'--only {name}: unknown. Known: {", ".join(known)}.')
    return [
        SweepTrial(variant, seed, work_dir)
        for seed in sweep.seeds
        for variant in sweep.variants
        if not only or variant.name in only
    ]


def read_means(sweep: Sweep, work_dir: Path) -> dict[str, list[dict]]:
    """Means of what is complete, for all variants.

    Results of another config than the sweep's are left out.
    """
    rows = {}
    for trial in plan_trials(sweep, work_dir):
        done = trial.stages_done()
        if done:
            (stages,) = read_trials([trial.folder]).values()
            rows[trial.variant.name, trial.seed] = stages[:done]
    means = mean_rows(rows, incomplete=True)
    return {v.name: means.get(v.name, []) for v in sweep.variants}


def write_table(sweep: Sweep, work_dir: Path) -> dict[str, list[dict]]:
    """Write the table of what is complete, if anything is, and return its means."""
    means = read_means(sweep, work_dir)
    if any(means.values()):
        write_variants(work_dir, sweep.title, means, sweep.seeds)
    return means


def run_sweep(
    sweep: Sweep, work_dir: Path, only: Sequence[str] | None = None, jobs: int = 1
) -> list[Result]:
    """Run what is left of a sweep and write its table.

    Args:
        sweep: What to run.
        work_dir: For configs, logs, table and the trials' work dirs.
        only: Names of variants to run; the table has all.
        jobs: Trials to run at once.

    Returns:
        One result per trial, failed ones included.

    Raises:
        InputError: If the sweep cannot be run; no trial was started then.
    """
    if jobs < 1:
        raise InputError(f'--jobs must be at least 1, got {jobs}.')
    trials = plan_trials(sweep, work_dir, only)
    work_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work_dir / '.lock', timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f'Another sweep is running in {work_dir}. Wait for it, or use another '
            '--work-dir.'
        ) from None
    try:
        write_configs(sweep.variants, work_dir)
        results = []
        with TrialRunner(jobs, _say) as runner:
            for result in runner.run(trials):
                results.append(result)
                write_table(sweep, work_dir)
    finally:
        lock.release()
    return results


def report(sweep: Sweep, work_dir: Path, results: Sequence[Result]) -> int:
    """Print the table and what failed; the exit code."""
    means = read_means(sweep, work_dir)
    if any(means.values()):
        print_variants(sweep.title, means, len(sweep.seeds))
        names = ', '.join(('table.md', 'table.csv', 'curves.png'))
        _say(f'{work_dir}: {names}')
    failed = [result for result in results if result.failure]
    if not failed:
        return 0
    _say(f'{len(failed)} of {len(results)} trials failed:')
    for result in failed:
        _say(f'  {result.trial.name}: {result.failure}, {result.trial.log}')
        for line in last_words(result.trial.log):
            _say(f'      {line}')
    _say('The same command runs them again, or what is left of them.')
    return 1


def last_words(log: Path) -> list[str]:
    """The error at the end of a log, or its last line."""
    if not log.exists():
        return []
    lines = log.read_text(encoding='utf-8', errors='replace')[-4000:].splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith('ERROR')]
    return lines[starts[-1] :] if starts else lines[-1:]


def _read_json(path: Path):
    return json.loads(path.read_text(encoding='utf-8'))


def _say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def _stops_like_ctrl_c() -> Iterator[None]:
    """Let the signals that end a session stop the trials as well."""
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        # nohup has the second one ignored, and it stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('sweep', type=Path, help='sweep file, see configs/sweeps')
    parser.add_argument(
        '--work-dir', type=Path, help='default: work_dirs/<name of the sweep file>'
    )
    parser.add_argument('--seeds', nargs='+', type=int, help="in place of the file's")
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='trials to run at once, default 1; all see the same GPUs',
    )
    parser.add_argument(
        '--only',
        nargs='+',
        metavar='NAME',
        help='run these trials of the file only; the table has all',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='check and list the trials, run none'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help="override settings of every trial, on top of the trial's own options",
    )
    args = parser.parse_args(argv)
    args.work_dir = args.work_dir or Path('work_dirs') / args.sweep.stem
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; 1 where the user has to mend something."""
    args = parse_args(argv)
    try:
        sweep = read_sweep(args.sweep, args.seeds, args.cfg_options)
        trials = plan_trials(sweep, args.work_dir, args.only)
        _say(
            f'{sweep.title}: {len(trials)} trials, seeds '
            f'{", ".join(map(str, sweep.seeds))}, in {args.work_dir}'
        )
        if args.dry_run:
            for variant in sweep.variants:
                config_text(variant)
            for i, trial in enumerate(trials, 1):
                _say(f'[{i}/{len(trials)}] {trial.name}: {trial.describe()}')
            return 0
        with _stops_like_ctrl_c():
            results = run_sweep(sweep, args.work_dir, args.only, args.jobs)
        return report(sweep, args.work_dir, results)
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Stopped. The same command continues.', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
