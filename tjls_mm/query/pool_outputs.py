"""What query strategies select from: outputs per image, keyed by image_id."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from tjls_mm.errors import InputError
from tjls_mm.files import write_text

SCORES_FILE = 'pool_scores.csv'
COLUMNS = ['image_id', 'logit', 'score']


def write_scores(path: Path, image_ids: Sequence[str], logits: Sequence[float]) -> None:
    """Write ``image_id,logit,score`` of every pool image atomically.

    Args:
        path: Of the file.
        image_ids: In any order; the file is sorted by id.
        logits: Of being labelled, float32. Nine digits keep every bit.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    for image_id, logit in sorted(zip(image_ids, logits, strict=True)):
        writer.writerow([image_id, f'{logit:.9g}', f'{expit(float(logit)):.9g}'])
    write_text(path, text.getvalue())


def read_scores(path: Path) -> dict[str, float]:
    """Logits by image_id.

    Args:
        path: A file of ``write_scores``.

    Raises:
        InputError: If the file has other columns, an id twice or no number.
    """
    with open(path, newline='', encoding='utf-8') as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if header != COLUMNS:
            raise InputError(f'{path}: expected columns {COLUMNS}, found {header}.')
        logits: dict[str, float] = {}
        for number, row in enumerate(reader, 2):
            try:
                image_id, logit, _ = row
                value = float(logit)
            except ValueError:
                raise InputError(
                    f'{path}, line {number}: expected image_id,logit,score, '
                    f'found {row}.'
                ) from None
            if image_id in logits:
                raise InputError(f'{path}, line {number}: {image_id!r} occurs twice.')
            logits[image_id] = value
    return logits


def discriminator_report(
    labelled: np.ndarray, pool: np.ndarray, trained_on: np.ndarray
) -> dict[str, float | None]:
    """What the discriminator has learned, in eval mode.

    Args:
        labelled: Logits of labelled images.
        pool: Logits of the pool.
        trained_on: Which pool images training has seen, bool.

    Returns:
        ``loss``: cross-entropy, both sides weighted equally. ``auc`` of labelled
        against pool images in [0, 1], 0.5 being chance, over all of the pool
        and, apart, over the images that training has seen (``auc_trained_on``)
        and has not (``auc_unseen``); None where there are none. ``p_min``,
        ``p_median``, ``p_max``: P(labelled) over the pool.
    """
    probability = expit(pool.astype(np.float64))

    def auc(of_pool: np.ndarray) -> float | None:
        if not len(of_pool) or not len(labelled):
            return None
        truth = np.repeat([1, 0], [len(labelled), len(of_pool)])
        return float(roc_auc_score(truth, np.concatenate([labelled, of_pool])))

    loss = np.logaddexp(0, -labelled.astype(np.float64)).mean()
    loss = (loss + np.logaddexp(0, pool.astype(np.float64)).mean()) / 2
    return {
        'loss': float(loss),
        'auc': auc(pool),
        'auc_trained_on': auc(pool[trained_on]),
        'auc_unseen': auc(pool[~trained_on]),
        'p_min': float(probability.min()),
        'p_median': float(np.median(probability)),
        'p_max': float(probability.max()),
    }


def check_selection(values: Mapping[str, object], budget: int) -> None:
    """Raise ValueError unless 1 <= budget <= number of images."""
    if not 1 <= budget <= len(values):
        raise ValueError(
            f'budget must be 1 to {len(values)} (images in the pool), got {budget}'
        )
