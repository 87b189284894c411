"""Rules on outputs of whole images: each against its definition, all by properties."""

import numpy as np
import pytest

from tjls_mm.errors import InputError
from tjls_mm.outputs import Outputs
from tjls_mm.query import (
    BAIT,
    DAL,
    QUERIES,
    TCM,
    CoreSet,
    DCoM,
    Discriminator,
    DropQuery,
    Entropy,
    LeastConfidence,
    Margin,
    MaxHerding,
    ProbCover,
    TypiClust,
    UHerding,
    check_selection,
)
from tjls_mm.query import coverage as coverage_file
from tjls_mm.query import features as features_file
from tjls_mm.query.badge import draw_gradients, gradient_factor
from tjls_mm.query.bait import bait
from tjls_mm.query.clusters import typical_of_clusters, typicality
from tjls_mm.query.core_set import farthest_first
from tjls_mm.query.coverage import cover, pure_radii, pure_radius
from tjls_mm.query.discriminator import fit_logistic
from tjls_mm.query.features import unit
from tjls_mm.query.herding import herd, kernel_width, tempered
from tjls_mm.query.noise import gumbel_top_k, power_draw, standardised
from tjls_mm.query.strategy import QueryStrategy
from tjls_mm.registry import build_own

NOTHING = Outputs.from_arrays([], {})
K, PASSES = 4, 3


def arrays(n_images: int, seed: int = 0, groups: int = 5) -> dict:
    """Outputs of a classifier with a discriminator; features lie in groups."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(groups, 8)) * 3
    logits = rng.normal(size=(n_images, K))
    passes = logits[:, None] + rng.normal(size=(n_images, PASSES, K))
    entropy = rng.uniform(0, 1, n_images)
    answer = dict(
        logit=rng.normal(size=n_images),
        probability=softmax(logits),
        pass_probability=softmax(passes),
        feature=centres[rng.integers(groups, size=n_images)]
        + rng.normal(size=(n_images, 8)),
        predictive_entropy=entropy,
        mutual_information=entropy / 2,
    )
    answer['pretrained_feature'] = answer['feature'] / 2
    kinds = np.random.default_rng(8).normal(size=(8, K))
    # Of pool images too: no rule may look.
    answer['label_count'] = np.eye(K)[(answer['feature'] @ kinds).argmax(1)]
    return {name: np.float32(values) for name, values in answer.items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits)
    return weight / weight.sum(-1, keepdims=True)


def outputs(ids, values: dict) -> Outputs:
    """In any order of ids."""
    order = np.argsort(ids)
    return Outputs.from_arrays(
        [ids[i] for i in order], {name: array[order] for name, array in values.items()}
    )


def named(n_images: int, seed: int = 0, prefix: str = 'p', **settings) -> Outputs:
    ids = [f'{prefix}/{i:04d}' for i in range(n_images)]
    return outputs(ids, arrays(n_images, seed, **settings))


def select(rule, pool, labelled, budget, seed=0):
    answer = rule.select(pool, labelled, budget, seed)
    return check_selection(answer, len(pool.image_ids), budget, type(rule).__name__)


def ids_of(rule, pool, labelled, budget, seed=0) -> list[str]:
    rows = select(rule, pool, labelled, budget, seed).rows
    return [pool.image_ids[row] for row in rows]


# Every rule that these outputs can feed, as configs.

SETTINGS = {'TCM': dict(switch=10), 'Auto': dict(task='classification')}
VARIANTS = [
    dict(type='Margin', beta=2.0),
    dict(type='Discriminator', rule='margin'),
    dict(type='Discriminator', beta=2.0),
    dict(type='DAL', rule='uncertain', beta=1.0, rounds=3),
    dict(type='MaxHerding', weights='density_ratio'),
    dict(type='UHerding', uncertainty='predictive_entropy'),
    dict(type='UHerding', temperature=2.0),
    dict(type='TCM', switch=0),
    dict(type='TypiClust', max_clusters=3),
    dict(type='Auto', task='classification', control=0.3),
    dict(type='WithProbe', query=dict(type='Margin')),
    dict(type='WithProbe', query=dict(type='BADGE'), strength=0.1),
    dict(type='WithProbe', query=dict(type='CoreSet')),
    dict(type='WithProbe', query=dict(type='DCoM')),
]


def configs() -> list[dict]:
    known = set(arrays(1))
    found = []
    for name, kind in sorted(QUERIES.module_dict.items()):
        if kind.__module__.startswith('tjls_mm.'):
            try:
                rule = build_own(QUERIES, dict(type=name, **SETTINGS.get(name, {})))
            except InputError:  # it asks for an argument that this file does not know
                continue
            if {*rule.needs.pool, *rule.needs.labelled} <= known:
                found.append(dict(type=name, **SETTINGS.get(name, {})))
    return found + VARIANTS


CONFIGS = configs()
each_rule = pytest.mark.parametrize(
    'config', CONFIGS, ids=lambda c: '-'.join(map(str, c.values()))
)


def built(config: dict) -> QueryStrategy:
    return build_own(QUERIES, config)


def test_all_rules_of_images_are_registered():
    found = {config['type'] for config in CONFIGS}
    assert found >= {
        *('Random', 'Discriminator', 'DAL', 'Entropy', 'Margin', 'LeastConfidence'),
        *('CoreSet', 'BADGE', 'BAIT', 'MaxHerding', 'UHerding', 'TypiClust', 'TCM'),
        *('ProbCover', 'DCoM', 'DropQuery'),
    }


@each_rule
def test_picks_do_not_depend_on_the_order_of_images(config):
    values, known = arrays(60), named(9, 1, 'l')
    ids = [f'p/{i:04d}' for i in range(60)]
    order = np.random.default_rng(3).permutation(60)
    moved = {name: array[order] for name, array in values.items()}
    rule = built(config)
    one = ids_of(rule, outputs(ids, values), known, 12)
    other = ids_of(rule, outputs([ids[i] for i in order], moved), known, 12)
    assert one == other == ids_of(built(config), outputs(ids, values), known, 12)


@each_rule
@pytest.mark.parametrize('n_labelled', [0, 1, 9])
@pytest.mark.parametrize(
    'budget, n_images', [(1, 1), (1, 2), (2, 2), (7, 40), (40, 40)]
)
def test_exactly_the_budget_is_picked(config, n_labelled, budget, n_images):
    labelled = named(n_labelled, 1, 'l') if n_labelled else NOTHING
    select(built(config), named(n_images), labelled, budget)


@each_rule
def test_a_budget_that_does_not_fit_is_refused(config):
    for budget in (0, 6):
        with pytest.raises(ValueError, match='budget'):
            built(config).select(named(5), named(3, 1, 'l'), budget, 0)


@each_rule
def test_equal_images_and_one_class_are_no_obstacle(config):
    values = arrays(20)
    for name, array in values.items():
        values[name] = np.repeat(array[:1], 20, axis=0)
    values['probability'] = np.float32([[1.0]] * 20)
    values['pass_probability'] = np.float32([[[1.0]] * PASSES] * 20)
    pool = outputs([f'{i:02d}' for i in range(20)], values)
    known = outputs(['a', 'b'], {name: array[:2] for name, array in values.items()})
    one, two = (
        set(select(built(config), pool, known, 7, seed).rows) for seed in (1, 2)
    )
    assert one != two, 'only a seeded hash tells them apart, and no name'


@each_rule
def test_features_of_zeros_or_of_any_size_are_no_obstacle(config):
    for factor in (0, 1e-30, 1e30):
        values = arrays(20)
        for name in ('feature', 'pretrained_feature'):
            values[name] = values[name] * np.float32(factor)
        pool = outputs([f'{i:02d}' for i in range(20)], values)
        known = {name: array[:3] for name, array in values.items()}
        select(built(config), pool, outputs(['a', 'b', 'c'], known), 5)


@each_rule
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_what_is_not_finite_is_refused(config, value):
    rule = built(config)
    for side, names in (('pool', rule.needs.pool), ('labelled', rule.needs.labelled)):
        for name in names:
            if name == 'label_count':
                continue  # whole numbers
            if config['type'] == 'Discriminator' and 'beta' not in config:
                continue  # see test_query.py
            sides = dict(pool=arrays(20), labelled=arrays(5, 1))
            sides[side][name][3] = value
            pool = outputs([f'p{i:02d}' for i in range(20)], sides['pool'])
            labelled = outputs([f'l{i}' for i in range(5)], sides['labelled'])
            with pytest.raises(InputError, match='p03|l3'):
                rule.select(pool, labelled, 4, 0)


DIVERSE = [
    *(dict(type=name) for name in ('CoreSet', 'BADGE', 'BAIT')),
    *(dict(type=name) for name in ('MaxHerding', 'UHerding')),
    *(dict(type=name) for name in ('TypiClust', 'ProbCover', 'DCoM', 'DropQuery')),
    dict(type='TCM', switch=10),
    dict(type='MaxHerding', weights='density_ratio'),
    dict(type='TypiClust', max_clusters=3),
]


@pytest.mark.parametrize(
    'config', DIVERSE, ids=lambda c: '-'.join(map(str, c.values()))
)
@pytest.mark.parametrize('jitter', [0, 1e-4])
@pytest.mark.parametrize('n_labelled', [0, 2])
def test_no_image_is_picked_twice_before_each_was_once(config, jitter, n_labelled):
    scenes, copies = 12, 6
    for seed in range(3):
        values = {
            name: np.repeat(array, copies, axis=0)
            for name, array in arrays(scenes, seed).items()
        }
        noise = np.random.default_rng(seed).normal(size=values['feature'].shape)
        values['feature'] += np.float32(jitter * noise)
        pool = outputs([f'{i % copies}/{i:03d}' for i in range(72)], values)
        labelled = named(n_labelled, 7, 'l') if n_labelled else NOTHING
        picks = ids_of(built(config), pool, labelled, scenes, seed)
        assert len({int(i.split('/')[1]) // copies for i in picks}) == scenes


@pytest.mark.parametrize(
    'config', [c for c in DIVERSE if c['type'] not in ('BADGE', 'BAIT', 'DropQuery')]
)
def test_labelled_images_count(config):
    pool, all_known = named(60), named(60, prefix='l')
    half = outputs(
        all_known.image_ids[:30],
        {name: all_known[name][:30] for name in all_known},
    )
    config = {**config, 'switch': 100} if config['type'] == 'TCM' else config
    rows = select(built(config), pool, half, 10).rows
    assert (rows >= 30).all(), 'the copy of a labelled image was picked'


def test_a_large_pool_is_asked_in_part(monkeypatch):
    monkeypatch.setattr(features_file, 'LEAST_CANDIDATES', 30)
    pool, labelled = named(500), named(5, 1, 'l')
    one, two = (CoreSet().select(pool, labelled, 1, seed) for seed in (1, 2))
    seen = np.isfinite(one.columns['distance_to_labelled'])
    assert seen.sum() == 30 and seen[one.rows].all()
    assert (seen != np.isfinite(two.columns['distance_to_labelled'])).any()


def test_features_of_another_name():
    """Pretrained features can be named, and those of two learners not mixed."""
    pool, labelled = named(20), named(4, 1, 'l')
    renamed = [
        outputs(side.image_ids, {'mine': side['feature']}) for side in (pool, labelled)
    ]
    for kind in (CoreSet, MaxHerding, TypiClust, ProbCover, DAL):
        rule = kind(features='mine')
        assert rule.needs.pool == rule.needs.labelled == ('mine',)
        assert ids_of(rule, *renamed, 5) == ids_of(kind(), pool, labelled, 5)
    other = outputs(['a'], {'mine': np.zeros((1, 3), np.float32)})
    with pytest.raises(InputError, match=r"'mine' has the shape \(3,\)"):
        CoreSet('mine').select(renamed[0], other, 1, 0)
    with pytest.raises(InputError, match="features='logit' has the shape"):
        MaxHerding('logit').select(pool, labelled, 1, 0)


# Uncertainty

PROBABILITY = np.float32(
    [[0.5, 0.375, 0.125], [0.55, 0.225, 0.225], [0.4, 0.3, 0.3], [0.98, 0.01, 0.01]]
)


def test_uncertainty_by_hand():
    pool = Outputs.from_arrays(list('abcd'), {'probability': PROBABILITY})
    by_hand = {
        Entropy: -(PROBABILITY * np.log(PROBABILITY)).sum(1),
        Margin: [0.875, 0.675, 0.9, 0.03],
        LeastConfidence: [0.5, 0.45, 0.6, 0.02],
    }
    for kind, expected in by_hand.items():
        answer = kind().select(pool, NOTHING, 4, 0)
        np.testing.assert_allclose(answer.columns['uncertainty'], expected, atol=1e-6)
        assert answer.rows.tolist() == sorted(
            range(4), key=lambda row: -answer.columns['uncertainty'][row]
        )
    assert ids_of(LeastConfidence(), pool, NOTHING, 2) == ['c', 'a']
    assert ids_of(Entropy(), pool, NOTHING, 2) == ['c', 'b']


def test_arguments_of_uncertainty():
    assert Margin(over='sum').needs.pool == ('boxes',)
    with pytest.raises(InputError, match='over must be one of'):
        Entropy(over='median')
    with pytest.raises(InputError, match='beta'):
        Entropy(beta=-1)
    negative = Outputs.from_arrays(['a'], {'probability': np.float32([[-0.5, 1.5]])})
    with pytest.raises(InputError, match="'probability' of 'a'"):
        Entropy().select(negative, NOTHING, 1, 0)


# Noise


def test_draws_are_in_proportion_to_the_power_of_the_score():
    score = np.array([1.0, 2.0, 3.0, 0.0])
    rng = np.random.default_rng(0)
    draws = np.array([power_draw(score, 2.0, 2, rng)[0] for _ in range(4000)])
    _, first = power_draw(score, 2.0, 2, rng)
    np.testing.assert_allclose(first, np.array([1, 4, 9, 0]) / 14)
    share = np.bincount(draws[:, 0], minlength=4) / 4000
    np.testing.assert_allclose(share, first, atol=0.025)
    after_largest = draws[draws[:, 0] == 2][:, 1]
    assert (after_largest == 1).mean() == pytest.approx(4 / 5, abs=0.025)
    assert (draws != 3).all(), 'a weight of 0 comes last'
    assert set(power_draw(score, 2.0, 4, rng)[0]) == set(range(4))


def test_no_power_is_uniform_and_a_large_one_takes_the_highest():
    score, rng = np.array([0.0, 1.0, 5.0, 2.0]), np.random.default_rng(0)
    assert power_draw(score, 500.0, 3, rng)[0].tolist() == [2, 3, 1]
    for weights in (
        power_draw(score, 0.0, 1, rng),
        gumbel_top_k([-np.inf] * 4, 1, rng),
    ):
        np.testing.assert_allclose(weights[1], 0.25)
    with pytest.raises(ValueError, match='budget'):
        power_draw(score, 1.0, 5, rng)
    with pytest.raises(ValueError, match='a score is'):
        power_draw(-score, 1.0, 1, rng)


def test_a_score_without_spread_is_drawn_uniformly():
    np.testing.assert_array_equal(standardised(np.full(3, 0.3)), 0)
    np.testing.assert_allclose(standardised([1, 3]), [-1, 1])


def test_the_share_of_draws_is_written():
    pool = named(200)
    answer = Margin(beta=4).select(pool, NOTHING, 20, 1)
    score = answer.columns['uncertainty']
    expected = score**4 / (score**4).sum()
    np.testing.assert_allclose(answer.columns['draw_probability'], expected)
    assert score[answer.rows].mean() > score.mean()


# CoreSet


def slow_farthest(x, labelled, budget):
    chosen, picks = list(labelled), []
    for _ in range(budget):
        distance = [min(np.linalg.norm(row - c) for c in chosen) for row in x]
        picks.append(int(np.argmax(distance)))
        chosen.append(x[picks[-1]])
    return picks


def test_core_set_is_farthest_first():
    pool, labelled = named(60), named(5, 1, 'l')
    picks = select(CoreSet(), pool, labelled, 20)
    x, known = (np.float64(side['feature']) for side in (pool, labelled))
    assert picks.rows.tolist() == slow_farthest(x, known, 20)
    distance = np.linalg.norm(x[:, None] - known, axis=2).min(1)
    columns = picks.columns
    np.testing.assert_allclose(columns['distance_to_labelled'], distance, rtol=1e-4)
    reach = columns['distance_when_picked'][picks.rows]
    assert reach[0] == pytest.approx(distance.max(), rel=1e-4)
    assert (np.diff(reach) <= 0).all()
    assert np.isfinite(columns['distance_when_picked']).sum() == 20


def test_core_set_by_hand():
    x = np.float32([[0, 0], [1, 0], [10, 0], [4, 0]])
    picks, reach = farthest_first(x, np.float32([0, 1, 100, 16]), 4)
    assert picks.tolist() == [2, 3, 1, 0] and reach.tolist() == [100, 16, 1, 0]


# BADGE


def test_badge_is_a_draw_among_explicit_gradients():
    values = arrays(50)
    g, f = gradient_factor(values['probability']), values['feature']
    onehot = np.eye(K)[values['probability'].argmax(1)]
    np.testing.assert_allclose(g, values['probability'] - onehot, atol=1e-6)
    for seed in range(5):
        picks, chances = draw_gradients(g, f, 12, np.random.default_rng(seed))
        z = np.einsum('nk,nd->nkd', g, f).reshape(50, -1).astype(np.float64)
        rng, expected = (
            np.random.default_rng(seed),
            [np.linalg.norm(z, axis=1).argmax()],
        )
        for place in range(1, 12):
            squared = ((z[:, None] - z[expected]) ** 2).sum(2).min(1)
            expected.append(
                int((squared.cumsum() < rng.random() * squared.sum()).sum())
            )
            share = squared[expected[-1]] / squared.sum()
            assert chances[place] == pytest.approx(share, rel=1e-3)
        assert picks.tolist() == expected


def test_badge_prefers_what_would_move_the_learner():
    rng = np.random.default_rng(0)
    probability = np.float32([[0.999, 0.001]] * 100 + [[0.5, 0.5]] * 10)
    feature = np.float32(rng.normal(size=(110, 16)))
    picks, _ = draw_gradients(gradient_factor(probability), feature, 10, rng)
    assert (picks < 100).sum() <= 1, 'they all stand for one gradient, of nearly 0'


# BAIT


def slow_bait(x, labelled, budget, ridge):
    """By the trace itself, with an inverse per image and pick."""
    count = len(labelled) + budget
    everything = np.concatenate([x, labelled])
    fisher = everything.T @ everything / len(everything)
    ridge = ridge * np.linalg.eigvalsh(fisher).mean()
    matrix = ridge * np.eye(x.shape[1]) + labelled.T @ labelled / count

    def traces(rows, sign):
        return {
            row: np.trace(
                np.linalg.inv(matrix + sign * np.outer(x[row], x[row]) / count) @ fisher
            )
            for row in rows
        }

    picks = []
    for _ in range(min(2 * budget, len(x))):
        trace = traces(set(range(len(x))) - set(picks), 1)
        picks.append(min(trace, key=trace.get))
        matrix = matrix + np.outer(x[picks[-1]], x[picks[-1]]) / count
    while len(picks) > budget:
        trace = traces(picks, -1)
        picks.remove(gone := min(trace, key=trace.get))
        matrix = matrix - np.outer(x[gone], x[gone]) / count
    return picks


@pytest.mark.parametrize('n_labelled', [0, 7])
def test_bait_lowers_the_trace_most(n_labelled):
    rng = np.random.default_rng(n_labelled)
    x, labelled = rng.normal(size=(40, 5)), rng.normal(size=(n_labelled, 5))
    for budget in (3, 8, 30):
        picks, falls = bait(np.float32(x), np.float32(labelled), budget, 0.1)
        assert picks.tolist() == slow_bait(x, labelled, budget, 0.1)
        assert (falls > 0).all()


def test_bait_stays_exact_over_many_picks(monkeypatch):
    monkeypatch.setattr('tjls_mm.query.bait._EXACT_EVERY', 7)
    x = np.random.default_rng(0).normal(size=(60, 5))
    picks, _ = bait(np.float32(x), np.zeros((0, 5), np.float32), 25, 0.1)
    assert picks.tolist() == slow_bait(x, np.zeros((0, 5)), 25, 0.1)


def test_units_of_features_do_not_matter_to_bait():
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    one, other = (bait(factor * x, x[:3] * factor, 9)[0] for factor in (1, 1e3))
    assert one.tolist() == other.tolist()


def test_bait_leaves_out_what_the_learner_is_sure_of():
    pool = named(30)
    values = {name: pool[name].copy() for name in pool}
    values['probability'][:20] = np.eye(K)[0]
    rows = select(BAIT(), outputs(pool.image_ids, values), NOTHING, 5).rows
    assert (rows >= 20).all()
    with pytest.raises(InputError, match='regularisation'):
        BAIT(regularisation=0)


# Herding


def slow_herding(x, weight, coverage, width, budget):
    kernel = np.exp(-(np.square(x[:, None] - x).sum(2)) / width**2)
    coverage, picks, gains = coverage.copy(), [], []
    for _ in range(budget):
        gain = (weight[:, None] * (kernel - coverage[:, None]).clip(min=0)).mean(0)
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        gains.append(gain.max())
        coverage = np.maximum(coverage, kernel[:, picks[-1]])
    return picks, gains


@pytest.mark.parametrize('width', [0.3, 0.6])
def test_herding_is_greedy_coverage(width):
    rng = np.random.default_rng(1)
    x = unit(arrays(150)['feature'])
    weight, coverage = rng.uniform(size=150), rng.uniform(0, 0.5, size=150)
    picks, gains = herd(x, x, weight, coverage, width, 40)
    expected, their = slow_herding(np.float64(x), weight, coverage, width, 40)
    assert picks.tolist() == expected
    np.testing.assert_allclose(gains, their, rtol=1e-3, atol=1e-6)


def test_herding_covers_what_is_not_labelled():
    pool, labelled = named(200), named(20, 1, 'l')
    picks = select(MaxHerding(width=0.5), pool, labelled, 10)
    x, known = unit(pool['feature']), unit(labelled['feature'])
    squared = np.square(x[:, None] - known).sum(2).min(1)
    expected, _ = slow_herding(
        np.float64(x), np.ones(200), np.exp(-squared / 0.25), 0.5, 10
    )
    assert picks.rows.tolist() == expected
    distance = picks.columns['distance_to_labelled']
    np.testing.assert_allclose(distance, np.sqrt(squared), atol=2e-3)


def test_the_width_does_not_fall_with_a_pair_of_duplicates():
    rng = np.random.default_rng(0)
    x = unit(np.float32(rng.normal(size=(100, 8))))
    width = kernel_width(x, x, 1)
    distance = np.sqrt(np.square(x[:, None] - x).sum(2)) + 9 * np.eye(100)
    assert width == pytest.approx(np.quantile(distance.min(1), 0.1), rel=1e-4)
    doubled = np.concatenate([x, x[:1] + 1e-3])
    assert kernel_width(x, unit(doubled), 1) == pytest.approx(width, rel=0.05)
    assert kernel_width(x, x[:0], 100) == width, 'else of random images'
    assert kernel_width(x[:1], x[:0], 1) == 1


def test_weights_of_herding():
    pool, labelled = named(100), named(5, 1, 'l')
    answer = select(UHerding(), pool, labelled, 5)
    top = np.sort(pool['probability'], axis=1)
    margin = 1 - (top[:, -1] - top[:, -2])
    np.testing.assert_allclose(answer.columns['weight'], margin, atol=1e-6)
    ratio = select(MaxHerding(weights='density_ratio'), pool, labelled, 5)
    expected = np.exp(-pool['logit']).clip(0.25, 4)
    np.testing.assert_allclose(ratio.columns['weight'], expected, rtol=1e-5)
    rule = UHerding(uncertainty='predictive_entropy', passes=3)
    assert rule.needs.passes == 3 and 'probability' not in rule.needs.pool
    with pytest.raises(InputError, match='cannot weigh images'):
        UHerding(uncertainty='logit').select(pool, labelled, 5, 0)
    for bad in (dict(width=0), dict(temperature=-1)):
        with pytest.raises(InputError, match='must be above 0'):
            MaxHerding(**bad)


def test_a_temperature_flattens():
    p = np.float32([[0.8, 0.2, 0.0]])
    np.testing.assert_allclose(tempered(p, 1), p)
    np.testing.assert_allclose(tempered(p, 2.0), [[2 / 3, 1 / 3, 0]], rtol=1e-5)


# TypiClust and TCM


def test_the_most_typical_has_the_nearest_neighbours():
    x = np.float32([[0], [1], [2], [3], [9]])  # two neighbours each
    expected = [1.5, 1, 1, 1.5, 6.5]
    np.testing.assert_allclose(1 / typicality(x), expected, atol=1e-3)
    assert np.isfinite(typicality(x[:1])).all()


def test_clusters_with_fewest_labelled_come_first_then_the_largest():
    rng = np.random.default_rng(0)
    sizes = [10, 30, 20, 4]
    clusters = np.repeat(np.arange(4), sizes)
    x = np.float32(rng.normal(size=(64, 3)) * 0.1 + 10 * clusters[:, None])
    labelled, theirs = np.float32([[10.0, 10, 10]]), np.array([1])
    picks, typical = typical_of_clusters(x, labelled, clusters, theirs, 7)
    assert clusters[picks].tolist() == [2, 0, 1, 2, 0, 1, 2], 'the smallest is last'
    own = np.where(clusters == 2, typicality_of(x[clusters == 2], clusters == 2), -1)
    assert picks[0] == own.argmax()
    np.testing.assert_allclose(typical[clusters == 2], own[clusters == 2])
    assert np.isnan(typical[clusters == 3]).all()


def typicality_of(members, where):
    full = np.full(len(where), -1.0)
    full[where] = typicality(members)
    return full


def test_typiclust_picks_one_of_each_group():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 20)
    centres = 20 * rng.normal(size=(6, 8))
    feature = np.float32(centres[groups] + rng.normal(size=(120, 8)) * 0.1)
    pool = outputs([f'{i:03d}' for i in range(120)], {'feature': feature})
    labelled = outputs(['a', 'b'], {'feature': np.float32(centres[:2])})
    answer = select(TypiClust(), pool, labelled, 4)
    assert sorted(groups[answer.rows]) == [2, 3, 4, 5]
    assert (answer.columns['cluster'] >= 0).all()
    with pytest.raises(InputError, match='max_clusters'):
        TypiClust(max_clusters=0)


def test_tcm_switches_to_uncertainty():
    pool, labelled = named(60), named(10, 1, 'l')
    early, late = TCM(switch=11), TCM(switch=10)
    few = select(early, pool, labelled, 8)
    assert few.columns['cluster'].shape == (60,)
    assert ids_of(late, pool, labelled, 8) == ids_of(Margin(), pool, labelled, 8)
    by_score = TCM(0, uncertainty='predictive_entropy')
    rows = select(by_score, pool, labelled, 8).rows
    expected = np.argsort(-pool['predictive_entropy'])[:8]
    assert rows.tolist() == expected.tolist()


# ProbCover and DCoM


def assert_greedy(x, covered, radius, picks, gains):
    """Each pick covers as much as any could; equals may come in any order."""
    near = np.sqrt(np.square(x[:, None] - x).sum(2)) <= radius
    covered = covered.copy()
    for pick, gain in zip(picks, gains, strict=True):
        degree = (near & ~covered).sum(1)
        assert degree[pick] == degree.max() == gain > 0
        covered |= near[pick]
    return covered


def test_prob_cover_covers_most_with_each_ball():
    x = unit(arrays(200)['feature'])
    covered = np.arange(200) < 30
    picks, gains = cover(x, x, covered, 0.4, 200)
    assert assert_greedy(np.float64(x), covered, 0.4, picks, gains).all()
    pool, labelled = named(200), named(20, 1, 'l')
    answer = select(ProbCover(radius=0.4), pool, labelled, 5)
    known = unit(labelled['feature'])
    covered = np.sqrt(np.square(x[:, None] - known).sum(2)).min(1) <= 0.4
    gains = answer.columns['newly_covered'][answer.rows]
    assert_greedy(np.float64(x), covered, 0.4, answer.rows, gains)
    with pytest.raises(InputError, match='radius'):
        ProbCover(radius=3)


def test_what_no_ball_adds_to_is_picked_farthest_first():
    pool = named(50)
    x = unit(pool['feature'])
    picks, _ = cover(x, x, np.zeros(50, bool), 1.0, 50)
    answer = select(ProbCover(radius=1.0), pool, NOTHING, 50)
    newly = answer.columns['newly_covered'][answer.rows]
    assert np.isfinite(newly[: len(picks)]).all() and np.isnan(newly[-1])


def test_the_radius_is_the_largest_with_pure_balls():
    x = unit(arrays(300)['feature'])
    classes = np.random.default_rng(9).normal(size=8) @ x.T > 0
    radius = pure_radius(x, classes, 0.9)
    distance = np.sqrt(np.square(x[:, None] - x).sum(2))
    other = np.where(classes[:, None] != classes, distance, 9).min(1)

    def purity(delta):
        return np.mean(other >= delta)

    assert purity(radius * 0.99) >= 0.9 > purity(radius * 1.05)
    assert pure_radius(x, np.zeros(300)) == coverage_file.LARGEST


def test_the_ball_of_a_labelled_image_is_as_large_as_it_is_pure():
    angles = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    x = np.float32(np.stack([np.cos(angles), np.sin(angles)], 1))
    classes, known = np.array([1, 1, 0, 1, 0]), np.float32([[1, 0]])
    for purity, reached in ((0.95, 0.2), (0.75, 0.4), (0.7, 0.4), (0.6, 0.5)):
        radius = pure_radii(known, np.array([1]), x, classes, purity)
        assert radius == pytest.approx(2 * np.sin(reached / 2), rel=1e-3)
    assert pure_radii(known, np.array([0]), x, classes) == pytest.approx(1e-3)


def test_dcom_goes_from_coverage_to_margin():
    x = unit(arrays(100)['feature'])
    doubt, none = np.random.default_rng(0).uniform(size=100), np.zeros(100, bool)
    picks, gains = cover(x, x, none, 0.4, 5, doubt, 1e-9)
    assert_greedy(np.float64(x), none, 0.4, picks, gains)
    unsure, _ = cover(x, x, none, 0.4, 5, doubt, 1.0)
    assert unsure.tolist() == np.argsort(-doubt)[:5].tolist()
    shares = [DCoM().competence(share) for share in (0, 0.5, 0.8, 1)]
    assert shares == sorted(shares) and shares[0] < 1e-9 and shares[-1] == 1
    assert shares[2] == pytest.approx(0.5, abs=1e-3)


# DropQuery


def test_drop_query_picks_flipping_images_one_of_each_cluster():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 10)
    feature = np.float32(20 * np.eye(4)[groups] + rng.normal(size=(40, 4)) * 0.1)
    probability = np.float32(np.repeat([[0.9, 0.1]], 40, axis=0))
    passes = np.repeat(probability[:, None], 3, axis=1)
    flips = np.arange(40) % 10 < 6  # six images of each group
    passes[flips, :2] = [0.2, 0.8]
    passes[~flips, :1] = [0.2, 0.8]
    pool = outputs(
        [f'{i:02d}' for i in range(40)],
        dict(feature=feature, probability=probability, pass_probability=passes),
    )
    answer = select(DropQuery(), pool, NOTHING, 4)
    assert flips[answer.rows].all() and len(set(groups[answer.rows])) == 4
    for row in answer.rows:
        group = flips & (groups == groups[row])
        away = np.linalg.norm(feature - feature[group].mean(0), axis=1)
        assert row == np.where(group, away, np.inf).argmin()
    np.testing.assert_allclose(
        answer.columns['flip_share'], np.where(flips, 2 / 3, 1 / 3)
    )
    assert np.isnan(answer.columns['cluster'][~flips]).all()
    many = select(DropQuery(), pool, NOTHING, 30).rows
    assert flips[many[:24]].all() and not flips[many[24:]].any()


# Discriminator


def test_a_draw_by_the_discriminator_prefers_low_logits():
    pool = named(300)
    z = standardised(pool['logit'])
    answer = Discriminator(beta=3).select(pool, NOTHING, 30, 0)
    assert z[answer.rows].mean() < -0.5
    weight = np.exp(-3 * z)
    expected = weight / weight.sum()
    np.testing.assert_allclose(answer.columns['draw_probability'], expected, rtol=1e-5)
    assert set(answer.rows) != set(Discriminator().select(pool, NOTHING, 30, 0).rows)
    # Only the shape of the scores counts: a hair's breadth does as well.
    narrow = outputs(pool.image_ids, {'logit': np.float64(pool['logit']) * 1e-3})
    again = Discriminator(beta=3).select(narrow, NOTHING, 30, 0)
    assert again.rows.tolist() == answer.rows.tolist()


def test_the_logistic_head_is_at_the_minimum_of_its_loss():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    design = np.insert(rng.normal(size=(80, 3)), 0, 1, axis=1)
    sides = rng.random(80) < 0.2 + 0.5 * (design[:, 1] > 0)

    def loss(weight):
        logit = design @ weight
        losses = np.logaddexp(0, np.where(sides, -logit, logit))
        both = losses[sides].mean() + losses[~sides].mean()
        return both / 2 + 0.005 * weight @ weight

    expected = minimize(loss, np.zeros(4), tol=1e-10).x
    np.testing.assert_allclose(fit_logistic(design, sides), expected, atol=1e-3)


def test_refitting_spreads_the_batch():
    """Two kinds of new images: one round fills the batch with the farther kind."""
    rng = np.random.default_rng(0)
    directions = np.float32([[6, 0, 0], [0, 3, 0], [0, 0, 0]])
    kinds = np.repeat([0, 1, 2], [20, 20, 200])
    feature = directions[kinds] + np.float32(rng.normal(size=(240, 3)) * 0.3)
    pool = outputs([f'{i:03d}' for i in range(240)], {'feature': feature})
    known = outputs(
        [f'l{i:02d}' for i in range(30)],
        {'feature': np.float32(rng.normal(size=(30, 3)) * 0.3)},
    )
    at_once = kinds[select(DAL(rounds=1), pool, known, 12).rows]
    in_turn = kinds[select(DAL(rounds=12), pool, known, 12).rows]
    assert np.bincount(at_once, minlength=3).tolist() == [12, 0, 0]
    assert np.bincount(in_turn, minlength=3)[:2].min() >= 4
    with pytest.raises(InputError, match='rounds'):
        DAL(rounds=0)
    with pytest.raises(InputError, match='beta'):
        Discriminator(beta=-1)
