"""The default strategy: a fixed rule for each task, and Random where nothing speaks."""

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Boxes, Outputs, blocks
from tjls_mm.query.box_scores import by_class, scored_detections
from tjls_mm.query.composition import Composition
from tjls_mm.query.controls import WithControl
from tjls_mm.query.parts import Scores
from tjls_mm.query.random import Random
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.registry import QUERIES, build_own

RULES = {
    'detection': dict(type='ClassBalanced', gamma=0.5),
    'classification': dict(type='UHerding'),
}
"""Of each task, what measured best (docs/results.md)."""

RULES_WITH_FEATURES = RULES
"""The same where the trial has pretrained features (``method.features``)."""

NOISE = 1e-6
"""Differences below this share of the largest number are rounding."""

_PLACES = ('feature', 'pretrained_feature', 'box_feature')
"""Outputs that say where an image lies, not whether it is wanted."""

_SCORES = ('uncertainty', 'weight')
"""Columns that say whether it is."""


@QUERIES.register_module()
class Auto(QueryStrategy):
    """A fixed rule for each task, see ``RULES``; Random where its score is flat.

    Flat is a score that is the same for all images: of a detector without detections,
    of a classifier that says one thing of everything. Picks are then exactly those of
    ``Random`` with the same seed, and the column ``fallback`` is 1 (else 0). The note
    of its selection names the rule that served.

    Args:
        task: 'detection' or 'classification'; None: that of the trial's images.
        features: Whether there are pretrained features; a trial knows.
        control: [0, 1], share of the budget that is drawn uniformly, first.

    Raises:
        InputError: If an argument is none of that.
    """

    def __init__(
        self, task: str | None = None, features: bool = False, control: float = 0.0
    ) -> None:
        if task is not None and task not in RULES:
            raise InputError(f'Auto: task must be one of {[*RULES]}, got {task!r}')
        if not 0 <= control <= 1:
            raise InputError(f'control must be in [0, 1], got {control}')
        self.task = task
        self.features = features
        self.control = control
        self.rule = None
        if task is not None:
            config = (RULES_WITH_FEATURES if features else RULES)[task]
            self.rule = _rule(config, control)
            self.needs = self.rule.needs

    def for_task(self, task: str, features: bool) -> 'Auto':
        return Auto(self.task or task, features or self.features, self.control)

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        if self.rule is None:
            raise InputError(
                f'Auto does not know its task: write task=..., one of {[*RULES]}.'
            )
        # Budgets that do not fit are refused whatever the images say.
        by_chance = Random().select(pool, labelled, budget, seed)
        name = type(getattr(self.rule, 'query', self.rule)).__name__
        answer = None
        if isinstance(self.rule, Composition):
            scores = self.rule.score(pool, labelled)
            if not _is_flat_score(scores):  # what was scored is not scored again
                answer = self.rule.pick(scores, pool, labelled, budget, seed)
        elif not is_flat(self.rule, pool, labelled):
            answer = self.rule.select(pool, labelled, budget, seed)
        if answer is None or _tells_nothing(answer):
            return self._fallback(by_chance, len(pool.image_ids), name)
        nothing = np.zeros(len(pool.image_ids), np.int64)
        columns = {**answer.columns, 'fallback': nothing}
        return Selection(answer.rows, columns, answer.note or name)

    def _fallback(self, rows: np.ndarray, n_images: int, name: str) -> Selection:
        columns = {'fallback': np.ones(n_images, np.int64)}
        if self.control:
            drawn = rows[: round(self.control * len(rows))]
            columns['control'] = np.isin(np.arange(n_images), drawn)
        return Selection(rows, columns, f'Random: {name} finds no image before another')


def _rule(config: dict, control: float) -> QueryStrategy:
    rule = build_own(QUERIES, config)
    if not control:
        return rule
    if isinstance(rule, Composition):  # whose balance counts the control
        return build_own(QUERIES, {**config, 'control': control})
    return WithControl(config, control)


def is_flat(rule: QueryStrategy, pool: Outputs, labelled: Outputs) -> bool:
    """Whether what a rule scores images by is the same for all of them."""
    if isinstance(rule, WithControl):
        rule = rule.query
    if isinstance(rule, Composition):
        return _is_flat_score(rule.score(pool, labelled))
    names = [name for name in rule.needs.pool if name not in _PLACES]
    return all(_is_same(pool[name]) for name in names or rule.needs.pool)


def _is_flat_score(scores: Scores) -> bool:
    return _is_same(scores.image if scores.by_class is None else scores.by_class)


def _tells_nothing(answer: Selection) -> bool:
    scores = [answer.columns[name] for name in _SCORES if name in answer.columns]
    return bool(scores) and all(_is_same(s[~np.isnan(s)]) for s in scores)


def _is_same(values: np.ndarray | Boxes) -> bool:
    """Whether (N, ...) numbers of images do not differ; if not finite, they do."""
    if isinstance(values, Boxes):
        classes, boxes = values.probability.shape[1], scored_detections(values)
        values = by_class(boxes, np.asarray(boxes.score, np.float64), classes)
    spread = largest = 0.0
    for _, block in blocks(values):
        block = np.asarray(block, np.float64)
        spread = np.maximum(spread, np.abs(block - values[:1]).max(initial=0))
        largest = np.maximum(largest, np.abs(block).max(initial=0))
    return bool(np.isfinite(largest) and spread <= NOISE * largest)
