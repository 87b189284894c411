"""How images make up iterations."""

from dataclasses import dataclass

from mmengine.config import Config

from tjls_mm.active.settings import Method
from tjls_mm.errors import InputError


@dataclass(frozen=True)
class Batches:
    """How images make up iterations.

    Attributes:
        labelled: Labelled images of a task iteration and process; the
            ``train_dataloader.batch_size`` of the stage's config.
        pool: Pool images of an iteration and process beside them.
        processes: That train together.
        turns: Iterations per task iteration.
        accumulative_counts: Iterations per optimiser step.
        share: Whether processes share the total that the config names.
        scale: Whether MMEngine scales the learning rate to the total.
    """

    labelled: int
    pool: int
    processes: int
    turns: int
    accumulative_counts: int
    share: bool
    scale: bool

    @property
    def per_process(self) -> int:
        """Images per iteration and process."""
        return self.labelled + self.pool

    @property
    def total(self) -> int:
        """Images per iteration, all processes together."""
        return self.per_process * self.processes

    @property
    def round_to(self) -> int:
        """Iterations of a whole update of everything."""
        return self.turns * self.accumulative_counts

    def iterations(self, epochs: float, n_labelled: int) -> int:
        """Iterations in which the task sees every labelled image so often."""
        return round(
            epochs * n_labelled / (self.labelled * self.processes) * self.turns
        )

    def describe(self) -> str:
        """One line for the log."""
        rate = 'scaled to it' if self.scale else 'as configured'
        kinds = f'{self.labelled * self.processes} labelled'
        if self.pool:
            kinds += f' and {self.pool * self.processes} pool'
        if self.processes == 1:
            return f'batch of {kinds} images, learning rate {rate}'
        if self.share:
            return (
                f'{self.processes} processes share the batch of {kinds} images: '
                f'{self.per_process} each, learning rate as configured'
            )
        return (
            f'{self.processes} processes with {self.per_process} images each make a '
            f'batch of {kinds}, learning rate {rate}'
        )


def plan_batches(
    cfg: Config, method: Method, uses_pool: bool, world_size: int
) -> Batches:
    """Split the batch over processes.

    ``train_dataloader.batch_size`` counts labelled images; a mixed batch holds as
    many of the pool beside them. ``auto_scale_lr.base_batch_size`` names the labelled
    images of an update of the whole experiment. With ``auto_scale_lr.enable`` every
    process takes ``batch_size`` and MMEngine scales the learning rate; otherwise the
    processes share the total. InputError if it cannot be split.
    """
    size = cfg.train_dataloader.get('batch_size', 1)
    scale = cfg.get('auto_scale_lr') or {}
    share = world_size > 1 and not scale.get('enable') and 'base_batch_size' in scale
    if share:
        total = scale['base_batch_size']
        if size not in (total, total // world_size):
            raise InputError(
                f'{world_size} processes share the {total} labelled images of '
                'auto_scale_lr.base_batch_size, but train_dataloader.batch_size is '
                f'{size}: set both to one number.'
            )
        if total % world_size:
            raise InputError(
                f'{world_size} processes cannot share a batch of {total} labelled '
                'images (auto_scale_lr.base_batch_size). Use a number of processes '
                'that divides it, or auto_scale_lr.enable=True to let every process '
                f'take {size} images and to scale the learning rate.'
            )
        size = total // world_size
    mixed = uses_pool and method.composition == 'mixed'
    turns = 2 if uses_pool and (not mixed or method.update == 'alternate') else 1
    return Batches(
        labelled=size,
        pool=size if mixed else 0,
        processes=world_size,
        turns=turns,
        accumulative_counts=cfg.optim_wrapper.get('accumulative_counts', 1),
        share=share,
        scale=_scales_rate(cfg, size * world_size),
    )


def _scales_rate(cfg: Config, total: int) -> bool:
    scale = cfg.get('auto_scale_lr') or {}
    if not scale.get('enable') or scale.get('base_batch_size') in (None, total):
        return False
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    if any('OneCycle' in s.type for s in schedulers):
        raise InputError(
            'auto_scale_lr.enable cannot scale OneCycleLR, whose eta_max is the '
            'rate itself: set eta_max for the larger batch and '
            f'auto_scale_lr.base_batch_size={total}.'
        )
    return True
