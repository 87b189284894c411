"""Put trials side by side: one table, one picture of their learning curves."""

import argparse
import sys
from pathlib import Path

from tjls_mm.active.comparison import mean_rows, print_comparison, read_trials
from tjls_mm.active.report import draw_curves
from tjls_mm.errors import InputError


def main() -> int:
    """Compare trials; 1 where the user has to mend something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', help='work dirs of trials')
    parser.add_argument('--out', default='work_dirs/compare.png', help='picture')
    args = parser.parse_args()
    try:
        means = mean_rows(read_trials(args.work_dirs))
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    print_comparison(means)
    draw_curves(Path(args.out), means)
    print(f'Learning curves: {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
