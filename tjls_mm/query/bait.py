"""BAIT: the batch whose labels would tell most about the class layer."""

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.query.features import CandidateStrategy, needs_of, on_picks
from tjls_mm.registry import QUERIES

_EXACT_EVERY = 500
"""Picks between two exact evaluations, which take away what rounding added up."""

_COPY = 1e-4
"""Squared distance to a pick, as a share of the squared length, below which an image is
picked after all others: its label would be the same."""


def fisher_factor(probability: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(N, D) sqrt(p (1 - p)) f with p the top probability: one row of a Fisher matrix.

    Source: the binary reduction of BAIT (Rauch et al., dal-toolbox, 2023).
    """
    top = probability.max(1, keepdims=True, initial=0)
    return np.sqrt(np.clip(top * (1 - top), 0, None)) * features


def bait(
    x: np.ndarray, labelled: np.ndarray, budget: int, regularisation: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Pick so that trace(M^-1 F) falls most, twice as many as asked, and prune.

    F is the mean Fisher matrix of all images, M that of labelled images and picks plus
    a ridge, ``regularisation`` times the mean eigenvalue of F: whatever the features
    are measured in (the authors add 1, which suits features of one size only).

    Args:
        x: (N, D) and labelled: (M, D), of ``fisher_factor``.
        budget: 1 to N.

    Returns:
        (budget,) rows in the order of picks, and the fall of the trace by each.

    Source: Ash et al., Gone Fishing, NeurIPS 2021, Algorithm 1.
    """
    count = len(labelled) + budget
    size = max(np.abs(part).max(initial=0) for part in (x, labelled)) or 1.0
    x, labelled = (
        x / size,
        labelled / size,
    )  # squares stay finite, and no choice changes
    seen, unseen = (part.T @ part for part in (labelled, x))  # (D, D)
    fisher = (seen + unseen).astype(np.float64) / (len(x) + len(labelled))
    ridge = regularisation * (np.trace(fisher) / len(fisher) or 1.0)
    matrix = ridge * np.eye(len(fisher)) + seen / count
    x = np.asfortranarray(x * np.float32(count**-0.5))  # by columns: twice as fast
    picks, falls, copies = [], [], np.zeros(len(x), bool)
    for place in range(min(2 * budget, len(x))):
        if place % _EXACT_EVERY == 0:
            inverse = np.linalg.inv(matrix)
            through, own = _traces(x, inverse, fisher)
        fall = through.clip(min=0) / (1 + own)
        fall[copies], fall[picks] = -1, -np.inf
        pick = int(fall.argmax())
        if place >= budget and copies[pick]:
            break
        picks.append(pick)
        falls.append(fall[pick])
        row = x[pick].astype(np.float64)
        matrix += np.outer(row, row)
        v = inverse @ row  # (D,)
        along, across = _two_products(x, v, inverse @ (fisher @ v))
        # The squared distance to the pick, as M^-1 measures it.
        copies |= own + own[pick] - 2 * along < _COPY * own
        through, own = _updated(through, own, along, across, v, row, fisher, 1)
        inverse -= np.outer(v, v) / (1 + row @ v)
    kept = _pruned(x[picks], np.linalg.inv(matrix), fisher, budget)
    return np.array(picks)[kept], np.array(falls)[kept]


def _traces(x, inverse, fisher):
    """x^T M^-1 F M^-1 x and x^T M^-1 x of each row, (N,) float64."""
    matrices = (inverse @ fisher @ inverse, inverse)
    products = (x @ matrix.astype(x.dtype) for matrix in matrices)
    return [np.einsum('nd,nd->n', p, x).astype(np.float64) for p in products]


def _updated(through, own, along, across, v, row, fisher, sign):
    """``_traces`` after M + sign row row^T, by Sherman and Morrison.

    With v = M^-1 row: along = x v and across = x M^-1 F v, (N,).
    """
    scale = sign + row @ v
    through = through + along * (along * (v @ fisher @ v) / scale - 2 * across) / scale
    return through, own - along**2 / scale


def _two_products(x, first, second):
    """x @ first and x @ second, reading x from memory once."""
    answers = np.empty((2, len(x)))
    vectors = np.array([first, second], x.dtype)
    for start in range(0, len(x), 1000):
        block = slice(start, start + 1000)
        for answer, vector in zip(answers, vectors, strict=True):
            answer[block] = x[block] @ vector
    return answers


def _pruned(x, inverse, fisher, budget):
    """Rows (budget,) that are left without those that cost least to lose."""
    x, left = x.astype(np.float64), np.ones(len(x), bool)
    through, own = _traces(x, inverse, fisher)
    for _ in range(len(x) - budget):
        rise = through / np.maximum(1 - own, 1e-9)
        pick = np.where(left, rise, np.inf).argmin()
        left[pick] = False
        v = inverse @ x[pick]
        along, across = _two_products(x, v, inverse @ (fisher @ v))
        through, own = _updated(through, own, along, across, v, x[pick], fisher, -1)
        inverse = inverse - np.outer(v, v) / (x[pick] @ v - 1)
    return np.flatnonzero(left)


@QUERIES.register_module()
class BAIT(CandidateStrategy):
    """Images that tell most about the class layer, given what labels have told.

    Of classifiers; each image counts as a question of two answers, its likeliest class
    or another.

    Args:
        features: Name of the output that the class layer sees, (N, D).
        regularisation: Above 0, see ``bait``.
    """

    def __init__(self, features: str = 'feature', regularisation: float = 1.0) -> None:
        if not regularisation > 0:
            raise InputError(f'regularisation must be above 0, got {regularisation}')
        self.features = features
        self.regularisation = regularisation
        names = ['probability', features]
        self.needs = needs_of(names, names, 0)

    def pick(self, pool, labelled, budget, rng):
        x, known = (
            fisher_factor(part['probability'], part[self.features])
            for part in (pool, labelled)
        )
        picks, falls = bait(x, known, budget, self.regularisation)
        return picks, {'trace_fall': on_picks(falls, picks, len(x))}
