"""Learners' features over the pool of a stage as pictures, one panel per trial.

Labels of pool images give points their colours and are counted in
``neighbour_agreement``. They are read after images are drawn, features gathered and
points placed, and reach none of these.

Source: TJLS, Fig. 3.
"""

import copy
import json
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
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models.joint_learner import find_joint_learner
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, MODELS, build_own

MIN_IMAGES = 4
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
