"""Score the whole pool once, at the end of a stage's training."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from tjls_mm.engine.gather_stage import gather_stage
from tjls_mm.outputs import Needs
from tjls_mm.registry import HOOKS
from tjls_mm.stage_folder import StageFolder


@HOOKS.register_module()
class PoolScoringHook(Hook):
    """Gather what the query strategy needs from the pool after training.

    The model in memory is scored, outside autocast; where a run was stopped before,
    the stage loop calls the same function on the saved weights.

    Args:
        lists: Folder of the stage, whose lists of images are read.
        needs: Fields of ``Needs``.
        seed: Of stochastic passes.
    """

    def __init__(self, lists: str, needs: dict, seed: int = 0) -> None:
        self.lists, self.needs, self.seed = StageFolder(lists), Needs(**needs), seed

    def after_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        folder = StageFolder(runner.work_dir)
        score = runner.cfg.score_dataloader
        gather_stage(model, self.lists, folder, score, self.needs, self.seed)
