"""Draws without replacement in proportion to a power of a score."""

import numpy as np


def draw_probability(log_weight: np.ndarray) -> np.ndarray:
    """Of being drawn first, in proportion to the weight, (N,); of -inf 0.

    With every weight 0 all are as good as each other.
    """
    if np.isneginf(log_weight).all():
        return np.full(len(log_weight), 1 / len(log_weight))
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def log_power(score: np.ndarray, beta: float) -> np.ndarray:
    """Log of score^beta, -inf where the score is 0; 0 of all where beta is."""
    with np.errstate(divide='ignore'):
        return beta * np.log(np.asarray(score, np.float64)) if beta else 0 * score


def gumbel_top_k(
    log_weight: np.ndarray, budget: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw without replacement, each draw in proportion to the weights that are left.

    Args:
        log_weight: (N,), -inf for a weight of 0: drawn after all others, uniformly.
        budget: 1 to N.
        rng: Draws N numbers.

    Returns:
        (budget,) rows in drawn order, and (N,) the probability p of being the first
        draw. That of a later draw, given those before it, is p / (1 - their sum).

    Raises:
        ValueError: If the budget does not fit, or a weight is NaN or +inf.

    Source: Gumbel top-k (Vieira 2014; Kool et al. 2019).
    """
    log_weight = np.asarray(log_weight, np.float64)
    if not 1 <= budget <= len(log_weight):
        raise ValueError(f'budget must be 1 to {len(log_weight)}, got {budget}')
    if np.isnan(log_weight).any() or log_weight.max() == np.inf:
        raise ValueError('a log weight is NaN or +inf, expected a number or -inf')
    noise = rng.gumbel(size=len(log_weight))
    never = np.isneginf(log_weight)
    key = np.where(never, noise, noise + log_weight)
    return np.lexsort((-key, never))[:budget], draw_probability(log_weight)


def power_draw(
    score: np.ndarray, beta: float, budget: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw in proportion to score ** beta; see ``gumbel_top_k``.

    Args:
        score: (N,), 0 and above, higher is wanted more.
        beta: 0 is uniform, a large one takes the highest scores.
        budget: 1 to N.
        rng: Draws N numbers.

    Source: power acquisition (Kirsch et al., Stochastic Batch Acquisition, 2023).
    """
    if not np.min(score) >= 0:
        raise ValueError(f'a score is {np.min(score)}, expected 0 or above')
    return gumbel_top_k(log_power(score, beta), budget, rng)


def standardised(score: np.ndarray) -> np.ndarray:
    """(N,) z-scores: the log scores to draw by of a score without a zero of its own.

    Only ratios count in a draw: probabilities of 0.47 to 0.53 would be drawn almost
    uniformly, exp of their z-scores is not. Equal scores become 0.
    """
    score = np.asarray(score, np.float64)
    deviation = score.std()
    return (score - score.mean()) / (deviation if deviation > 0 else 1.0)
