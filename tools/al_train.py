"""Run active learning: train, evaluate, gather, select, have it labelled, and again."""

import argparse
import os
import os.path as osp
import sys

from tjls_mm import compat  # noqa: F401  before anything of OpenMMLab


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file of the trial')
    add('--work-dir', help='default: work_dirs/<name of the config>')
    add('--seed', type=int, help='overrides randomness.seed')
    add('--redo-from', type=int, metavar='STAGE', help='redo stages from this one on')
    partial = 'take what people have labelled of a stage, and go on'
    add('--accept-partial', action='store_true', help=partial)
    dry = 'list what would stop the run, as al_doctor does, and train nothing'
    add('--dry-run', action='store_true', help=dry)
    add('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    override = 'override settings, e.g. active_learning.budget=50'
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=override)
    # torch.distributed.launch passes it in place of the environment variable.
    add('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> int:
    args = parse_args()
    # Deterministic matrix products on a GPU, where randomness.deterministic asks.
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

    from mmengine.registry import init_default_scope

    from tjls_mm.active.config_file import read_config
    from tjls_mm.active.launch import close_launcher, init_launcher
    from tjls_mm.active.trial import run_stages
    from tjls_mm.errors import InputError, TrainingDiverged

    try:
        cfg = read_config(args.config, args.cfg_options, args.seed)
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
        cfg.launcher = args.launcher
        if args.dry_run:
            return dry_run(cfg)
        init_launcher(args.launcher, cfg)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        run_stages(cfg, args.redo_from, accept_partial=args.accept_partial)
    except (InputError, TrainingDiverged) as error:
        rank = int(os.environ.get('RANK', 0))
        # What all processes ran into is said once.
        if rank == 0 or not getattr(error, 'is_shared', False):
            where = f' (process {rank})' if rank else ''
            print(f'ERROR{where}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = '' if args.redo_from is None else ' without --redo-from'
        stopped = f'Stopped. The same command{again} continues where it was, with the'
        print(stopped, 'same results.', file=sys.stderr)
        return 130
    finally:
        close_launcher()
    return 0


def dry_run(cfg) -> int:
    """Exit status: 1 if something would stop the run."""
    from mmengine.registry import init_default_scope

    from tjls_mm.active.doctor import run_doctor

    if int(os.environ.get('RANK', 0)):  # one process looks for all
        return 0
    cfg.launcher = 'none'
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return run_doctor(cfg)


if __name__ == '__main__':
    sys.exit(main())
