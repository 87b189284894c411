"""Put trials side by side: means over seeds, differences to random, one picture.

Trials of one name (work dirs NAME_seed0, NAME_seed1) must be seeds of one config, and
all must share images, test images and, seed by seed, what is labelled at first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tjls_mm.errors import InputError
from tjls_mm.report import comparison


def main(argv: Sequence[str] | None = None) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument('work_dirs', nargs='+', help='work dirs of trials')
    parser.add_argument('--out', default='work_dirs/compare.png', help='picture')
    args = parser.parse_args(argv)
    try:
        trials = comparison.read_trials(args.work_dirs)
        comparison.print_comparison(trials)
        comparison.draw_means(Path(args.out), comparison.mean_rows(trials))
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    print(f'Learning curves: {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
