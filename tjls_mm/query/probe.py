"""Linear models on pretrained features, for a learner that knows too little to choose.

``N`` pool images, ``n`` labelled ones, ``D`` features, ``K`` classes. What the models
learn from is ``label_count`` of labelled images; of the pool they see features only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import entr, expit
from threadpoolctl import threadpool_limits

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs, blocks
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE, Needs
from tjls_mm.query.features import REFERENCES, centred, read_output
from tjls_mm.query.parts import QUERY_PARTS, Scores
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.randomness import tie_break
from tjls_mm.registry import QUERIES, build_own

COMPONENTS = 128
"""Principal components that the models see: fits take milliseconds."""

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the L2 penalty, per labelled image, that cross-validation chooses among."""

FOLDS, LEAST, MOST = 3, 20, 2_000
"""Of cross-validation, and labelled images: of fewer the strength is the middle one, of
more it looks at so many."""

BY_PROBE = 'probe on pretrained features'
"""Note of a selection that a probe served."""

_ITERATIONS = 1_000
_REPLACED = ('probability', 'feature')
_FEATURES = Needs(pool=(PRETRAINED_FEATURE,), labelled=(PRETRAINED_FEATURE,))


def principal_map(x: np.ndarray, components: int) -> Callable:
    """Features to the principal components of standardised ones.

    Args:
        x: (N, D) float32, finite, that mean, deviation and components are those of.
        components: At most; no more than D.

    Returns:
        Of (M, D) features, (M, P) float64, of variance 1 or less per feature.
    """
    z, _, size = centred(x, x[:0])
    middle = x.mean(0, dtype=np.float64) / size
    deviation = z.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, np.inf)
    z /= scale.astype(np.float32)
    _, vectors = np.linalg.eigh((z.T @ z).astype(np.float64))
    matrix = vectors[:, ::-1][:, :components] / scale[:, None]
    return lambda features: (features / size - middle) @ matrix


def presence_probability(
    x: np.ndarray, present: np.ndarray, others: np.ndarray, strength: float
) -> np.ndarray:
    """Whether images contain each class: a logistic regression for each.

    Without weights for balance, so that it stays a probability: what is rare is for a
    balance of classes to prefer.

    Args:
        x: (n, P) and others: (M, P).
        present: (n, K) bool.
        strength: Of the L2 penalty, per image.

    Returns:
        (M, K); of a class that all labelled images agree about nothing is known but
        that, (count + 1) / (n + 2) for every image.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    count, n = present.sum(0), len(present)
    answer = np.tile((count + 1) / (n + 2), (len(others), 1))
    for k in np.flatnonzero((count > 0) & (count < n)):
        model = LogisticRegression(C=1 / (strength * n), max_iter=_ITERATIONS)
        model.fit(x, present[:, k])
        answer[:, k] = expit(model.decision_function(others))
    return answer


def class_probability(
    x: np.ndarray, is_class: np.ndarray, others: np.ndarray, strength: float
) -> np.ndarray:
    """Of which class images are: one multinomial logistic regression.

    Args:
        x: (n, P) and others: (M, P).
        is_class: (n, K) bool, one class of each.
        strength: Of the L2 penalty, per image.

    Returns:
        (M, K), rows sum to 1; a class without labelled images has 1 / (n + K), and
        where fewer than two have any, all have (count + 1) / (n + K).
    """
    from sklearn.linear_model import LogisticRegression

    count, n, classes = is_class.sum(0), len(is_class), is_class.shape[1]
    answer = np.tile((count + 1) / (n + classes), (len(others), 1))
    known = np.flatnonzero(count)
    if len(known) > 1:
        model = LogisticRegression(C=1 / (strength * n), max_iter=_ITERATIONS)
        model.fit(x, is_class.argmax(1))
        share = answer[:, known].sum(1, keepdims=True)
        answer[:, known] = share * model.predict_proba(others)
    return answer


def choose_strength(predict: Callable, x: np.ndarray, target: np.ndarray) -> float:
    """The strength of lowest log loss, of all classes, on images left out.

    Args:
        predict: ``presence_probability`` or ``class_probability``.
        x: (n, P), in random order; target: (n, K) bool.
    """
    if len(x) < LEAST:
        return STRENGTHS[len(STRENGTHS) // 2]
    losses, fold = np.zeros(len(STRENGTHS)), np.arange(len(x)) % FOLDS
    for out in (fold == k for k in range(FOLDS)):
        for i, strength in enumerate(STRENGTHS):
            p = predict(x[~out], target[~out], x[out], strength)
            p = np.where(target[out], p, 1 - p)
            losses[i] -= np.log(p.clip(1e-9)).sum()
    return STRENGTHS[losses.argmin()]


def probe(
    predict: Callable,
    pool: Outputs,
    labelled: Outputs,
    components: int = COMPONENTS,
    strength: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of images by a linear model that is fitted to the labelled ones.

    Args:
        predict: ``presence_probability`` or ``class_probability``.
        pool: With ``pretrained_feature``.
        labelled: With that and ``label_count``; may have no images.
        components: See ``principal_map``.
        strength: See ``predict``; None: by ``choose_strength``.

    Returns:
        Of pool images, (N, K), and of the labelled ones, (n, K), which it has seen.

    Raises:
        InputError: If a feature is not finite.
    """
    target = read_counts(labelled) > 0
    n_images = len(pool.image_ids)
    if not len(target):
        none = np.zeros((0, 0))
        return tuple(
            predict(none, target, np.zeros((m, 0)), 1.0) for m in (n_images, 0)
        )
    known = read_output(labelled, PRETRAINED_FEATURE)
    sample = read_output(pool, PRETRAINED_FEATURE, _by_hash(pool, REFERENCES))
    _check_widths(known, sample)
    with threadpool_limits(1):
        to_components = principal_map(sample, components)
        x = to_components(known)
        if strength is None:
            order = _by_hash(labelled, MOST)
            strength = choose_strength(predict, x[order], target[order])
        others = [to_components(b) for _, b in blocks(pool[PRETRAINED_FEATURE])]
        others = np.concatenate(others)
        _check_finite(others, pool)
        p = predict(x, target, np.concatenate([others, x]), strength)
    # Copies have the same, wherever they stand.
    return np.split(p.round(10), [n_images])


def read_counts(labelled: Outputs) -> np.ndarray:
    """``label_count``, (n, K); (0, 1) where there is none."""
    if 'label_count' not in labelled and not labelled.image_ids:
        return np.zeros((0, 1), np.int32)
    return np.asarray(labelled['label_count'])


def _by_hash(outputs: Outputs, most: int) -> np.ndarray:
    """Rows of so many images at most, the same whatever else there is, in order."""
    ids = outputs.image_ids
    hashes = np.fromiter((tie_break(i, 0) for i in ids), np.int64, len(ids))
    return hashes.argsort(kind='stable')[:most]


def _check_widths(known: np.ndarray, pool: np.ndarray) -> None:
    if known.ndim != 2 or known.shape[1:] != pool.shape[1:]:
        raise InputError(
            f'{PRETRAINED_FEATURE!r} has the shape {known.shape[1:]} of a labelled '
            f'image and {pool.shape[1:]} of a pool image, expected one number of '
            'features: use one model of method.features.'
        )


def _check_finite(values: np.ndarray, pool: Outputs) -> None:
    finite = np.isfinite(values).all(1)
    if not finite.all():
        raise InputError(
            f'{PRETRAINED_FEATURE!r} of {pool.image_ids[finite.argmin()]!r} is not '
            'finite, expected numbers of float32: nothing was selected.'
        )


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class ProbeScore:
    """Which classes an image should contain, by a probe and not by the detector.

    A logistic regression per class on pretrained features, of labelled images, for
    'contains an object of c'. Classes that no labelled image has, get 1 / (n + 2) for
    every image: the probe cannot find them, and a balance of classes, which prefers
    them, then orders by the others.

    Args:
        kind: Of an image in a class: 'score', its probability P, or 'score_entropy',
            the entropy of P, [0, ln 2].
        components: Principal components of the features that the models see.
        strength: Of the L2 penalty, per labelled image, above 0; None: by
            cross-validation on labelled images, see ``choose_strength``.

    Objects that a pick should add to a class are P times their mean number in labelled
    images that have some.

    Raises:
        InputError: If an argument is none of that.
    """

    kind: str = 'score'
    components: int = COMPONENTS
    strength: float | None = None

    note = BY_PROBE
    needs = Needs(
        pool=(PRETRAINED_FEATURE,), labelled=(PRETRAINED_FEATURE, 'label_count')
    )

    def __post_init__(self) -> None:
        if self.kind not in ('score', 'score_entropy'):
            raise InputError(
                f"kind must be 'score' or 'score_entropy', got {self.kind!r}"
            )
        check_settings(self.components, self.strength)

    def __call__(self, pool: Outputs, labelled: Outputs) -> Scores:
        settings = self.components, self.strength
        p, _ = probe(presence_probability, pool, labelled, *settings)
        counts = read_counts(labelled)
        expected = p * (counts.sum(0) / (counts > 0).sum(0).clip(1)).clip(1)
        score = p if self.kind == 'score' else entr(p) + entr(1 - p)
        return Scores(score.sum(1), score, expected, expected.sum(1))


def check_settings(components: int, strength: float | None) -> None:
    """InputError if a probe cannot have them."""
    if type(components) is not int or components < 1:
        raise InputError(f'components must be 1 or more, got {components!r}')
    if strength is not None and not strength > 0:
        raise InputError(f'strength must be above 0 or None, got {strength!r}')


@QUERIES.register_module()
class WithProbe(QueryStrategy):
    """A strategy on what a probe says, not the learner: of classifiers.

    What it calls 'probability' is that of a multinomial logistic regression on
    pretrained features, fitted to the labelled images; what it calls 'feature' are
    these features. Where a learner from scratch has few labels, it knows less.

    Args:
        query: Config of the strategy.
        components, strength: See ``ProbeScore``.

    Raises:
        InputError: If the strategy asks for nothing that a probe replaces, or for
            passes with dropout, which are the learner's.

    Source: selection via proxy (Coleman et al., ICLR 2020), on pretrained features as
    in LabelBench (Zhang et al., 2024).
    """

    def __init__(
        self, query: dict, components: int = COMPONENTS, strength: float | None = None
    ) -> None:
        check_settings(components, strength)
        self.query = build_own(QUERIES, query)
        self.components, self.strength = components, strength
        asked = self.query.needs
        self._fits = 'probability' in (*asked.pool, *asked.labelled)
        self.needs = self._needs(asked)

    def _needs(self, asked: Needs) -> Needs:
        names = {*asked.pool, *asked.labelled}
        if 'pass_probability' in names or not names & set(_REPLACED):
            raise InputError(
                f'WithProbe: {type(self.query).__name__} asks for {sorted(names)}, '
                "expected 'probability' or 'feature', and no 'pass_probability': write "
                'the query without a probe.'
            )
        kept = (
            [name for name in part if name not in _REPLACED]
            for part in (asked.pool, asked.labelled)
        )
        own = ProbeScore.needs if self._fits else _FEATURES
        pool, labelled = (
            tuple(dict.fromkeys([*k, *o]))
            for k, o in zip(kept, (own.pool, own.labelled), strict=True)
        )
        return replace(asked, pool=pool, labelled=labelled)

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        sides = [
            {name: part[name] for name in names if name in part}
            for part, names in (
                (pool, self.needs.pool),
                (labelled, self.needs.labelled),
            )
        ]
        for arrays in sides:
            if PRETRAINED_FEATURE in arrays:
                arrays['feature'] = arrays[PRETRAINED_FEATURE]
        if self._fits:
            check_one_class(labelled)
            settings = self.components, self.strength
            answers = probe(class_probability, pool, labelled, *settings)
            for arrays, p in zip(sides, answers, strict=True):
                arrays['probability'] = p.astype(np.float32)
        pool, labelled = (
            Outputs.from_arrays(part.image_ids, arrays)
            for part, arrays in zip((pool, labelled), sides, strict=True)
        )
        answer = self.query.select(pool, labelled, budget, seed)
        answer = answer if isinstance(answer, Selection) else Selection(answer)
        own = answer.note or type(self.query).__name__
        return replace(answer, note=f'{own}, {BY_PROBE}')


def check_one_class(labelled: Outputs) -> None:
    """InputError if a labelled image has not exactly one label."""
    total = read_counts(labelled).sum(1)
    wrong = np.flatnonzero(total != 1)
    if len(wrong):
        raise InputError(
            f'{labelled.image_ids[wrong[0]]!r} has {total[wrong[0]]} labels, expected '
            'one class of each image: WithProbe is for classifiers. For a detector '
            "write Composition with score=dict(type='ProbeScore')."
        )
