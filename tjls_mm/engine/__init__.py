"""Hooks and the training loop of a stage."""

from .alternating_update_hook import AlternatingUpdateHook
from .context_bank_hook import ContextBankHook
from .pool_scoring_hook import PoolScoringHook
from .stage_checkpoint_hook import StageCheckpointHook
from .stage_train_loop import StageTrainLoop

__all__ = ['AlternatingUpdateHook', 'ContextBankHook', 'PoolScoringHook']
__all__ += ['StageCheckpointHook', 'StageTrainLoop']
