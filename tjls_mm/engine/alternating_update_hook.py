"""Whose turn an update is."""

from mmengine.hooks import Hook

from tjls_mm.models.branch import find_joint_learner
from tjls_mm.registry import HOOKS

TURNS = {'alternate': ('task', 'sampler'), 'joint': ('joint', 'joint')}


@HOOKS.register_module()
class AlternatingUpdateHook(Hook):
    """Tell a joint learner, if there is one, before every iteration whose update it is.

    Args:
        update: 'alternate', the task's and the sampler's update in turn, or
            'joint', one update on the weighted sum of both losses.

    Source: TJLS, Sec. 3: "we alternate the gradient between the sampler and the
    task branch for every batch"; Eq. 3 and 4 for the sum.
    """

    def __init__(self, update: str = 'joint') -> None:
        if update not in TURNS:
            raise ValueError(f"update must be 'alternate' or 'joint', got {update!r}")
        self.update = update
        self._learner = None

    def before_train(self, runner) -> None:
        self._learner = find_joint_learner(runner.model)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Set the turn, a function of the iteration alone."""
        if self._learner is not None:
            counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
            self._learner.turn = TURNS[self.update][batch_idx // counts % 2]
