"""``metrics.json`` of a stage, filled step by step."""

import json

from mmengine.dist import is_main_process

from tjls_mm.errors import InputError
from tjls_mm.files import write_json
from tjls_mm.stage_folder import StageFolder


class StageRecord:
    """Results of a stage on disk; written by process 0."""

    def __init__(self, folder: StageFolder) -> None:
        self.path = folder.metrics

    def read(self) -> dict:
        """What is recorded so far; InputError if that is not a JSON object."""
        if not self.path.exists():
            return {}
        try:
            content = json.loads(self.path.read_text(encoding='utf-8'))
            if not isinstance(content, dict):
                raise ValueError(f'it holds a {type(content).__name__}')
            return content
        except ValueError as error:
            raise InputError(
                f'{self.path} is not a JSON object ({error}): expected the results of '
                'a stage. Remove it: the same command makes it again.'
            ) from None

    def has(self, key: str) -> bool:
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
