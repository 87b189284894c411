"""Learners' features over the pool of a stage as pictures, one panel per trial.

Labels of pool images give points their colours and are counted in
``neighbour_agreement``. They are read after images are drawn, features gathered and
points placed, and reach none of these.

Source: TJLS, Fig. 3.
"""

import copy
import csv
import io
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from tjls_mm.active.manifest import Manifest
from tjls_mm.active.report import primary_metric
from tjls_mm.active.stage_record import StageRecord
from tjls_mm.active.stages import SELECTED_FILE
from tjls_mm.engine.pool_scoring_hook import gather_outputs
from tjls_mm.engine.stage_checkpoint_hook import MODEL_FILE, read_checkpoint
from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path, write_text
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models.joint_learner import find_joint_learner
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, MODELS, build_own

COLUMNS = ['trial', 'image_id', 'x', 'y', 'class', 'selected']
MIN_IMAGES = 4
MAX_COLOURS = 20
NEIGHBOURS = 10


@dataclass(frozen=True)
class TrialStage:
    """A complete stage of a classification trial, read from its work dir.

    Attributes:
        name: Of the trial.
        folder: Of the stage.
        cfg: Config of the stage.
        source: Image source of the trial.
        n_labelled: Labelled images.
        metric: Name and value of the metric that curves show.
        pool: image_ids of the pool.
        selected: image_ids selected after the stage.
    """

    name: str
    folder: Path
    cfg: Config
    source: object
    n_labelled: int
    metric: tuple[str, float]
    pool: list[str]
    selected: list[str]


@dataclass(frozen=True)
class Panel:
    """What is drawn of a stage: N images as points.

    Attributes:
        stage: Which stage of which trial.
        image_ids: N ids, the randomly drawn ones first.
        n_drawn: How many were drawn whether selected or not.
        points: Places in the picture, (N, 2), without a unit.
        is_selected: Whether an image was selected, (N,), bool.
        perplexity: That t-SNE ran with.
        labels: Classes, (N,), int, in [0, K).
        agreement: Of ``neighbour_agreement``, (N,).
    """

    stage: TrialStage
    image_ids: list[str]
    n_drawn: int
    points: np.ndarray
    is_selected: np.ndarray
    perplexity: float
    labels: np.ndarray
    agreement: np.ndarray


def read_stage(work_dir: str | Path, number: int) -> TrialStage:
    """Read a stage that selected images.

    Args:
        work_dir: Of the trial.
        number: Of the stage.

    Raises:
        InputError: If there is no such stage, it is not complete or selected
            nothing, or its task is not classification.
    """
    manifest = Manifest(Path(work_dir))
    try:
        manifest.content = json.loads(manifest.path.read_text(encoding='utf-8'))
        n_complete = manifest.n_complete
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f'{manifest.path} does not exist: expected the work dir of a trial.'
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{manifest.path} cannot be read ({error!r}): expected the state of a '
            'trial.'
        ) from None
    if not 0 <= number < n_complete:
        raise InputError(
            f'{work_dir}: stage {number} is not complete, {n_complete} stages from '
            'stage 0 on are. Let the trial finish it, or name another with --stage.'
        )
    folder = manifest.stage_folder(number)
    if not (folder / SELECTED_FILE).exists():
        raise InputError(
            f'{folder} has no {SELECTED_FILE}: the last stage of a trial selects '
            'nothing. Name an earlier one with --stage.'
        )
    cfg = Config.fromfile(folder / 'config.py')
    source = build_own(IMAGE_SOURCES, cfg.data_source)
    if not hasattr(source, 'label'):
        raise InputError(
            f'{work_dir}: {cfg.data_source.type} gives an image no class to colour '
            'it by. Expected a trial of a classifier.'
        )
    record = StageRecord(folder).read()
    return TrialStage(
        name=Path(work_dir).resolve().name,
        folder=folder,
        cfg=cfg,
        source=source,
        n_labelled=record['n_labelled'],
        metric=primary_metric(record['metrics']),
        pool=read_image_ids(folder / 'pool.txt'),
        selected=read_image_ids(folder / SELECTED_FILE),
    )


def check_comparable(stages: Sequence[TrialStage]) -> None:
    """Refuse trials that cannot share a legend.

    Raises:
        InputError: If two have one name, or their classes differ.
    """
    names = [stage.name for stage in stages]
    for stage in stages:
        if names.count(stage.name) > 1:
            raise InputError(
                f'{stage.folder.parent}: two trials are called {stage.name}. Name '
                'each work dir once.'
            )
        if tuple(stage.source.classes) != tuple(stages[0].source.classes):
            raise InputError(
                f'{stage.folder.parent} has other classes than '
                f'{stages[0].folder.parent}: one legend must do for all panels. Draw '
                'them apart.'
            )


def draw_subsample(
    pool: Sequence[str], selected: Sequence[str], images: int, seed: int
) -> tuple[list[str], list[str]]:
    """Which images of a pool to show.

    Three quarters are drawn from the whole pool, selected or not: the same for all
    trials as far as their pools agree. Up to a quarter are selected images, all of
    them where they are no more; beside the others they are shown more often than
    they occur.

    Args:
        pool: image_ids, in any order.
        selected: Those of them that were selected.
        images: To show, at most.
        seed: Of the drawing.

    Returns:
        The ids drawn from the pool, and the shown selected ones that are not
        among them.

    Raises:
        InputError: If that leaves too few images for a picture.
    """
    if min(images, len(pool)) < MIN_IMAGES:
        raise InputError(
            f'Asked to show {images} of a pool of {len(pool)} images: expected at '
            f'least {MIN_IMAGES} of both. Raise --images, or name another --stage.'
        )

    # By a hash of the id, not by position: pools differ by what was selected.
    def order(image_id: str) -> tuple[int, str]:
        return derive_seed(seed, 'features', image_id), image_id

    drawn = sorted(pool, key=order)[: images - images // 4]
    shown = sorted(selected, key=order)[: images // 4]
    return drawn, sorted(set(shown) - set(drawn), key=order)


def gather_features(stage: TrialStage, image_ids: Sequence[str]) -> np.ndarray:
    """What class layer and discriminator see of images, in eval mode.

    Args:
        stage: Whose weights and context bank are used.
        image_ids: N images, read through the pipeline that scores the pool.

    Returns:
        (N, F), float32, not normalised.

    Raises:
        InputError: If the weights cannot be read or the model is of another kind.
    """
    cfg = stage.cfg
    checkpoint = read_checkpoint(
        stage.folder / MODEL_FILE,
        'It holds the weights whose features are drawn: restore it.',
    )
    model_cfg = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    with (
        DefaultScope.overwrite_default_scope(cfg.get('default_scope')),
        tempfile.TemporaryDirectory() as folder,
    ):
        model = MODELS.build(model_cfg)
        if find_joint_learner(model) is None:
            raise InputError(
                f'{stage.folder / "config.py"}: the model says nothing of its '
                'features. Expected model.head.type=tjls_mm.JointClsHead.'
            )
        model.load_state_dict(checkpoint['state_dict'])
        list_file = Path(folder) / 'shown.txt'
        write_image_ids(list_file, image_ids)
        score = cfg.score_dataloader
        dataset = DATASETS.build({**score.dataset, 'ann_file': str(list_file)})
        _, outputs = gather_outputs(
            model.to(get_device()),
            dataset,
            ['feature'],
            batch_size=score.batch_size,
            num_workers=score.get('num_workers', 0),
            description=f'Features of {stage.name}',
        )
    return outputs['feature']


def fit_perplexity(perplexity: float, n_images: int) -> float:
    """The perplexity, or (N - 1) / 3 where N images are too few for it.

    t-SNE looks at three times as many neighbours of an image as its perplexity
    says.

    Raises:
        InputError: If the perplexity is not above 0.
    """
    if not perplexity > 0:
        raise InputError(f'--perplexity must be above 0, got {perplexity}.')
    return min(perplexity, (n_images - 1) / 3)


def embed(features: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Place images so that those of similar features lie together.

    Args:
        features: (N, F).
        perplexity: Neighbours that an image is kept close to, about; below N.
        seed: Of the embedding.

    Returns:
        (N, 2), float32; only distances between near points mean something.
    """
    tsne = TSNE(2, perplexity=perplexity, init='pca', random_state=seed)
    # Sums of several threads come in any order, and t-SNE makes much of a last bit.
    with threadpool_limits(1):
        return tsne.fit_transform(features.astype(np.float64))


def neighbour_agreement(
    features: np.ndarray, labels: np.ndarray, n_drawn: int
) -> np.ndarray:
    """How many of an image's nearest neighbours are of its class.

    Neighbours are looked for among the drawn images: which images were selected
    must not decide about them.

    Args:
        features: (N, F), the drawn images first.
        labels: Classes, (N,).
        n_drawn: How many were drawn.

    Returns:
        (N,), in [0, 1], by Euclidean distance of the features. Neighbours are
        ``NEIGHBOURS``, or all other drawn images where there are fewer.
    """
    k = min(NEIGHBOURS, n_drawn - 1)
    with threadpool_limits(1):
        search = NearestNeighbors(n_neighbors=k + 1)
        search.fit(features[:n_drawn].astype(np.float64))
        rows = search.kneighbors(features.astype(np.float64), return_distance=False)
    # One too many was asked for: an image is its own neighbour if it was drawn.
    left_out = rows == np.arange(len(features))[:, None]
    left_out[~left_out.any(1), -1] = True
    same = labels[rows] == labels[:, None]
    return (same & ~left_out).sum(1) / k


def make_panel(stage: TrialStage, images: int, perplexity: float, seed: int) -> Panel:
    """Draw images, gather their features, place them, and look up their classes.

    Args:
        stage: Whose pool and learner to show.
        images: To show, at most.
        perplexity: Of t-SNE, lowered where it does not fit.
        seed: Of drawing and embedding.

    Raises:
        InputError: If something does not fit.
    """
    drawn, others = draw_subsample(stage.pool, stage.selected, images, seed)
    image_ids = drawn + others
    perplexity = fit_perplexity(perplexity, len(image_ids))
    features = gather_features(stage, image_ids)
    points = embed(features, perplexity, seed)
    labels = np.array([stage.source.label(image_id) for image_id in image_ids])
    return Panel(
        stage=stage,
        image_ids=image_ids,
        n_drawn=len(drawn),
        points=points,
        is_selected=np.isin(image_ids, stage.selected),
        perplexity=perplexity,
        labels=labels,
        agreement=neighbour_agreement(features, labels, len(drawn)),
    )


def panel_title(panel: Panel) -> str:
    """Labelled images and metric of a panel in words."""
    name, value = panel.stage.metric
    return f'{panel.stage.n_labelled:,} labelled, {name} {value:.4g}'


def panel_counts(panel: Panel) -> str:
    """How many images of how many a panel shows."""
    n_selected = int(panel.is_selected.sum())
    others = len(panel.image_ids) - n_selected
    selected = len(panel.stage.selected)
    return (
        f'shown: {n_selected:,} of {selected:,} selected, '
        f'{others:,} of {len(panel.stage.pool) - selected:,} other pool images'
    )


def panel_line(panel: Panel) -> str:
    """The summary line of a panel."""
    k = min(NEIGHBOURS, panel.n_drawn - 1)
    parts = [
        panel.stage.name,
        panel_title(panel),
        panel_counts(panel),
        f'of the {k} nearest in feature space '
        f'{panel.agreement[: panel.n_drawn].mean():.1%} have the same class',
    ]
    if panel.is_selected.any():
        parts[-1] += (
            f', around selected images {panel.agreement[panel.is_selected].mean():.1%}'
        )
    return ' | '.join(parts)


def write_coordinates(path: Path, panels: Sequence[Panel]) -> None:
    """Write ``trial,image_id,x,y,class,selected``, a row per point.

    Args:
        path: Of the CSV file, replaced atomically.
        panels: In order.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    for panel in panels:
        classes = panel.stage.source.classes
        rows = zip(
            panel.image_ids, panel.points, panel.labels, panel.is_selected, strict=True
        )
        for image_id, (x, y), label, is_selected in rows:
            place = f'{x:.6g}', f'{y:.6g}'
            writer.writerow(
                [panel.stage.name, image_id, *place, classes[label], int(is_selected)]
            )
    write_text(path, text.getvalue())


def choose_classes(n_classes: int, asked: int | None) -> int:
    """How many classes get a colour: the first ones.

    Args:
        n_classes: ``K``.
        asked: By the user, or None: all where they are few enough to tell apart,
            otherwise 10 as in the paper's figure.

    Raises:
        InputError: If there are not that many colours.
    """
    if asked is None:
        return n_classes if n_classes <= MAX_COLOURS else 10
    if not 1 <= asked <= MAX_COLOURS:
        raise InputError(f'--classes must be 1 to {MAX_COLOURS}, got {asked}.')
    return min(asked, n_classes)


def draw_panels(path: Path, panels: Sequence[Panel], n_coloured: int) -> None:
    """Draw the panels beside each other with one legend.

    Args:
        path: Of the PNG file, replaced atomically.
        panels: In order, at least one; of the same classes.
        n_coloured: Classes with a colour, the first ones; others are grey.
    """
    # pyplot would need a display and keep the figure alive.
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = 5.0 * columns
    figure = Figure(figsize=(width, 5.2 * rows + 0.5), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    classes = panels[0].stage.source.classes
    colours = [*colormaps['tab10' if n_coloured <= 10 else 'tab20'].colors[:n_coloured]]
    names = list(classes[:n_coloured])
    if n_coloured < len(classes):
        colours.append((0.8, 0.8, 0.8))
        names.append(f'{len(classes) - n_coloured} other classes')
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        _draw_points(axes, panel, colours, n_coloured)
    handles = [
        Line2D([], [], linestyle='', marker='o', color=colour, label=name)
        for name, colour in zip(names, colours, strict=True)
    ]
    cross = dict(linestyle='', marker='x', color='black')
    handles.append(Line2D([], [], **cross, label='selected after this stage'))
    # In inches, for the font size below.
    widest = 0.5 + 0.075 * max(len(handle.get_label()) for handle in handles)
    figure.legend(
        handles=handles,
        loc='outside lower center',
        ncols=max(1, min(len(handles), int(width / widest))),
        fontsize=9,
        frameon=False,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png')


def _draw_points(axes, panel: Panel, colours: Sequence[tuple], n_coloured: int) -> None:
    # Classes without a colour of their own share the last one, below the rest.
    shown = np.minimum(panel.labels, n_coloured)
    order = np.argsort(shown < n_coloured, kind='stable')
    size = np.where(panel.is_selected, 22, 9)
    axes.scatter(
        *panel.points[order].T,
        s=size[order],
        c=np.array(colours)[shown[order]],
        linewidths=0,
    )
    crosses = panel.points[panel.is_selected].T
    axes.scatter(*crosses, s=13, c='black', marker='x', linewidths=0.7)
    axes.set_title(f'{panel.stage.name}\n{panel_title(panel)}', fontsize=10)
    axes.set_xlabel(panel_counts(panel), fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
