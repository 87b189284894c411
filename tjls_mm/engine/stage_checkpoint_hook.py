"""Checkpoints that survive a kill at any moment."""

import time
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop
from mmengine.runner.checkpoint import weights_to_cpu

from tjls_mm import __version__
from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path, write_text
from tjls_mm.processes import on_main_process
from tjls_mm.registry import HOOKS
from tjls_mm.stage_folder import StageFolder

PLAIN = (torch.Tensor, str, int, float, bool, type(None))


@HOOKS.register_module()
class StageCheckpointHook(Hook):
    """Save the state of training now and then, and the weights at its end.

    Files are written under a temporary name and renamed; the one before is removed
    after. They hold tensors and plain types only, for torch's safe loading. Other
    hooks put state of their own into them in ``before_save_checkpoint``.

    Args:
        interval: Save every so many iterations; None for by time only.
        interval_s: Save when so many seconds have passed since the last save.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int | None = None, interval_s: float = 300.0) -> None:
        self.interval, self.interval_s = interval, interval_s
        self._saved_at = time.monotonic()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Go on counting the seconds of training."""
        # Not runner.train_loop: under mmdet's test tool that would build the loop
        # and load the training set.
        loop = getattr(runner, '_train_loop', None)
        if isinstance(loop, BaseLoop):
            loop.train_seconds = checkpoint.get('meta', {}).get('train_seconds', 0.0)

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        done = batch_idx + 1
        due = self.interval and done % self.interval == 0
        due = due or time.monotonic() - self._saved_at >= self.interval_s
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        # Gradients half accumulated are in no checkpoint.
        if due and done % counts == 0 and done < runner.max_iters:
            if is_main_process():
                self._save_state(runner, done)
            self._saved_at = time.monotonic()

    def after_train_epoch(self, runner) -> None:
        """Save the weights; the states of training are no longer needed."""
        folder = StageFolder(runner.work_dir)
        on_main_process(_save, runner, folder.model, {})
        on_main_process(folder.remove_checkpoints)

    def _save_state(self, runner, done: int) -> None:
        folder = StageFolder(runner.work_dir)
        path = folder.checkpoint(done)
        schedulers = runner.param_schedulers or []
        _save(
            runner,
            path,
            {'iter': done, 'train_seconds': runner.train_loop.train_seconds},
            optimizer=_plain(runner.optim_wrapper.state_dict()),
            param_schedulers=[_plain(s.state_dict()) for s in schedulers],
            # MMEngine asks for it; its buffers do not load safely.
            message_hub={'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}},
        )
        write_text(folder.last_checkpoint, str(path))
        folder.remove_checkpoints(keep=path)


def _save(runner, path: Path, progress: dict, **state) -> None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    dataset = runner.train_dataloader.dataset
    meta = {
        'tjls_mm': __version__,
        'dataset_meta': _plain(getattr(dataset, 'metainfo', {})),
        'iter': runner.iter,
        'epoch': 0,
        'seed': runner.seed,
        **progress,
    }
    weights = dict(weights_to_cpu(model.state_dict()))
    content = {'meta': meta, 'state_dict': weights, **state}
    runner.call_hook('before_save_checkpoint', checkpoint=content)
    for key, value in content.items():
        found = _find_unsafe(value, key)
        if found:
            raise InputError(
                f'A custom hook puts {found} into checkpoints: expected tensors and '
                'plain types, which load without running code. Convert it in '
                'before_save_checkpoint, e.g. with torch.as_tensor or .tolist().'
            )
    # Into a file, not to a path, whose name torch would write into it: equal weights
    # make equal files.
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        torch.save(_plain(content), file)


def _find_unsafe(value, where: str) -> str | None:
    """What torch's safe loading would refuse, in words, or None."""
    if isinstance(value, PLAIN):
        return None
    if not isinstance(value, (dict, list, tuple)):
        return f'a {type(value).__module__}.{type(value).__name__} under {where!r}'
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = (_find_unsafe(item, f'{where}.{key}') for key, item in items)
    return next(filter(None, found), None)


def _plain(value):
    """Keep tensors and plain types; what a constructor makes again is left out."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        kept = (*PLAIN, dict, list, tuple)
        return {k: _plain(v) for k, v in value.items() if isinstance(v, kept)}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return value


def read_checkpoint(path: Path, advice: str) -> dict:
    """Load a checkpoint of ours safely, on the CPU, else InputError with ``advice``."""
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        content['meta'], content['state_dict']
    # torch.load raises whatever its zip reader, unpickler or the file system do, and
    # says more than fits here.
    except Exception as error:
        raise InputError(
            f'{path} is not a readable checkpoint ({type(error).__name__}): expected '
            f'weights and state as this project saves them. {advice}'
        ) from None
    return content
