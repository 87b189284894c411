"""Selection by the labelled-versus-pool discriminator."""

import numpy as np
from scipy.special import expit

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.features import (
    REFERENCES,
    CandidateStrategy,
    centred,
    needs_of,
    read_output,
)
from tjls_mm.query.noise import gumbel_top_k, standardised
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.randomness import generator
from tjls_mm.registry import QUERIES

RULES = ('lowest', 'margin', 'uncertain')


def ranking(logit: np.ndarray, rule: str, margin: float) -> np.ndarray:
    """(N,) float64, smallest first, of (N,) logits; see ``Discriminator``."""
    # A margin is a difference: float32 would tie what is not equal.
    logit = logit.astype(np.float64)
    if rule == 'margin':
        return np.abs(expit(logit) - margin)
    return logit if rule == 'lowest' else np.abs(logit)


class _Rule:
    """The arguments that both strategies share."""

    def __init__(self, rule: str, margin: float, beta: float | None) -> None:
        if rule not in RULES:
            raise InputError(f'rule must be one of {RULES}, got {rule!r}')
        if not 0 < margin < 1:
            raise InputError(f'margin must be in (0, 1), got {margin}')
        if beta is not None and not beta >= 0:
            raise InputError(f'beta must be None or 0 and above, got {beta}')
        self.rule = rule
        self.margin = margin
        self.beta = beta


@QUERIES.register_module()
class Discriminator(_Rule, QueryStrategy):
    """Pick by P(labelled), which the discriminator gives each pool image.

    Args:
        rule: 'lowest': least like the labelled set first. 'margin': smallest
            |P - margin| first. 'uncertain': smallest |P - 0.5| first. All but
            'margin' rank by the logit, which has digits where P is near 0 or 1.
            Ties go by a seeded hash of the image_id.
        margin: Probability in (0, 1), of the rule 'margin'.
        beta: Draw in proportion to exp(-beta * z), z the standardised score of the
            rule; None takes the smallest.

    Raises:
        InputError: If an argument is none of that.

    Source: TJLS, Eq. 5 ('lowest'); the published code of TJLS, after UncertainGCN
    ('margin' with 0.1).
    """

    needs = Needs(pool=('logit',))

    def __init__(
        self, rule: str = 'lowest', margin: float = 0.1, beta: float | None = None
    ) -> None:
        super().__init__(rule, margin, beta)

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        # A draw orders everything: it cannot say which image's key is no number.
        logit = pool['logit'] if self.beta is None else read_output(pool, 'logit')
        columns = {'p_labelled': expit(logit.astype(np.float64))}
        key = ranking(logit, self.rule, self.margin)
        if self.beta is None:
            return Selection(pool.smallest(key, budget, seed), columns)
        rng = generator(seed, 'discriminator')
        rows, first = gumbel_top_k(-self.beta * standardised(key), budget, rng)
        return Selection(rows, {**columns, 'draw_probability': first})


def fit_logistic(
    design: np.ndarray,
    is_labelled: np.ndarray,
    weight: np.ndarray | None = None,
    ridge: float = 0.01,
) -> np.ndarray:
    """Newton's method on the balanced log loss.

    Args:
        design: (N, D), with a column of ones for the bias.
        is_labelled: (N,) bool, both sides not empty: each counts one half.
        weight: (D,) to start from.
        ridge: Of the squared weights, halved; the loss is a mean.

    Returns:
        (D,) float64.
    """
    target = is_labelled.astype(np.float64)
    share = np.where(is_labelled, 0.5 / target.sum(), 0.5 / (1 - target).sum())
    weight = np.zeros(design.shape[1]) if weight is None else weight

    def loss_of(logit, weight):
        losses = np.logaddexp(0, np.where(is_labelled, -logit, logit))
        return share @ losses + ridge / 2 * weight @ weight

    logit = design @ weight
    loss = loss_of(logit, weight)
    for _ in range(30):
        p = expit(logit)
        slope = design.T @ (share * (p - target)).astype(design.dtype) + ridge * weight
        bend = (design * (share * p * (1 - p)).astype(design.dtype)[:, None]).T @ design
        step = np.linalg.solve(bend + ridge * np.eye(len(weight)), slope)
        for _ in range(10):
            trial = weight - step
            logit = design @ trial
            if (better := loss_of(logit, trial)) <= loss:
                break
            step /= 2
        else:
            break
        weight, fall, loss = trial, loss - better, better
        if fall < 1e-6:
            break
    return weight


@QUERIES.register_module()
class DAL(_Rule, CandidateStrategy):
    """Sequential discriminator: picks join the labelled side before the next.

    A logistic head on fixed features is fitted anew in every round, so that one round
    does not fill the batch with the copies of one scene.

    Args:
        rule, margin, beta: As of ``Discriminator``.
        rounds: So many fits, of budget / rounds picks each.
        features: Name of an output, (N, D), e.g. of pretrained features.

    Source: Gissin & Shalev-Shwartz, Discriminative Active Learning, 2019 (a network
    there). Without labelled images the first round is random.
    """

    def __init__(
        self,
        rule: str = 'lowest',
        margin: float = 0.1,
        beta: float | None = None,
        rounds: int = 20,
        features: str = 'feature',
    ) -> None:
        super().__init__(rule, margin, beta)
        if rounds < 1:
            raise InputError(f'rounds must be 1 or more, got {rounds}')
        self.rounds = rounds
        self.features = features
        self.needs = needs_of([features], [features], 0)

    def pick(self, pool, labelled, budget, rng):
        x, known = _standardised(pool[self.features], labelled[self.features])
        free, picks = np.ones(len(x), bool), np.zeros(0, np.int64)
        weight, p_labelled = None, np.full(len(x), np.nan)
        for part in np.array_split(np.arange(budget), min(self.rounds, budget)):
            rows = np.flatnonzero(free)
            mine = np.concatenate([known, x[picks]])
            if len(mine):
                others = x[rows[:REFERENCES]]
                sides = np.repeat([True, False], [len(mine), len(others)])
                weight = fit_logistic(np.concatenate([mine, others]), sides, weight)
                logit = x[rows] @ weight
                p_labelled[rows] = expit(logit)
                key = ranking(logit, self.rule, self.margin)
            else:
                key = np.zeros(len(rows))
            if self.beta is None:
                chosen = np.argsort(key, kind='stable')[: len(part)]
            else:
                log_weight = -self.beta * standardised(key)
                chosen, _ = gumbel_top_k(log_weight, len(part), rng)
            picks = np.append(picks, rows[chosen])
            free[picks] = False
        return picks, {'p_labelled': p_labelled}


def _standardised(x: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by mean and deviation of x, with a column of ones."""
    x, labelled, _ = centred(x, labelled)
    deviation = x.std(0)
    scale = np.where(deviation > 0, deviation, 1)
    return tuple(np.insert(part / scale, 0, 1, axis=1) for part in (x, labelled))
