"""The training loop of one stage: exact resume, evaluation as its own step."""

import time
from collections.abc import Iterator

import torch
from mmengine.dist import broadcast
from mmengine.hooks import EMAHook
from mmengine.runner import IterBasedTrainLoop

from tjls_mm.datasets import JointBatchSampler
from tjls_mm.engine.evaluate import run_evaluation
from tjls_mm.errors import InputError, TrainingDiverged
from tjls_mm.image_ids import write_image_ids
from tjls_mm.processes import on_main_process
from tjls_mm.progress import progress
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import LOOPS
from tjls_mm.stage_folder import StageFolder
from tjls_mm.stage_record import StageRecord


@LOOPS.register_module()
class StageTrainLoop(IterBasedTrainLoop):
    """Train for a number of iterations, evaluate once, then let hooks score.

    An iteration is a pure function of seed, stage, its number and the state in the
    checkpoint: the batch sampler starts anywhere without loading what came before, and
    torch is seeded every time. So a stopped run continues to the same weights.

    A batch that serves two updates (alternating updates) is loaded once. Where
    MMEngine's EMAHook averages weights, the average takes their place at the end of
    training: it is what is saved, evaluated and scored.

    Args:
        max_iters: Iterations of the stage.
        seed, stage: Of the trial.
        val_interval: Also evaluate every so many iterations, for curves only; None
            for the end only.
        bar: Show a progress bar; MMEngine's log has an ETA of its own.
        **kwargs: Of MMEngine's IterBasedTrainLoop.
    """

    def __init__(
        self,
        runner,
        dataloader,
        max_iters: int,
        seed: int = 0,
        stage: int = 0,
        val_interval: int | None = None,
        bar: bool = False,
        **kwargs,
    ) -> None:
        interval = val_interval or max_iters
        super().__init__(runner, dataloader, max_iters, val_interval=interval, **kwargs)
        # MMEngine 0.10.7 has started workers for it that would only idle.
        self.dataloader_iterator = None
        if not isinstance(self.dataloader.batch_sampler, JointBatchSampler):
            raise InputError(
                'StageTrainLoop needs train_dataloader.batch_sampler=dict(type='
                "'tjls_mm.JointBatchSampler'), found "
                f'{type(self.dataloader.batch_sampler).__name__}.'
            )
        self.seed, self.stage, self.bar = seed, stage, bar
        self.train_seconds = 0.0

    def run(self) -> torch.nn.Module:
        """Train, evaluate, and call the hooks that score the pool."""
        self.runner.call_hook('before_train')
        self._train()
        if self.runner.val_loop is not None:
            run_evaluation(self.runner)
        self.runner.call_hook('after_train')
        return self.runner.model

    def _train(self) -> None:
        started = time.perf_counter() - self.train_seconds
        self.runner.call_hook('before_train_epoch')
        batches = self._batches()
        left = range(self._iter, self._max_iters)
        for _ in progress(left, 'Training', len(left), self.bar):
            if self.stop_training:
                break
            self.runner.model.train()
            batch = next(batches)
            # After the batch: the first one begins a loader, which draws a number.
            torch.manual_seed(derive_seed(self.seed, self.stage, 'iter', self._iter))
            self.run_iter(batch)
            self.train_seconds = time.perf_counter() - started
            due = self._iter < self._max_iters and self._iter % self.val_interval == 0
            if due and self.runner.val_loop is not None:
                self._share_buffers()
                self.runner.val_loop.run()
        self._take_average()
        self._share_buffers()
        # Before the weights, which mark training as done.
        on_main_process(self._write_results)
        self.runner.call_hook('after_train_epoch')

    def _share_buffers(self) -> None:
        """Copy statistics of process 0 to all: what is evaluated is what is saved."""
        for buffer in self.runner.model.buffers():
            if buffer.numel():
                broadcast(buffer)

    def _take_average(self) -> None:
        """Put averaged weights in the place of the last ones, for good."""
        for hook in [h for h in self.runner.hooks if isinstance(h, EMAHook)]:
            hook.src_model.load_state_dict(hook.ema_model.module.state_dict())
            # It would exchange them again around the evaluation.
            self.runner.hooks.remove(hook)

    def _write_results(self) -> None:
        folder = StageFolder(self.runner.work_dir)
        StageRecord(folder).set_seconds('train', self.train_seconds)
        sampler, dataset = self.dataloader.batch_sampler, self.dataloader.dataset
        n_batches = sampler.batch_number(self._iter - 1) + 1 if self._iter else 0
        seen = sampler.pool_images_seen(n_batches)
        infos = (dataset.get_data_info(dataset.n_labelled + row) for row in seen)
        write_image_ids(folder.trained_on, sorted(info['image_id'] for info in infos))

    def _batches(self) -> Iterator[dict]:
        """Batches from the current iteration on, one per iteration."""
        sampler = self.dataloader.batch_sampler
        count, repeats = sampler.accumulative_counts, sampler.repeats
        block, skip = divmod(self._iter, count * repeats)
        sampler.start_at(block * count, unique=True)
        loader = iter(self.dataloader)
        while True:
            group: list[dict] = []
            for position in range(count * repeats):
                if position < count:
                    group.append(next(loader))
                if skip:
                    skip -= 1
                else:
                    yield group[position % count]

    def run_iter(self, data_batch: dict) -> None:
        """One iteration; TrainingDiverged if its loss is not finite."""
        runner, batch = self.runner, dict(batch_idx=self._iter, data_batch=data_batch)
        runner.call_hook('before_train_iter', **batch)
        outputs = runner.model.train_step(
            data_batch, optim_wrapper=runner.optim_wrapper
        )
        # MMEngine's log reads every loss on the host anyway.
        if not torch.isfinite(outputs['loss']):
            parts = {k: float(v.detach()) for k, v in outputs.items()}
            raise TrainingDiverged(
                f'The loss of stage {self.stage} is {parts.pop("loss")} at iteration '
                f'{self._iter + 1} of {self._max_iters} ({parts}). Nothing was saved '
                'after the last checkpoint. In another --work-dir, try a lower '
                f'{rate_setting(runner)} or optim_wrapper.clip_grad=dict(max_norm=10).'
            )
        runner.call_hook('after_train_iter', **batch, outputs=outputs)
        self._iter += 1


def rate_setting(runner) -> str:
    """The setting that decides about the learning rate of a run."""
    schedulers = runner.cfg.get('param_scheduler') or []
    for i, scheduler in enumerate(schedulers):
        if 'OneCycle' in scheduler.type:
            return f'param_scheduler.{i}.eta_max (OneCycleLR ignores optimizer.lr)'
    return 'optim_wrapper.optimizer.lr'
