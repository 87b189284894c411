"""Score the whole pool once, at the end of a stage's training."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, barrier, get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch.utils.data import DataLoader

from tjls_mm.active.stage_record import StageRecord
from tjls_mm.errors import TrainingDiverged
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models.joint_learner import find_joint_learner
from tjls_mm.progress import progress
from tjls_mm.query.pool_outputs import SCORES_FILE, discriminator_report, write_scores
from tjls_mm.randomness import generator
from tjls_mm.registry import DATASETS, HOOKS

TRAINED_ON_FILE = 'pool_trained_on.txt'


class FixedShapeBatches:
    """Batches of one size for one of several processes.

    The last batch is filled up with its last image: a convolution may round
    otherwise in a batch of another shape.

    Args:
        n_images: Length of the data set.
        batch_size: Images per batch.
        rank: Of this process.
        world_size: Number of processes; each takes every so many-th batch.
    """

    def __init__(
        self, n_images: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.n_images = n_images
        self.batch_size = batch_size
        starts = range(0, n_images, batch_size)
        self.starts = starts[rank::world_size]

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            rows = range(start, start + self.batch_size)
            yield [min(row, self.n_images - 1) for row in rows]


@torch.no_grad()
def gather_outputs(
    model: torch.nn.Module,
    dataset,
    names: Sequence[str],
    batch_size: int,
    num_workers: int = 0,
    description: str = 'Scoring',
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Outputs of the learner for every image of a data set, on all processes.

    Args:
        model: Detector or classifier with ``data_preprocessor``,
            ``extract_feat`` and a joint learner inside. Its mode is left as it
            was.
        dataset: Images through the test pipeline; samples name their ``img_id``.
        names: Outputs to gather (see ``JointLearner.pool_outputs``).
        batch_size: Images per forward pass; every pass has exactly as many.
        num_workers: Of the data loader, per process.
        description: Shown before the progress bar.

    Returns:
        image_ids in the order of the data set, and one array per name whose
        rows belong to them.
    """
    rank, world_size = get_dist_info()
    batches = FixedShapeBatches(len(dataset), batch_size, rank, world_size)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )
    learner = find_joint_learner(model)
    was_training = model.training
    model.eval()
    outputs: dict[str, list] = {name: [] for name in names}
    for batch in progress(loader, description, len(batches)):
        data = model.data_preprocessor(batch, False)
        feats = model.extract_feat(data['inputs'])
        for name, value in learner.pool_outputs(feats, names).items():
            outputs[name].append(value)
    model.train(was_training)
    arrays = {
        name: torch.cat(parts).cpu().numpy() if parts else None
        for name, parts in outputs.items()
    }
    rows = [row for batch in batches for row in batch]
    gathered = all_gather_object((rows, arrays))
    image_ids = [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]
    merged = {}
    for name in names:
        parts = [(r, a[name]) for r, a in gathered if a[name] is not None]
        template = parts[0][1]
        merged[name] = np.empty((len(dataset), *template.shape[1:]), template.dtype)
        for part_rows, values in parts:
            merged[name][part_rows] = values
    return image_ids, merged


@HOOKS.register_module()
class PoolScoringHook(Hook):
    """Gather what the query strategy needs from the pool after training.

    Writes ``pool_scores.csv`` into the work dir and what the discriminator has
    learned into ``metrics.json``. Scores are computed outside autocast, whatever
    training used. Images are loaded as ``score_dataloader`` of the config
    says: ``dataset`` (the pool through the test pipeline without annotations),
    ``batch_size`` and ``num_workers``.

    Args:
        labelled_list: List file of the labelled images, for the AUC.
        outputs: Names that the query strategy needs; empty for no scoring.
        seed: Seed of the trial.
        stage: Stage of the trial.
        auc_images: Labelled images that the AUC is measured on, at most.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        labelled_list: str | None = None,
        outputs: Sequence[str] = (),
        seed: int = 0,
        stage: int = 0,
        auc_images: int = 1000,
    ) -> None:
        self.labelled_list = labelled_list
        self.outputs = tuple(outputs)
        self.seed = seed
        self.stage = stage
        self.auc_images = auc_images

    def after_train(self, runner) -> None:
        """Score the pool, unless it is done already."""
        scores_file = Path(runner.work_dir) / SCORES_FILE
        trained = getattr(runner.train_loop, 'trained', False)
        if not self.outputs or (trained and scores_file.exists()):
            return
        started = time.perf_counter()
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        score = runner.cfg.score_dataloader
        dataset_cfg = score.dataset
        loader = dict(
            batch_size=score.batch_size, num_workers=score.get('num_workers', 0)
        )
        pool = DATASETS.build(dataset_cfg)
        image_ids, outputs = gather_outputs(model, pool, self.outputs, **loader)
        self._check_finite(outputs, runner)
        labelled = DATASETS.build(
            {
                **dataset_cfg,
                'ann_file': self.labelled_list,
                'indices': self._auc_subset(),
            }
        )
        _, of_labelled = gather_outputs(
            model, labelled, self.outputs, **loader, description='Scoring labelled'
        )
        self._check_finite(of_labelled, runner)
        sampler = runner.train_dataloader.batch_sampler
        seen = sampler.pool_images_seen(sampler.batch_number(runner.max_iters - 1) + 1)
        if is_main_process():
            trained_on = sorted(image_ids[row] for row in seen)
            write_image_ids(scores_file.with_name(TRAINED_ON_FILE), trained_on)
            record = StageRecord(runner.work_dir)
            record.update(
                discriminator=discriminator_report(
                    of_labelled['logit'],
                    outputs['logit'],
                    np.isin(np.arange(len(image_ids)), sorted(seen)),
                )
            )
            record.add_seconds('score', time.perf_counter() - started)
            # Written last: it marks the step as done.
            write_scores(scores_file, image_ids, outputs['logit'])
        barrier()

    def _auc_subset(self) -> list[int] | None:
        """Positions in the list of labelled images, or None for all of them."""
        count = len(read_image_ids(self.labelled_list))
        if count <= self.auc_images:
            return None
        rng = generator(self.seed, self.stage, 'auc')
        return sorted(map(int, rng.choice(count, self.auc_images, replace=False)))

    def _check_finite(self, outputs: dict, runner) -> None:
        for name, values in outputs.items():
            bad = int((~np.isfinite(values)).sum())
            if bad:
                raise TrainingDiverged(
                    f'{bad} of {values.size} values of {name!r} over the images of '
                    f'stage {self.stage} are not finite after iteration '
                    f'{runner.iter}: nothing was selected. The weights of this '
                    'stage cannot be used: begin again in another --work-dir, with '
                    'a lower optim_wrapper.optimizer.lr.'
                )
