"""Fill the context bank before whoever needs it."""

from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch.utils.data import DataLoader

from tjls_mm.models.batch_bottleneck import (
    batch_bottlenecks,
    clear_context_banks,
    fill_context_banks,
)
from tjls_mm.registry import DATASETS, HOOKS


@HOOKS.register_module()
class ContextBankHook(Hook):
    """Refresh the context bank at the end of training and before evaluations.

    It comes before the hook that writes checkpoints, which then hold the bank of their
    weights, and after MMEngine's EMAHook, which exchanges weights for their average.
    Models without a bank are left alone. Images are loaded as ``score_dataloader``
    says: through the test pipeline without annotations.

    Args:
        list_file: Reference images: half of a batch labelled, then pool images.
    """

    priority = 'LOW'

    def __init__(self, list_file: str) -> None:
        self.list_file = list_file
        self._filled_at: int | None = None

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Forget the bank where training goes on."""
        if runner.iter < runner.max_iters:
            clear_context_banks(runner.model)
            self._filled_at = None

    def before_val_epoch(self, runner) -> None:
        if self._filled_at == runner.iter:
            return
        self._filled_at = runner.iter
        if not batch_bottlenecks(runner.model):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        score = runner.cfg.score_dataloader
        loader = DataLoader(
            DATASETS.build({**score.dataset, 'ann_file': self.list_file}),
            batch_size=score.batch_size,
            collate_fn=pseudo_collate,
        )
        fill_context_banks(model, loader)

    after_train_epoch = before_val_epoch  # before the weights are saved
