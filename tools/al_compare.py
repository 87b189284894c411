"""Put trials side by side: verdicts on rules against Random, tables, pictures.

Trials of one name (work dirs NAME_seed0, NAME_seed1) must be seeds of one config, and
all must share images, test images and, seed by seed, what is labelled at first. How to
read the table: docs/comparing.md.
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
    add = parser.add_argument
    add('work_dirs', nargs='+', help='work dirs of trials')
    add(
        '--out',
        type=Path,
        default='work_dirs/compare',
        help='folder of table.md, table.csv, rules.csv, curves.png and wins.png, or '
        'NAME.png for the curves only (default: %(default)s)',
    )
    add('--control', metavar='NAME', help='default: the one name that says random')
    add(
        '--margin',
        type=float,
        default=comparison.MARGIN,
        help='points of mAP or accuracy, of 100, that a rule may lose and still be '
        '"not meaningfully worse" (default: %(default)s)',
    )
    args = parser.parse_args(argv)
    options = dict(control=args.control, margin=args.margin)
    try:
        trials = comparison.read_trials(args.work_dirs)
        comparison.print_comparison(trials, **options)
        if args.out.suffix == '.png':
            found = comparison.Comparison(trials, given_control=args.control)
            comparison.draw_means(args.out, found)
            print(f'Learning curves: {args.out}')
            return 0
        title = 'Comparison of trials'
        written = comparison.write_comparison(args.out, title, trials, **options)
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    print(f'{args.out}: {", ".join(written)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
