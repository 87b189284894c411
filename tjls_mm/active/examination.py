"""What is found out about a trial before it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmengine.config import Config

from tjls_mm.datasets.image_source import ImageSource
from tjls_mm.errors import InputError, TrainingDiverged

if TYPE_CHECKING:
    from tjls_mm.active.plan import TrialPlan
    from tjls_mm.active.rehearsal import Rehearsal


@dataclass(frozen=True)
class Finding:
    """A sentence and its kind: 'problem' (would stop the trial), 'warning', 'fact'."""

    kind: str
    text: str


def problem(text: str) -> Finding:
    """What would stop the trial."""
    return Finding('problem', text)


def warning(text: str) -> Finding:
    """What would not stop it, and may spoil it."""
    return Finding('warning', text)


def fact(text: str) -> Finding:
    """What is good to know."""
    return Finding('fact', text)


@dataclass(frozen=True)
class StageSize:
    """How much a stage is: images, and iterations and updates of its training."""

    labelled: int
    pool: int
    budget: int
    iterations: int
    task_updates: int


@dataclass
class Examination:
    """A config, how closely to look at it, and what checks have found for later ones.

    Attributes:
        cfg: Of the trial, with ``work_dir`` and ``randomness.seed``.
        all_images: Decode all images, not a sample.
        n_seeds: Planned seeds of a comparison.
        deviation: Assumed deviation of the difference between paired seeds, in points.
    """

    cfg: Config
    all_images: bool = False
    n_seeds: int = 5
    deviation: float = 1.0
    source: ImageSource | None = None
    image_ids: list[str] = field(default_factory=list)
    test_ids: list[str] = field(default_factory=list)
    plan: TrialPlan | None = None
    stages: list[StageSize] = field(default_factory=list)
    rehearsal: Rehearsal | None = None
    seconds: float | None = None

    @property
    def seed(self) -> int:
        """Of the trial, 0 where the config has none."""
        return (self.cfg.get('randomness') or {}).get('seed') or 0


@dataclass(frozen=True)
class Check:
    """A check by name, and the names of those without which it can find nothing."""

    name: str
    run: Callable[[Examination], Iterator[Finding]]
    after: tuple[str, ...] = ()

    def find(self, examination: Examination) -> list[Finding]:
        """Everything it finds; what it raises is a problem too."""
        found: list[Finding] = []
        try:
            found.extend(self.run(examination))
        except (InputError, TrainingDiverged) as error:
            found.append(problem(str(error)))
        # Data sets, models and constructors raise whatever they like.
        except Exception as error:
            # A check may stumble over what it has just named.
            if not any(finding.kind == 'problem' for finding in found):
                found.append(problem(f'{type(error).__name__}: {error}'))
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Result:
    """What a check found, or which one had to pass first and did not."""

    name: str
    findings: list[Finding]
    skipped_for: str | None = None

    @property
    def passed(self) -> bool:
        """Whether others can build on it."""
        kinds = {finding.kind for finding in self.findings}
        return self.skipped_for is None and 'problem' not in kinds
