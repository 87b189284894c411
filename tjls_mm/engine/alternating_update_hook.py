"""Whose turn an update is."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from tjls_mm.models.branch import find_joint_learner
from tjls_mm.registry import HOOKS


@HOOKS.register_module()
class AlternatingUpdateHook(Hook):
    """Tell the learner before every iteration whose update it is.

    A model that is no joint learner is left alone.

    Args:
        update: 'alternate', the task's and the sampler's update in turn, or
            'joint', one update on the weighted sum of both losses.

    Source: TJLS, Sec. 3: "we alternate the gradient between the sampler and the
    task branch for every batch"; Eq. 3 and 4 for the sum.
    """

    def __init__(self, update: str = 'joint') -> None:
        if update not in ('alternate', 'joint'):
            raise ValueError(f"update must be 'alternate' or 'joint', got {update!r}")
        self.update = update
        self._learner = None

    def before_train(self, runner) -> None:
        """Find the learner."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._learner = find_joint_learner(model)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Set the turn, a function of the iteration alone."""
        if self._learner is None:
            return
        turn = 'joint'
        if self.update == 'alternate':
            counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
            turn = ('task', 'sampler')[(batch_idx // counts) % 2]
        self._learner.turn = turn
