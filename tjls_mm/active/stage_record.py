"""``metrics.json`` of a stage, filled step by step."""

import json
from pathlib import Path

from mmengine.dist import is_main_process

from tjls_mm.errors import InputError
from tjls_mm.files import write_json

FILE = 'metrics.json'


class StageRecord:
    """Results of a stage on disk; written by process 0, read by all.

    Args:
        folder: Of the stage.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / FILE

    def read(self) -> dict:
        """What is recorded so far.

        Raises:
            InputError: If the file is not JSON.
        """
        if not self.path.exists():
            return {}
        try:
            return json.loads(self.path.read_text(encoding='utf-8'))
        except ValueError as error:
            raise InputError(
                f'{self.path} is not JSON ({error}). Restore it, or give up this '
                'stage and what follows with --redo-from.'
            ) from None

    def has(self, key: str) -> bool:
        """Whether a step has recorded its result."""
        return key in self.read()

    def update(self, **values) -> None:
        """Add or replace entries."""
        if is_main_process():
            write_json(self.path, {**self.read(), **values})

    def add_seconds(self, step: str, seconds: float) -> None:
        """Add to the wall time of a step."""
        before = self.read().get('seconds', {}).get(step, 0.0)
        self.set_seconds(step, before + seconds)

    def set_seconds(self, step: str, seconds: float) -> None:
        """Set the wall time of a step."""
        times = self.read().get('seconds', {})
        self.update(seconds={**times, step: round(seconds, 3)})
