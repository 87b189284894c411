"""Chosen images against the control share: was choosing better than drawing?"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import entr
from scipy.stats import hypergeom

from tjls_mm.outputs import Outputs

GROUPS = ('chosen', 'control')
LABEL_KEYS = ('answered', 'boxes', 'class_entropy', 'loss')
"""What labels say of a group."""

MEASURES = {
    'class_entropy': ('bits of classes', '{:.2f}'),
    'nearest_distance': ('distance to the labelled', '{:.3f}'),
    'loss': ('loss', '{:.2f}'),
}
"""What the chosen should have more of; in words, and how it is written."""

WARN_STAGES = 2
"""Stages in a row without an advantage after which a line warns."""


def groups_of(control: np.ndarray) -> dict[str, np.ndarray]:
    """Places of chosen and of control images, of a column (P,) that is 1 for these."""
    is_control = np.asarray(control) == 1
    return {
        'chosen': np.flatnonzero(~is_control),
        'control': np.flatnonzero(is_control),
    }


def describe_groups(
    control: np.ndarray, columns: Mapping[str, np.ndarray]
) -> dict[str, dict]:
    """What is known of chosen and of control images before labels come.

    Args:
        control: (P,), of the picks, 1 of the control share.
        columns: Name to (P,) numbers; NaN is not counted.

    Returns:
        For 'chosen' and 'control', ``images`` and the mean of every column; a column
        without a number is left out.
    """
    found = {}
    for name, places in groups_of(control).items():
        means = {'images': len(places)}
        for column, values in columns.items():
            values = np.asarray(values, float)[places]
            values = values[np.isfinite(values)]
            if len(values):
                means[column] = round(float(values.mean()), 6)
        found[name] = means
    return found


def class_entropy(counts: Sequence[int], size: int) -> float:
    """Entropy in bits of the classes of ``size`` labels, drawn of all without return.

    The entropy of few labels is lower than that of many of the same kind: two sets are
    compared at equal size. This is its exact expectation (rarefaction).

    Args:
        counts: Labels of each class.
        size: 1 to their sum; of all it is the plain entropy.

    >>> class_entropy([2, 2], 4), class_entropy([2, 2], 1)
    (1.0, 0.0)
    """
    total, expected = int(sum(counts)), 0.0
    for count in counts:
        drawn = np.arange(1, min(count, size) + 1)
        chances = hypergeom.pmf(drawn, total, count, size)
        expected += float((chances * entr(drawn / size)).sum())
    return round(expected / np.log(2), 6) + 0.0


def add_labels(groups: dict, labels: Mapping[str, Mapping]) -> dict:
    """Groups with what their labels say.

    Args:
        groups: Of ``describe_groups``.
        labels: For 'chosen' and 'control', ``answered`` (images), ``counts`` of
            ``ImageSource.count_labels`` and, where it is known, ``loss``.

    Returns:
        The same with ``answered``, ``boxes`` (per image, where the task has boxes),
        ``class_entropy`` (bits, at the size of the smaller group) and ``loss``.
    """
    # What an earlier answer said is not of this one.
    found = {
        name: {k: v for k, v in groups.get(name, {}).items() if k not in LABEL_KEYS}
        for name in GROUPS
    }
    kinds = {k: labels[k]['counts'] for k in GROUPS}
    classes = {
        k: list((c.get('boxes') or c['images']).values()) for k, c in kinds.items()
    }
    size = min(map(sum, classes.values()))
    several = max(map(len, classes.values())) > 1
    for name in GROUPS:
        answered = found[name]['answered'] = labels[name]['answered']
        if answered and 'boxes' in kinds[name]:
            found[name]['boxes'] = round(sum(classes[name]) / answered, 4)
        if size and several:  # of one class there is nothing to say
            found[name]['class_entropy'] = class_entropy(classes[name], size)
        if labels[name].get('loss') is not None:
            found[name]['loss'] = labels[name]['loss']
    return found


def no_better(groups: Mapping[str, Mapping]) -> bool:
    """Whether the chosen are ahead of the control in nothing that is known.

    Neither more even classes, nor farther from what is labelled, nor a higher loss of
    the model that chose. False where nothing can be compared.
    """
    chosen, control = (groups.get(name, {}) for name in GROUPS)
    measures = [k for k in MEASURES if k in chosen]
    pairs = [(chosen[k], control[k]) for k in measures if k in control]
    return bool(pairs) and all(ours <= theirs for ours, theirs in pairs)


def mean_loss(pool: Outputs, image_ids: Sequence[str], labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of a classifier on images, before it learns them.

    Args:
        pool: Outputs, with ``probability``.
        image_ids: n of its images, at least one.
        labels: (n, K), 1 for the class of an image.
    """
    row = {image_id: i for i, image_id in enumerate(pool.image_ids)}
    rows = [row[image_id] for image_id in image_ids]
    probability = np.asarray(pool['probability'][rows], np.float64)
    own = probability[np.arange(len(rows)), np.asarray(labels).argmax(1)]
    return round(float(-np.log(own.clip(np.finfo(np.float32).tiny)).mean()), 6)


def control_in_words(control: Mapping) -> str:
    """'chosen 3.1 boxes, 1.2 bits; control 2.4, 2.0', or nothing."""
    forms = {
        'boxes': '{:.1f} boxes',
        'class_entropy': '{:.1f} bits',
        'loss': 'loss {:.2f}',
    }
    known = [k for k in forms if all(k in control.get(g, {}) for g in GROUPS)]
    if not known:
        return ''
    ours, theirs = (control[group] for group in GROUPS)
    first = ', '.join(forms[k].format(ours[k]) for k in known)
    plain = {k: '{:.2f}' if k == 'loss' else '{:.1f}' for k in known}
    second = ', '.join(plain[k].format(theirs[k]) for k in known)
    return f'chosen {first}; control {second}'


def control_warning(control: Mapping) -> str | None:
    """Where choosing has brought nothing for two stages in a row."""
    stages = control.get('stages_no_better', 0)
    if stages < WARN_STAGES:
        return None
    said = []
    for key, (what, form) in MEASURES.items():
        if all(key in control.get(group, {}) for group in GROUPS):
            ours, theirs = (form.format(control[group][key]) for group in GROUPS)
            said.append(f'{what} {ours}, control {theirs}')
    return (
        f'for {stages} stages what was chosen was no better than the control '
        f'({"; ".join(said)})'
    )
