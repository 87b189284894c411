"""Gather what a query strategy needs at the end of a stage."""

import time

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process

from tjls_mm.files import file_hash, write_json
from tjls_mm.image_ids import read_image_ids
from tjls_mm.outputs import Needs, Outputs, check_finite, gather_outputs
from tjls_mm.outputs.discriminator_report import discriminator_report
from tjls_mm.outputs.readers import find_reader
from tjls_mm.randomness import generator
from tjls_mm.registry import DATASETS
from tjls_mm.stage_folder import StageFolder
from tjls_mm.stage_record import StageRecord

AUC_IMAGES = 1000
"""Labelled images at most that the discriminator is measured on for the record."""


def gather_stage(
    model: torch.nn.Module, folder: StageFolder, score, needs: Needs, seed: int
) -> None:
    """Gather the outputs of the pool and of labelled images, on all processes.

    Where the learner has a discriminator, what it has learned is recorded.

    Args:
        model: Learner with the weights of the end of the stage.
        folder: Of the stage; its lists are read, its outputs written.
        score: ``score_dataloader`` of the stage's config: ``dataset`` (the pool
            through the test pipeline without annotations), ``batch_size``,
            ``num_workers``.
        needs: Of the query strategy.
        seed: Decides stochastic passes and which labelled images the discriminator
            is measured on.

    Raises:
        TrainingDiverged: If an output is not finite.
    """
    started = time.perf_counter()
    has_logit = 'logit' in find_reader(model).provides(model)
    shared = dict(
        batch_size=score.batch_size,
        num_workers=score.get('num_workers', 0),
        seed=seed,
        passes=needs.passes,
    )

    def gather(part: str, list_file, names: tuple[str, ...]) -> Outputs:
        outputs = gather_outputs(
            model,
            DATASETS.build({**score.dataset, 'ann_file': str(list_file)}),
            folder.outputs_of(part),
            names,
            list_file=list_file,
            description=f'Scoring {part}',
            **shared,
        )
        check_finite(outputs, f'{part} images of {folder.path.name}')
        return outputs

    labelled = None
    names = _with_logit(needs.labelled, has_logit)
    if names:
        labelled = gather('labelled', folder.labelled, names)
    pool = gather('pool', folder.pool, _with_logit(needs.pool, has_logit))
    if is_main_process():
        record = StageRecord(folder)
        if has_logit:
            report = _measure_discriminator(folder, labelled, pool, seed)
            record.update(discriminator=report)
        record.add_seconds('gather', time.perf_counter() - started)
        write_json(
            folder.outputs_index,
            {
                'pool': file_hash(folder.pool),
                'names': {'pool': list(pool), 'labelled': list(labelled or [])},
                'passes': needs.passes,
            },
        )
    barrier()


def _with_logit(names: tuple[str, ...], has_logit: bool) -> tuple[str, ...]:
    return (*names, 'logit') if has_logit and 'logit' not in names else tuple(names)


def _measure_discriminator(
    folder: StageFolder, labelled: Outputs, pool: Outputs, seed: int
) -> dict:
    held_out = set(read_image_ids(folder.held_out)) if folder.held_out.exists() else ()
    is_held_out = np.array([i in held_out for i in labelled.image_ids])
    logits = np.asarray(labelled['logit'])
    trained = logits[~is_held_out]
    if len(trained) > AUC_IMAGES:
        rng = generator(seed, 'auc')
        trained = trained[rng.choice(len(trained), AUC_IMAGES, replace=False)]
    seen = set(read_image_ids(folder.trained_on))
    return discriminator_report(
        logits[is_held_out],
        trained,
        np.asarray(pool['logit']),
        np.array([i in seen for i in pool.image_ids]),
    )
