"""Gather what a query strategy needs at the end of a stage."""

import time

import numpy as np

from tjls_mm.files import file_hash, write_json
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models.branch import find_joint_learner
from tjls_mm.outputs import Needs, Outputs, check_finite, gather_outputs
from tjls_mm.outputs.discriminator_report import discriminator_report
from tjls_mm.outputs.readers import find_reader
from tjls_mm.processes import on_main_process
from tjls_mm.randomness import generator
from tjls_mm.registry import DATASETS
from tjls_mm.stage_folder import StageFolder
from tjls_mm.stage_record import StageRecord

AUC_IMAGES = 1000
"""Labelled images at most that the discriminator is measured on for the record."""


def gather_stage(
    model, lists: StageFolder, folder: StageFolder, score, needs: Needs, seed: int
) -> None:
    """Gather the outputs of the pool and of labelled images, on all processes.

    Where the learner has a discriminator, what it has learned is recorded. Raises
    TrainingDiverged if an output is not finite.

    Args:
        model: Learner with the weights of the end of the stage.
        lists: The stage, whose lists of images are read.
        folder: Where outputs are written; another where a stage is trained again.
        score: ``score_dataloader`` of the stage's config: ``dataset`` (the pool through
            the test pipeline without annotations), ``batch_size``, ``num_workers``.
        needs: Of the query strategy.
        seed: Of stochastic passes and of the images the discriminator is measured on.
    """
    started = time.perf_counter()
    reader = find_reader(model)
    has_logit = reader is not None and 'logit' in reader.provides(model)

    def gather(part: str, list_file, names: tuple[str, ...]) -> Outputs:
        outputs = gather_outputs(
            model,
            DATASETS.build({**score.dataset, 'ann_file': str(list_file)}),
            folder.outputs_of(part),
            names,
            list_file=list_file,
            batch_size=score.batch_size,
            passes=needs.passes,
            num_workers=score.get('num_workers', 0),
            seed=seed,
            description=f'Scoring {part}',
        )
        on_main_process(check_finite, outputs, f'{part} images of {folder.path.name}')
        return outputs

    if needs.gathered:
        gather('labelled', lists.labelled, needs.gathered)
    names = list(needs.pool)
    if has_logit:
        on_main_process(_write_measured, lists, folder, seed)
        measured = gather('measured', folder.measured, ('logit',))
        names.append('logit')
    pool = gather('pool', lists.pool, tuple(dict.fromkeys(names)))

    def write() -> None:
        record = StageRecord(folder)
        if has_logit:
            held_out, seen = _held_out(lists), set(read_image_ids(folder.trained_on))
            is_held_out = np.array([i in held_out for i in measured.image_ids])
            logits, of_pool = (np.asarray(part['logit']) for part in (measured, pool))
            is_seen = np.array([i in seen for i in pool.image_ids])
            report = discriminator_report(
                logits[is_held_out], logits[~is_held_out], of_pool, is_seen
            )
            report['pull'] = find_joint_learner(model).sampler_pull
            record.update(discriminator=report)
        record.add_seconds('gather', time.perf_counter() - started)
        write_json(folder.outputs_index, {'pool': file_hash(lists.pool)})

    on_main_process(write)


def _held_out(lists: StageFolder) -> set[str]:
    return set(read_image_ids(lists.held_out)) if lists.held_out.exists() else set()


def _write_measured(lists: StageFolder, folder: StageFolder, seed: int) -> None:
    """List all held-out labelled images, and some of the others."""
    held_out = _held_out(lists)
    others = [i for i in read_image_ids(lists.labelled) if i not in held_out]
    if len(others) > AUC_IMAGES:
        rows = generator(seed, 'auc').choice(len(others), AUC_IMAGES, replace=False)
        others = [others[row] for row in rows]
    write_image_ids(folder.measured, sorted([*held_out, *others]))
