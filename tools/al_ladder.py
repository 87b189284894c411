"""Compare query strategies from one stage 0 per seed: the cheap way to choose a rule.

Every seed trains, evaluates and scores its first stage once; every rule then selects
from the same outputs, and a learner is trained on its picks. RULES is a text config
with ``rules``, names to configs of query strategies (see configs/ladders). The same
command continues where it stopped; seeds may be added, and rules of the file. The table
is of all that its rules have so far.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tjls_mm import compat  # noqa: F401  before anything of OpenMMLab


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add('config', help='config file of a trial; its query is not used')
    add('rules', help='config file with the rules')
    add('--only', nargs='+', metavar='RULE', help='run only these of the file now')
    seeds = 'default: 0 to 7, of which a verdict can come'
    add('--seeds', nargs='+', type=int, default=[*range(8)], help=seeds)
    add('--stages', type=int, default=2, help='of each trial, 2 is one step')
    add('--work-dir', help='default: work_dirs/<name of the config>_ladder')
    add('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    override = 'override settings, e.g. active_learning.budget=50'
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=override)
    # torch.distributed.launch passes it in place of the environment variable.
    add('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    # Deterministic matrix products on a GPU, where randomness.deterministic asks.
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

    from mmengine.registry import init_default_scope

    from tjls_mm.active.config_file import read_config
    from tjls_mm.active.ladder import ladder_work_dirs, read_rules, run_ladder
    from tjls_mm.active.launch import close_launcher, init_launcher
    from tjls_mm.errors import InputError, TrainingDiverged
    from tjls_mm.processes import on_main_process
    from tjls_mm.report import comparison

    name = Path(args.config).stem
    folder = Path(args.work_dir or f'work_dirs/{name}_ladder')

    def compare() -> None:
        if done := ladder_work_dirs(rules, folder):
            trials = comparison.read_trials(done)
            comparison.write_comparison(folder, f'Rules on {name}', trials)

    try:
        options = [*args.cfg_options, f'active_learning.stages={args.stages}']
        cfg = read_config(args.config, options)
        cfg.work_dir, cfg.launcher = str(folder), args.launcher
        init_launcher(args.launcher, cfg)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        rules = read_rules(args.rules)
        failures = run_ladder(
            cfg, rules, args.seeds, folder, args.only, lambda: on_main_process(compare)
        )
        if int(os.environ.get('RANK', 0)) == 0:
            if done := ladder_work_dirs(rules, folder):
                comparison.print_comparison(comparison.read_trials(done))
                print(f'Tables and pictures: {folder}')
            for failure in failures:
                print(f'ERROR: {failure}', file=sys.stderr)
        return 1 if failures else 0
    except (InputError, TrainingDiverged) as error:
        if int(os.environ.get('RANK', 0)) == 0 or not getattr(
            error, 'is_shared', False
        ):
            print(f'ERROR: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Stopped. The same command continues where it was.', file=sys.stderr)
        return 130
    finally:
        close_launcher()


if __name__ == '__main__':
    sys.exit(main())
