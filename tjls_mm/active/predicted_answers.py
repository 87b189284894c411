"""What a model says of images, as annotators may be given it."""

from collections.abc import Sequence

import numpy as np

from tjls_mm.annotation import Answer, Box
from tjls_mm.outputs import Outputs


def predicted_answers(
    pool: Outputs, image_ids: Sequence[str], source, above: float
) -> dict[str, Answer]:
    """Predictions of images by image_id; images without one are left out.

    Args:
        pool: Outputs that may hold ``boxes`` or ``probability``.
        image_ids: Of the pool.
        source: Image source: classes and, of boxes, sizes of images.
        above: Least score, in [0, 1].

    Returns:
        Boxes with scores, one of each prior, cut at the border of their image; or the
        likeliest class.
    """
    row_of = {image_id: row for row, image_id in enumerate(pool.image_ids)}
    rows = [row_of[image_id] for image_id in image_ids]
    if 'boxes' in pool:
        boxes = pool['boxes'].one_per_prior()
        sizes = map(source.image_size, image_ids)
        answers = [
            _boxes(boxes[row], size, source.classes, above)
            for row, size in zip(rows, sizes, strict=True)
        ]
    elif 'probability' in pool:
        best = [np.asarray(pool['probability'][row]) for row in rows]
        answers = [
            source.classes[one.argmax()] if one.max() >= above else '' for one in best
        ]
    else:
        return {}
    named = zip(image_ids, answers, strict=True)
    return {image_id: answer for image_id, answer in named if answer}


def _boxes(own, size: tuple[int, int], classes: Sequence[str], above: float) -> tuple:
    sides = np.asarray(own.xyxy, np.float64).clip(0, [*size, *size])
    found = zip(
        sides.tolist(),
        np.asarray(own.label).tolist(),
        np.asarray(own.score).tolist(),
        strict=True,
    )
    return tuple(
        Box(classes[label], tuple(box), score)
        for box, label, score in found
        # Tools and training leave out what has less than a pixel.
        if score >= above and box[2] - box[0] >= 1 and box[3] - box[1] >= 1
    )
