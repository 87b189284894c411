"""Evaluate the learner of a stage, inside its training's Runner or after it."""

import time

from mmengine.runner import Runner

from tjls_mm.stage_folder import StageFolder
from tjls_mm.stage_record import StageRecord


def run_evaluation(runner: Runner) -> None:
    """Run the validation loop and record what it measured.

    Args:
        runner: With the weights of the end of a stage; its work dir is the stage's.
    """
    started = time.perf_counter()
    metrics = runner.val_loop.run()
    record = StageRecord(StageFolder(runner.work_dir))
    record.add_seconds('evaluate', time.perf_counter() - started)
    record.update(metrics={name: float(value) for name, value in metrics.items()})
