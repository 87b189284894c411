"""List what would stop a trial later, in seconds and without training it.

Exit status 1 if something would, 0 otherwise. Nothing is written into the work dir, and
no annotation of the pool is opened.
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
    add('config', help='config file of the trial')
    add('--work-dir', help='default: work_dirs/<name of the config>')
    add('--seed', type=int, help='overrides randomness.seed')
    add('--all-images', action='store_true', help='decode all images, not a sample')
    planned = 'planned for each method, default: 5'
    add('--seeds', type=int, default=5, metavar='N', help=planned)
    assumed = 'of the difference between paired seeds, in points, default: 1'
    add('--deviation', type=float, default=1.0, metavar='POINTS', help=assumed)
    override = 'override settings, e.g. active_learning.budget=50'
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=override)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

    from mmengine.registry import init_default_scope

    from tjls_mm.active.config_file import read_config
    from tjls_mm.active.doctor import run_doctor
    from tjls_mm.errors import InputError

    try:
        cfg = read_config(args.config, args.cfg_options, args.seed)
        name = Path(args.config).stem
        cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
        cfg.launcher = 'none'
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        return run_doctor(
            cfg,
            all_images=args.all_images,
            n_seeds=args.seeds,
            deviation=args.deviation,
        )
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Stopped.', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
