"""Draw the features of learners over the pool of a stage, one panel per trial.

A panel is a t-SNE of what class layer and discriminator see of pool images. Classes
are coloured, and the images selected after the stage have crosses: the paper's Fig. 3.

    python tools/plot_features.py work_dirs/small_fashionmnist_random \
        work_dirs/small_fashionmnist_jls work_dirs/small_fashionmnist_tjls

Three quarters of --images are drawn from the whole pool, the same for all trials as
far as their pools agree; up to a quarter are selected images. The labels of pool images
are for the colours and for the printed share of neighbours of the same class only:
they are read after everything else. Run it where the trials were run: their data roots
may be relative.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tjls_mm import compat  # noqa: F401  before anything of OpenMMLab


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dirs', nargs='+', help='work dirs of classifiers')
    parser.add_argument('--stage', type=int, default=0, help='which stage to draw')
    parser.add_argument('--images', type=int, default=2000, help='per panel, at most')
    parser.add_argument('--seed', type=int, default=0, help='of subset and embedding')
    parser.add_argument(
        '--out',
        default='work_dirs/features.png',
        help='picture; coordinates are written beside it as .csv',
    )
    parser.add_argument(
        '--perplexity',
        type=float,
        default=30.0,
        help='of t-SNE; at most a third of the images, less one',
    )
    parser.add_argument(
        '--classes',
        type=int,
        help='colour the first so many classes, others are grey (default: all, or '
        '10 where there are more than 20)',
    )
    return parser.parse_args(argv)


def draw(args: argparse.Namespace) -> None:
    """Draw the picture and write the coordinates.

    Raises:
        InputError: If a trial cannot be drawn or an argument does not fit.
    """
    from tjls_mm.active import feature_report, features
    from tjls_mm.errors import InputError

    out = Path(args.out)
    if out.suffix != '.png':
        raise InputError(f'--out must end in .png, got {args.out}.')
    stages = [features.read_stage(folder, args.stage) for folder in args.work_dirs]
    features.check_comparable(stages)
    n_classes = len(stages[0].source.classes)
    n_coloured = feature_report.choose_classes(n_classes, args.classes)
    panels = []
    for stage in stages:
        panel = features.make_panel(stage, args.images, args.perplexity, args.seed)
        print(feature_report.panel_line(panel), flush=True)
        if panel.perplexity < args.perplexity:
            print(
                f'{stage.name}: perplexity {panel.perplexity:.3g} in place of '
                f'{args.perplexity:g}, there are {len(panel.image_ids)} images'
            )
        panels.append(panel)
    feature_report.write_coordinates(out.with_suffix('.csv'), panels)
    feature_report.draw_panels(out, panels, n_coloured)
    print(f'Features: {out}')


def main(argv: Sequence[str] | None = None) -> int:
    """Draw trials; 1 where the user has to mend something."""
    args = parse_args(argv)

    from tjls_mm.errors import InputError

    try:
        draw(args)
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
