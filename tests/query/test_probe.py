"""Linear models on pretrained features, and scores put together."""

import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tjls_mm.errors import InputError
from tjls_mm.outputs import Boxes, Outputs
from tjls_mm.query import (
    BADGE,
    QUERIES,
    Composition,
    CoreSet,
    Margin,
    Needs,
    ProbeScore,
    Product,
    Sum,
    WithProbe,
    check_selection,
)
from tjls_mm.query.probe import (
    STRENGTHS,
    choose_strength,
    class_probability,
    presence_probability,
    principal_map,
)
from tjls_mm.registry import build_own

K, D = 4, 30
NOTHING = Outputs.from_arrays([], {})


def made(n_images: int, seed: int = 0, noise: float = 1.0, prefix: str = 'p') -> tuple:
    """Images whose features are a sum of directions of their objects.

    Returns:
        Outputs with ``pretrained_feature`` alone, and the truth, (N, K) objects.
    """
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(K, D))
    share = np.array([0.6, 0.3, 0.15, 0.08])
    counts = (rng.random((n_images, K)) < share) * rng.integers(1, 4, (n_images, K))
    x = (counts > 0) @ directions * 3 + rng.normal(size=(n_images, D)) * noise
    ids = [f'{prefix}{i:05d}' for i in range(n_images)]
    arrays = {'pretrained_feature': np.float32(x)}
    return Outputs.from_arrays(ids, arrays), np.int32(counts)


def with_counts(images: Outputs, counts) -> Outputs:
    arrays = {**images, 'label_count': np.int32(counts)}
    return Outputs.from_arrays(images.image_ids, arrays)


def labelled_of(n_images: int, **settings) -> Outputs:
    return with_counts(*made(n_images, 1, prefix='l', **settings))


def test_a_probe_finds_classes_of_which_it_knows_few():
    pool, truth = made(800)
    scores = ProbeScore()(pool, labelled_of(120))
    assert scores.by_class.shape == (800, K)
    for k in range(K):
        present = truth[:, k] > 0
        found = average_precision_score(present, scores.by_class[:, k])
        assert found > 0.9, f'chance would be {present.mean()}'
        # It is a probability: on average as many have the class as it says.
        assert scores.by_class[:, k].mean() == pytest.approx(present.mean(), abs=0.05)
    expected = truth.sum(0) / 800
    np.testing.assert_allclose(scores.expected.mean(0), expected, rtol=0.25)
    np.testing.assert_allclose(scores.boxes, scores.expected.sum(1))
    np.testing.assert_allclose(scores.image, scores.by_class.sum(1))


def test_entropy_is_of_the_probability():
    pool, _ = made(50)
    labelled = labelled_of(60)
    p = ProbeScore()(pool, labelled)
    h = ProbeScore('score_entropy')(pool, labelled)
    q = p.by_class
    expected = -q * np.log(q) - (1 - q) * np.log(1 - q)
    np.testing.assert_allclose(h.by_class, expected, atol=1e-8)
    np.testing.assert_array_equal(h.expected, p.expected)


def test_labels_of_the_pool_are_never_read():
    class Watched(Outputs):
        def __getitem__(self, name):
            assert name != 'label_count', 'a label of the pool was read'
            return super().__getitem__(name)

    pool, truth = made(60)
    secret = Watched.from_arrays(pool.image_ids, {**pool, 'label_count': truth})
    with pytest.raises(AssertionError):
        secret['label_count']
    wrong = with_counts(pool, truth[::-1])
    labelled = labelled_of(40)
    one, other, plain = (ProbeScore()(p, labelled) for p in (secret, wrong, pool))
    np.testing.assert_array_equal(one.by_class, plain.by_class)
    np.testing.assert_array_equal(other.by_class, plain.by_class)
    assert 'label_count' not in ProbeScore.needs.pool
    rule = WithProbe(dict(type='Margin'))
    assert 'label_count' not in rule.needs.pool
    labelled = with_counts(labelled, np.eye(K)[np.arange(40) % K])
    rows = rule.select(pool, labelled, 9, 0).rows
    assert rows.tolist() == rule.select(secret, labelled, 9, 0).rows.tolist()


def test_a_selection_says_that_a_probe_served():
    (pool, _), labelled = made(40), labelled_of(30)
    parts = [dict(type='ProbeScore'), dict(type='ProbeScore', kind='score_entropy')]
    for score in (parts[0], dict(type='Sum', scores=parts)):
        answer = Composition(score).select(pool, labelled, 5, 0)
        assert answer.note == 'probe on pretrained features'
    labelled = with_counts(made(30, 1, prefix='l')[0], np.eye(K)[np.arange(30) % K])
    rule = dict(type='WithProbe', query=dict(type='Margin'))
    for query in (rule, dict(type='WithControl', query=rule)):
        answer = build_own(QUERIES, query).select(pool, labelled, 5, 0)
        assert answer.note == 'Margin, probe on pretrained features'


def test_it_is_the_same_every_time_and_wherever_an_image_stands():
    pool, _ = made(200)
    labelled = labelled_of(50)
    p = ProbeScore()(pool, labelled).by_class
    np.testing.assert_array_equal(p, ProbeScore()(pool, labelled).by_class)
    twice = np.repeat(np.arange(200), 2)
    ids = [f'{i:04d}' for i in range(400)]
    values = {'pretrained_feature': pool['pretrained_feature'][twice]}
    both = ProbeScore()(Outputs.from_arrays(ids, values), labelled).by_class
    np.testing.assert_array_equal(both[::2], both[1::2])
    np.testing.assert_allclose(both[::2], p, atol=1e-4)


def test_of_a_class_that_no_label_tells_of_a_prior_is_said():
    pool, _ = made(40)
    images, counts = made(28, 1, prefix='l')
    counts[:, 0], counts[:, 1] = 2, 0
    scores = ProbeScore()(pool, with_counts(images, counts))
    np.testing.assert_allclose(scores.by_class[:, 0], 29 / 30)
    np.testing.assert_allclose(scores.by_class[:, 1], 1 / 30)
    np.testing.assert_allclose(scores.expected[:, 0], 2 * 29 / 30)
    np.testing.assert_allclose(scores.expected[:, 1], 1 / 30)
    assert scores.by_class[:, 2].std() > 0.05
    # Flat of that class: the balance, which wants it most, orders by the others.
    balance = dict(type='ClassBalance')
    rule = Composition(dict(type='ProbeScore'), balance)
    rows = rule.select(pool, with_counts(images, counts), 10, 0).rows
    assert (
        scores.by_class[rows, 2:].sum(1).mean() > scores.by_class[:, 2:].sum(1).mean()
    )


@pytest.mark.parametrize('n_labelled', [0, 1, 2, 5])
def test_hardly_any_label_is_no_obstacle(n_labelled):
    pool, _ = made(30)
    labelled = labelled_of(n_labelled)
    p = ProbeScore()(pool, labelled).by_class
    assert p.shape == (30, K) and np.isfinite(p).all()
    if n_labelled < 2:
        assert (p == p[0]).all(), 'one image has no contrast: flat'
    if not n_labelled:
        assert (p == 0.5).all()
        assert (ProbeScore()(pool, NOTHING).by_class == 0.5).all()


def test_one_class_only():
    pool, truth = made(300)
    images, counts = made(80, 1, prefix='l')
    one = with_counts(images, counts[:, 1:2])
    p = ProbeScore()(pool, one).by_class
    assert p.shape == (300, 1)
    assert average_precision_score(truth[:, 1] > 0, p[:, 0]) > 0.9


def test_the_strength_is_chosen_where_features_say_little():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 300, 10))
    target = x[:, :2] > 0.5
    strong, weak = (
        choose_strength(presence_probability, z, target) for z in (noise, x)
    )
    assert strong == STRENGTHS[-1] and weak == STRENGTHS[0]
    few = choose_strength(presence_probability, x[:9], target[:9])
    assert few == STRENGTHS[len(STRENGTHS) // 2]


def test_components_are_those_of_standardised_features():
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(200, 6)) * [1, 1e3, 1, 1, 1, 0] + 5)
    x[:, 2] = x[:, 0] * 2
    mapped = principal_map(x, 3)(x)
    assert mapped.shape == (200, 3) and mapped.dtype == np.float64
    np.testing.assert_allclose(mapped.mean(0), 0, atol=1e-3)
    variance = mapped.var(0)
    assert variance[0] == pytest.approx(2, rel=0.1), 'two features are one'
    cross = np.cov(mapped.T) - np.diag(np.diag(np.cov(mapped.T)))
    np.testing.assert_allclose(cross, 0, atol=1e-3)
    all_of_it = principal_map(x, 99)(x)
    distance = np.linalg.norm(all_of_it[0] - all_of_it[1])
    scale = x.std(0)[:5]
    expected = np.linalg.norm((x[0, :5] - x[1, :5]) / scale)
    assert distance == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('factor', [1e-30, 1e30])
def test_units_of_features_do_not_matter(factor):
    pool, _ = made(60)
    labelled = labelled_of(40)
    values = [dict(part) for part in (pool, labelled)]
    for arrays in values:
        arrays['pretrained_feature'] = arrays['pretrained_feature'] * np.float32(factor)
    scaled = (
        Outputs.from_arrays(part.image_ids, arrays)
        for part, arrays in zip((pool, labelled), values, strict=True)
    )
    p = ProbeScore()(pool, labelled).by_class
    np.testing.assert_allclose(ProbeScore()(*scaled).by_class, p, atol=1e-4)


def test_a_pool_of_voc_takes_seconds():
    """16,551 images of 1,280 features and 20 classes, 2,000 labelled."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(60, 1280)).astype(np.float32)

    def images(n_images, prefix):
        x = rng.normal(size=(n_images, 60)).astype(np.float32)
        counts = np.int32(x[:, :20] > 1.5)
        ids = [f'{prefix}{i}' for i in range(n_images)]
        arrays = {'pretrained_feature': x @ mixing, 'label_count': counts}
        return Outputs.from_arrays(sorted(ids), arrays)

    pool, labelled = images(16_551, 'p'), images(2_000, 'l')
    started = time.process_time()
    ProbeScore()(pool, labelled)
    assert time.process_time() - started < 10


# Combinations


def two_boxes() -> Boxes:
    """Of three images: a box of class 0; one of class 1; both."""
    label = np.int32([0, 1, 0, 1])
    score = np.float32([0.5, 0.4, 0.6, 0.2])
    p = np.eye(2, dtype=np.float32)[label] * score[:, None]
    return Boxes(np.array([0, 1, 2, 4]), np.zeros((4, 4), 'f4'), score, label, p)


def combined(kind, **settings):
    scores = [dict(type='BoxScore', kind='score'), dict(type='ProbeScore')]
    return kind(scores, **settings)


def pool_with_boxes() -> tuple[Outputs, Outputs]:
    images, _ = made(3)
    arrays = {**images, 'boxes': two_boxes()}
    counts = labelled_of(40)['label_count'][:, :2]
    return (
        Outputs.from_arrays(images.image_ids, arrays),
        with_counts(made(40, 1, prefix='l')[0], counts),
    )


def test_a_product_is_high_where_both_are():
    pool, labelled = pool_with_boxes()
    e = np.float32([[0.5, 0], [0, 0.4], [0.6, 0.2]])
    p = ProbeScore()(pool, labelled)
    scores = combined(Product)(pool, labelled)
    np.testing.assert_allclose(scores.by_class, e * p.by_class, rtol=1e-6)
    np.testing.assert_allclose(scores.image, (e * p.by_class).sum(1), rtol=1e-6)
    np.testing.assert_allclose(scores.expected, (e + p.expected) / 2, rtol=1e-6)
    np.testing.assert_allclose(scores.boxes, (e + p.expected).sum(1) / 2, rtol=1e-6)
    gentle = combined(Product, weights=[1, 0.5])(pool, labelled)
    np.testing.assert_allclose(gentle.by_class, e * p.by_class**0.5, rtol=1e-6)


def test_a_sum_is_of_scores_of_equal_mean():
    pool, labelled = pool_with_boxes()
    e = np.float32([[0.5, 0], [0, 0.4], [0.6, 0.2]])
    p = ProbeScore()(pool, labelled).by_class
    scores = combined(Sum, weights=[2, 1])(pool, labelled)
    expected = 2 * e / e.mean() + p / p.mean()
    np.testing.assert_allclose(scores.by_class, expected, rtol=1e-6)


def test_scores_without_classes_count_in_all_or_take_classes_away():
    pool, labelled = pool_with_boxes()
    logit = {**pool, 'logit': np.float32([1, 3, 2])}
    pool = Outputs.from_arrays(pool.image_ids, logit)
    both = [dict(type='BoxScore', kind='score'), dict(type='OutputScore', name='logit')]
    product = Product(both)(pool, labelled)
    e = np.float32([[0.5, 0], [0, 0.4], [0.6, 0.2]])
    rank = np.array([1, 3, 2]) / 3
    np.testing.assert_allclose(product.by_class, e * rank[:, None], rtol=1e-6)
    total = Sum(both)(pool, labelled)
    assert total.by_class is None
    image = e.sum(1) / e.sum(1).mean() + rank / rank.mean()
    np.testing.assert_allclose(total.image, image, rtol=1e-6)
    alone = Product([both[1], both[1]])(pool, labelled)
    np.testing.assert_allclose(alone.image, rank**2)
    assert alone.by_class is alone.boxes is None


def test_what_cannot_be_put_together_is_refused():
    part = dict(type='BoxScore')
    for settings, message in (
        (dict(scores=part), 'two or more'),
        (dict(scores=[part]), 'two or more'),
        (dict(scores=[part, part], weights=[1]), 'weights must be 2 numbers'),
        (dict(scores=[part, part], weights=[1, -1]), 'weights must be 2 numbers'),
        (dict(scores=[part, dict(type='Mine')]), "'Mine' is unknown"),
    ):
        with pytest.raises(InputError, match=message):
            Product(**settings)
    pool, _ = pool_with_boxes()
    with pytest.raises(InputError, match=r'of \[2, 4\] classes'):
        combined(Sum)(pool, labelled_of(30))
    for settings in (dict(kind='margin'), dict(components=0), dict(strength=0)):
        with pytest.raises(InputError, match='must be'):
            ProbeScore(**settings)


# Classifiers


def classes_of(n_images: int, seed: int, prefix: str, classes: int = 3):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(classes, D))
    truth = rng.integers(classes, size=n_images)
    x = np.float32(centres[truth] * 1.5 + rng.normal(size=(n_images, D)))
    noise = np.float32(rng.dirichlet(np.ones(classes), n_images))
    arrays = {
        'pretrained_feature': x,
        'feature': np.float32(rng.normal(size=(n_images, 5))),
        'probability': noise,
    }
    ids = [f'{prefix}{i:04d}' for i in range(n_images)]
    counts = np.eye(classes, dtype=np.int32)[truth]
    return Outputs.from_arrays(ids, arrays), counts, truth


def classifier(n_labelled: int = 60):
    pool, _, truth = classes_of(300, 0, 'p')
    images, counts, _ = classes_of(n_labelled, 1, 'l')
    return pool, with_counts(images, counts), truth


class Seen(Margin):
    """Keeps what it was given."""

    def select(self, pool, labelled, budget, seed):
        self.pool, self.labelled = pool, labelled
        return super().select(pool, labelled, budget, seed)


def seen_by_rule(pool, labelled, needs=None):
    rule = WithProbe(dict(type='Margin'))
    rule.query = Seen()
    if needs:
        rule.query.needs = needs
    rule.select(pool, labelled, 5, 0)
    return rule.query.pool, rule.query.labelled


def test_a_strategy_sees_the_probe_and_not_the_learner():
    pool, labelled, truth = classifier()
    seen, known = seen_by_rule(pool, labelled)
    p = seen['probability']
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    assert (p.argmax(1) == truth).mean() > 0.95
    assert (pool['probability'].argmax(1) == truth).mean() < 0.5
    np.testing.assert_array_equal(seen['feature'], pool['pretrained_feature'])
    assert known['probability'].shape == (60, 3)
    own = known['probability'].argmax(1) == labelled['label_count'].argmax(1)
    assert own.mean() > 0.95


def test_picks_are_those_of_the_rule_on_what_the_probe_says():
    pool, labelled, _ = classifier()
    seen, known = seen_by_rule(pool, labelled)
    for name, rule in (
        ('Margin', Margin()),
        ('BADGE', BADGE()),
        ('CoreSet', CoreSet()),
    ):
        answer = WithProbe(dict(type=name)).select(pool, labelled, 20, 3)
        rows = check_selection(answer, 300, 20, name).rows
        assert rows.tolist() == rule.select(seen, known, 20, 3).rows.tolist()


def test_needs_of_a_strategy_are_those_of_the_probe():
    feature, count = 'pretrained_feature', 'label_count'
    for query, needs in (
        (dict(type='Margin'), Needs((feature,), (feature, count))),
        (dict(type='BAIT'), Needs((feature,), (feature, count))),
        (dict(type='CoreSet'), Needs((feature,), (feature,))),
        (
            dict(type='UHerding', uncertainty='predictive_entropy', passes=3),
            Needs(('predictive_entropy', feature), (feature,), 3),
        ),
        (
            dict(type='ClassBalanced', output='probability'),
            Needs((feature,), (count, feature)),
        ),
    ):
        assert WithProbe(query).needs == needs
    for query in (dict(type='Random'), dict(type='DropQuery'), dict(type='BoxCount')):
        with pytest.raises(InputError, match='without a probe'):
            WithProbe(query)


def test_classes_without_labels_and_no_labels_at_all():
    pool, labelled, _ = classifier()
    counts = labelled['label_count'].copy()
    counts[counts[:, 2] > 0] = [1, 0, 0]
    seen, _ = seen_by_rule(pool, with_counts(labelled, counts))
    np.testing.assert_allclose(seen['probability'][:, 2], 1 / 63, rtol=1e-5)
    np.testing.assert_allclose(seen['probability'].sum(1), 1, rtol=1e-5)
    counts[:] = [0, 1, 0]
    seen, _ = seen_by_rule(pool, with_counts(labelled, counts))
    expected = np.tile(np.float32([1 / 63, 61 / 63, 1 / 63]), (300, 1))
    np.testing.assert_allclose(seen['probability'], expected, rtol=1e-5)
    none, counts, _ = classes_of(0, 1, 'l')
    seen, _ = seen_by_rule(pool, with_counts(none, counts))
    np.testing.assert_allclose(seen['probability'], 1 / 3)
    seen_by_rule(pool, NOTHING)


def test_two_classes_are_two_columns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    right = x[:, 0] > 0
    target = np.stack([right, ~right], 1)
    p = class_probability(x, target, x, 0.01)
    assert ((p[:, 0] > 0.5) == right).mean() > 0.9
    np.testing.assert_allclose(p.sum(1), 1)


def test_a_probe_of_one_class_refuses_objects():
    pool, labelled, _ = classifier()
    counts = labelled['label_count'].copy()
    counts[7] = [2, 0, 0]
    with pytest.raises(InputError, match='l0007.* has 2 labels'):
        WithProbe(dict(type='Margin')).select(pool, with_counts(labelled, counts), 5, 0)


def test_features_of_two_networks_and_no_numbers_are_refused():
    pool, _ = made(20)
    labelled = labelled_of(30)
    narrow = {**labelled, 'pretrained_feature': labelled['pretrained_feature'][:, 1:]}
    with pytest.raises(InputError, match='one model of method.features'):
        ProbeScore()(pool, Outputs.from_arrays(labelled.image_ids, narrow))
    for images, other, name in ((pool, labelled, 'p00003'), (labelled, pool, 'l00003')):
        values = images['pretrained_feature'].copy()
        values[3, 2] = np.nan
        spoiled = {**images, 'pretrained_feature': values}
        spoiled = Outputs.from_arrays(images.image_ids, spoiled)
        sides = (spoiled, other) if images is pool else (other, spoiled)
        with pytest.raises(InputError, match=name):
            ProbeScore()(*sides)
