"""Draw what learners make of the pool of a stage, one panel per trial.

A panel is a t-SNE of the learner's features of pool images, as in TJLS, Fig. 3. Colours
are the first 20 classes, of a detector an image's most frequent one; crosses, up to a
quarter of --images, are those that the stage selected. Trials share the others as far
as their pools agree. Coordinates are written beside it as CSV.

    python tools/plot_features.py work_dirs/demo_random work_dirs/demo_tjls
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tjls_mm import compat  # noqa: F401
from tjls_mm.engine.stage_checkpoint_hook import read_checkpoint
from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path, write_text
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.outputs import gather_outputs
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, MODELS, build_own
from tjls_mm.report.curves import csv_text
from tjls_mm.stage_folder import StageFolder, TrialFolder


def draw_subset(pool: list[str], selected: set, images: int, seed: int) -> list[str]:
    """Sorted ids of images to show."""
    order = partial(derive_seed, seed, 'features')  # by id: pools differ
    drawn = sorted(pool, key=order)[: images - images // 4]
    return sorted({*drawn, *sorted(selected, key=order)[: images // 4]})


def gather_features(cfg: Config, stage: StageFolder, ids: list[str]) -> np.ndarray:
    """Features of N images, of sorted ids, by the weights of a stage, (N, F)."""
    score, preprocessor = cfg.score_dataloader, cfg.get('data_preprocessor')
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
    with scope, tempfile.TemporaryDirectory() as folder:
        model = MODELS.build({'data_preprocessor': preprocessor, **cfg.model})
        model.load_state_dict(read_checkpoint(stage.model, 'Restore it.')['state_dict'])
        list_file = Path(folder) / 'shown.txt'
        write_image_ids(list_file, ids)
        shown = DATASETS.build({**score.dataset, 'ann_file': str(list_file)})
        where = model.to(get_device()), shown, Path(folder) / 'outputs', ['feature']
        options = dict(list_file=list_file, batch_size=score.batch_size)
        return np.array(gather_outputs(*where, **options)['feature'], float)


def find_class(source, image_id: str) -> str:
    """The most frequent class of an image."""
    try:
        counts = source.count_labels([image_id])
    except InputError:  # nobody has labelled it
        return ''
    counts = counts.get('boxes', counts['images'])
    return max(filter(counts.get, source.classes), key=counts.get, default='')


def make_panel(work_dir: str, args: argparse.Namespace) -> tuple[list[dict], tuple]:
    """Rows of the CSV file, one per image, and the classes of a trial."""
    stage = TrialFolder(work_dir).stage(args.stage)
    selected, pool = set(read_image_ids(stage.selected)), read_image_ids(stage.pool)
    ids = draw_subset(pool, selected, args.images, args.seed)
    if len(ids) < 4:
        raise InputError(f'{stage.path}: expected 4 images or more, got {len(ids)}.')
    cfg = Config.fromfile(stage.config)
    features = gather_features(cfg, stage, ids)
    # It looks at three times as many neighbours as its perplexity says.
    tsne = TSNE(perplexity=min(30, len(ids) / 3.1), init='pca', random_state=args.seed)
    # Sums of several threads come in any order; t-SNE makes much of a last bit.
    with threadpool_limits(1):
        points = tsne.fit_transform(features)
    source = build_own(IMAGE_SOURCES, cfg.data_source)
    rows = []
    for i, (x, y) in zip(ids, points, strict=True):
        facts = {'class': find_class(source, i), 'selected': int(i in selected)}
        rows.append({'trial': work_dir, 'image_id': i, 'x': x, 'y': y, **facts})
    print(f'{stage.path}: {len(ids)} of {len(pool)} images of the pool')
    return rows, source.classes


def draw_panels(path: Path, panels: dict[str, tuple[list[dict], tuple]]) -> None:
    figure = Figure(figsize=(5 * len(panels), 5.6), dpi=150, layout='constrained')
    classes = dict.fromkeys(c for _, cs in panels.values() for c in cs)
    palette = colormaps['tab10' if len(classes) <= 10 else 'tab20'].colors
    colours = dict(zip(classes, palette, strict=False))
    for i, (work_dir, (rows, _)) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), i, xticks=[], yticks=[])
        axes.set_title(Path(work_dir).resolve().name)
        x, y = np.array([(row['x'], row['y']) for row in rows]).T
        axes.scatter(x, y, s=9, c=[colours.get(row['class'], '0.8') for row in rows])
        at = np.array([row['selected'] for row in rows], bool)
        axes.scatter(x[at], y[at], s=13, c='k', marker='x', lw=0.7, label='selected')
    for name, colour in colours.items():
        axes.scatter([], [], color=colour, label=name)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc='outside lower center', ncols=6, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png')


def main(argv: Sequence[str] | None = None) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add('work_dirs', nargs='+', help='work dirs of trials of the same classes')
    add('--stage', type=int, default=0, help='one that selected images')
    add('--images', type=int, default=2000, help='per panel, at most')
    add('--seed', type=int, default=0, help='of subset and embedding')
    add('--out', type=Path, default=Path('work_dirs/features.png'), help='PNG file')
    args = parser.parse_args(argv)
    try:
        panels = {work_dir: make_panel(work_dir, args) for work_dir in args.work_dirs}
        table = [row for rows, _ in panels.values() for row in rows]
        write_text(args.out.with_suffix('.csv'), csv_text(table))
        draw_panels(args.out, panels)
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
