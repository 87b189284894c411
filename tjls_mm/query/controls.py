"""Controls for detectors: a rule that does not beat them has found crowds."""

from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.box_scores import MAX_BOXES, MIN_SCORE, detections, expected_boxes
from tjls_mm.query.composition import Composition, draw_control
from tjls_mm.query.parts import QUERY_PARTS, Scores
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.registry import QUERIES, build_own


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class ExpectedBoxes:
    """Score of a detector's image: (offset + expected boxes)^power.

    Args:
        offset: Boxes that an image without any counts for.
        power: Above 0.
        min_score, max_boxes: Boxes that count, see ``detections``.
    """

    offset: float = 0.0
    power: float = 1.0
    min_score: float = MIN_SCORE
    max_boxes: int = MAX_BOXES

    needs = Needs(pool=('boxes',))

    def __call__(self, pool: Outputs, labelled: Outputs) -> Scores:
        boxes = detections(pool['boxes'], self.min_score, self.max_boxes)
        count = expected_boxes(boxes)
        return Scores((self.offset + count) ** self.power, boxes=count)


@QUERIES.register_module()
class ForegroundRandom(Composition):
    """Random, more often where there are objects.

    Drawn without replacement, proportional to sqrt(1 + expected boxes); the column
    ``draw_probability`` has each image's share.

    Args:
        min_score, max_boxes: Boxes that count, see ``detections``.

    Source: after the foreground-aware random sampling of nnActive (Lueth et al., 2025).
    """

    def __init__(self, min_score: float = MIN_SCORE, max_boxes: int = MAX_BOXES):
        part = dict(type='ExpectedBoxes', offset=1.0, power=0.5)
        super().__init__(
            {**part, 'min_score': min_score, 'max_boxes': max_boxes}, noise=1.0
        )


@QUERIES.register_module()
class BoxCount(Composition):
    """Most expected boxes (the sum of an image's scores) first.

    Args:
        min_score, max_boxes: Boxes that count, see ``detections``.
    """

    def __init__(self, min_score: float = MIN_SCORE, max_boxes: int = MAX_BOXES):
        part = dict(type='ExpectedBoxes', min_score=min_score, max_boxes=max_boxes)
        super().__init__(part)


@QUERIES.register_module()
class WithControl(QueryStrategy):
    """Any strategy, with a share of the budget drawn uniformly, first.

    The share is an unbiased sample of the pool, whatever the strategy does. The rest
    are the first picks of the strategy that are not in it. (A ``Composition`` has a
    control of its own, which its balance and diversity know of.)

    Args:
        query: Config of the strategy.
        control: [0, 1], share of the budget.
    """

    def __init__(self, query: dict, control: float = 0.1) -> None:
        if not 0 <= control <= 1:
            raise InputError(f'control must be in [0, 1], got {control}')
        self.query = build_own(QUERIES, query)
        self.control = control
        self.needs = self.query.needs

    def for_task(self, task: str, features: bool) -> 'WithControl':
        other = copy(self)
        other.query = self.query.for_task(task, features)
        other.needs = other.query.needs
        return other

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        answer = self.query.select(pool, labelled, budget, seed)
        if not isinstance(answer, Selection):
            answer = Selection(answer)
        drawn = draw_control(len(pool.image_ids), self.control, budget, seed)
        rows = np.asarray(answer.rows)
        others = rows[~np.isin(rows, drawn)][: budget - len(drawn)]
        is_control = np.isin(np.arange(len(pool.image_ids)), drawn)
        columns = {**answer.columns, 'control': is_control}
        return replace(answer, rows=np.append(drawn, others), columns=columns)
