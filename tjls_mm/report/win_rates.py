"""How often one method is above another, seed by seed and stage by stage."""

from collections.abc import Sequence

import numpy as np

from tjls_mm.report.stage_line import metric_name
from tjls_mm.report.trial_summary import TrialSummary


def win_rates(
    trials: Sequence[TrialSummary], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Share of (seed, stage) pairs in which a method beats another.

    A pair is a seed and a number of labelled images after stage 0 that both have. A tie
    is a win of neither.

    Args:
        trials: Of a metric of which more is better.
        names: Of M methods.

    Returns:
        Shares, (M, M), in [0, 1], row against column, NaN where there is no pair and on
        the diagonal; numbers of pairs, (M, M), int.
    """
    metric = metric_name(trials[0].rows)
    values: dict[str, dict[tuple[int, int], float]] = {name: {} for name in names}
    for trial in trials:
        for row in trial.rows[1:] if trial.name in values else ():
            values[trial.name][trial.seed, row['n_labelled']] = row[metric]
    shares = np.full((len(names), len(names)), np.nan)
    pairs = np.zeros(shares.shape, int)
    for i, one in enumerate(names):
        for j, two in enumerate(names):
            shared = values[one].keys() & values[two].keys() if i != j else ()
            pairs[i, j] = len(shared)
            if shared:
                above = [values[one][key] > values[two][key] for key in shared]
                shares[i, j] = np.mean(above)
    return shares, pairs
