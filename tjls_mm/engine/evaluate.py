"""Evaluate the learner of a stage, inside its training's Runner or after it."""

import time

import numpy as np
from mmengine.runner import Runner

from tjls_mm.errors import InputError
from tjls_mm.stage_folder import StageFolder
from tjls_mm.stage_record import StageRecord

COCO_NUMBERS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


def _coco_names(metric) -> list[str]:
    numbers = metric.metric_items or COCO_NUMBERS
    return [f'{metric.prefix}/{kind}_{n}' for kind in metric.metrics for n in numbers]


def run_evaluation(runner: Runner) -> None:
    """Run the validation loop and record what it measured in the Runner's work dir."""
    started = time.perf_counter()
    found = {**runner.val_loop.run()}
    for metric in runner.val_loop.evaluator.metrics:
        if type(metric).__name__ == 'CocoMetric':
            # It gives nothing where the detector finds nothing.
            if not any(name.startswith(f'{metric.prefix}/') for name in found):
                found.update(dict.fromkeys(_coco_names(metric), 0.0))
    values = {k: np.asarray(v) for k, v in found.items()}
    is_number = {k: not v.ndim and v.dtype.kind in 'biuf' for k, v in values.items()}
    numbers = {k: float(v) for k, v in values.items() if is_number[k]}
    if not numbers:
        raise InputError(
            f'val_evaluator gives {sorted(found) or "nothing"}, and no number: add a '
            'metric that is one, e.g. accuracy or mAP, and run the same command again; '
            'the weights are kept.'
        )
    others = {k: v.tolist() for k, v in values.items() if not is_number[k]}
    record = StageRecord(StageFolder(runner.work_dir))
    record.add_seconds('evaluate', time.perf_counter() - started)
    record.update(**({'tables': others} if others else {}), metrics=numbers)
