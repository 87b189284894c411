"""What the discriminator has learned."""

import math

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata


def discriminator_report(
    held_out: np.ndarray, labelled: np.ndarray, pool: np.ndarray, trained_on: np.ndarray
) -> dict[str, float | int | None]:
    """What the discriminator has learned, in eval mode.

    It may remember what it was trained on: whether labelled images differ from the pool
    is asked of images that training has told it nothing of.

    Args:
        held_out: Logits of labelled images that were kept out of its loss.
        labelled: Logits of other labelled images.
        pool: Logits of the pool.
        trained_on: Which pool images training has seen, bool.

    Returns:
        ``auc`` of held-out against unseen pool images in [0, 1], 0.5 being chance,
        ``auc_chance_error``, its standard error if there is no difference,
        ``n_held_out`` and ``n_unseen``; ``loss``: cross-entropy of the same images,
        both sides weighted equally, in nats; ``auc_trained_on`` of images seen in
        training, with ``n_labelled_trained_on`` and ``n_pool_trained_on``; ``p_min``,
        ``p_median``, ``p_max``: P(labelled) over the pool. None where a side is empty.
    """
    seen, unseen = pool[trained_on], pool[~trained_on]
    n, m = len(held_out), len(unseen)
    probability = expit(pool.astype(np.float64))
    spread = {'p_min': np.min, 'p_median': np.median, 'p_max': np.max}
    return {
        'auc': _auc(held_out, unseen),
        'auc_chance_error': math.sqrt((n + m + 1) / (12 * n * m)) if n * m else None,
        'n_held_out': n,
        'n_unseen': m,
        'loss': _loss(held_out, unseen),
        'auc_trained_on': _auc(labelled, seen),
        'n_labelled_trained_on': len(labelled),
        'n_pool_trained_on': len(seen),
        **{k: float(f(probability)) if len(pool) else None for k, f in spread.items()},
    }


def _auc(labelled: np.ndarray, pool: np.ndarray) -> float | None:
    """Share of pairs whose labelled image has the higher logit; a tie counts half."""
    n, m = len(labelled), len(pool)
    if not n * m:
        return None
    ranks = rankdata(np.concatenate([labelled, pool]))[:n].sum()
    return float((ranks - n * (n + 1) / 2) / (n * m))


def _loss(labelled: np.ndarray, pool: np.ndarray) -> float | None:
    if not len(labelled) * len(pool):
        return None
    of_labelled = np.logaddexp(0, -labelled.astype(np.float64)).mean()
    return float((of_labelled + np.logaddexp(0, pool.astype(np.float64)).mean()) / 2)
