"""Query strategies that read boxes, and compositions of parts."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from tjls_mm.errors import InputError
from tjls_mm.outputs import Boxes, Outputs
from tjls_mm.outputs.vocabulary import BOX_FIELDS
from tjls_mm.query import (
    PPAL,
    QUERIES,
    BoxCount,
    ClaSP,
    ClassBalanced,
    Composition,
    FlipConsistency,
    ForegroundRandom,
    Needs,
    ObjectHerding,
    WithControl,
    check_selection,
)
from tjls_mm.query.box_scores import (
    KINDS,
    box_scores,
    by_class,
    cut_at_boxes,
    detections,
    expected_boxes,
    image_scores,
)
from tjls_mm.query.centres import k_center, plus_plus
from tjls_mm.query.clasp import stratified_order
from tjls_mm.query.class_balanced import balanced_order
from tjls_mm.query.diversity import cover, share_out
from tjls_mm.query.flip_consistency import flip_inconsistency, js_divergence, overlaps
from tjls_mm.query.parts import BoxScore
from tjls_mm.query.ppal import (
    class_quality,
    difficulty_weights,
    image_distances,
    k_medoids,
    nearest_distances,
    read_objects,
)
from tjls_mm.registry import build_own

K = 4
NOTHING = Outputs.from_arrays([], {})


def make_boxes(counts, classes=K, seed=0) -> Boxes:
    """Boxes of random places, scores from 0.05 up and sigmoids."""
    rng = np.random.default_rng(seed)
    offsets = np.append(0, np.cumsum(np.asarray(counts, int)))
    total = offsets[-1]
    corner = rng.uniform(0, 60, (total, 2))
    probability = rng.uniform(0.01, 0.9, (total, classes)).astype(np.float32)
    score = rng.uniform(0.06, 0.99, total).astype(np.float32)
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        score[start:stop] = -np.sort(-score[start:stop])
    return Boxes(
        offsets,
        np.float32(np.hstack([corner, corner + rng.uniform(5, 40, (total, 2))])),
        score,
        probability.argmax(1).astype(np.int32),
        probability,
        prior=np.arange(total, dtype=np.int32),
    )


def joined(parts: list[Boxes]) -> Boxes:
    """Boxes of all images of the parts, one part after another."""
    names = ('xyxy', 'score', 'label', 'probability')
    fields = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
    counts = np.concatenate([part.count for part in parts])
    prior = np.arange(counts.sum(), dtype=np.int32)
    return Boxes(np.append(0, np.cumsum(counts)), **fields, prior=prior)


def images(boxes: Boxes, order) -> Boxes:
    """Boxes of some images, in another order."""
    rows = [np.arange(boxes.offsets[i], boxes.offsets[i + 1]) for i in order]
    rows = np.concatenate([np.zeros(0, np.int64), *rows])
    names = ('xyxy', 'score', 'label', 'probability', 'prior')
    fields = {name: getattr(boxes, name)[rows] for name in names}
    return Boxes(np.append(0, np.cumsum(boxes.count[list(order)])), **fields)


def features(boxes: Boxes) -> np.ndarray:
    """One vector per box, a function of its content."""
    mix = np.random.default_rng(5).normal(size=(4 + boxes.probability.shape[1], 6))
    content = np.hstack([boxes.xyxy / 50, boxes.probability])
    return np.abs(content @ mix).astype(np.float16)


def image_features(boxes: Boxes) -> np.ndarray:
    """One vector per image, a function of its boxes."""
    return boxes.reduce(features(boxes).astype(np.float32), 'mean')


def make_pool(boxes: Boxes, ids=None, flipped: Boxes | None = None) -> Outputs:
    ids = ids or [f'{i:03d}' for i in range(len(boxes))]
    if flipped is None:
        shift = np.float32([1.5, -1, 0.5, 1])
        flipped = replace(boxes, xyxy=boxes.xyxy + shift)
    logit = boxes.reduce(boxes.score, 'sum')
    arrays = {'boxes': boxes, 'flip_boxes': flipped, 'box_feature': features(boxes)}
    arrays |= {'logit': logit, 'pretrained_feature': image_features(boxes)}
    image = np.stack([logit, boxes.reduce(boxes.xyxy[:, 0], 'mean')], 1)
    return Outputs.from_arrays(ids, arrays | {'feature': image})


def make_labelled(boxes: Boxes, counts=None) -> Outputs:
    ids = [f'x{i:03d}' for i in range(len(boxes))]
    if counts is None:
        counts = by_class(boxes, boxes.score).round()
    arrays = {'boxes': boxes, 'box_feature': features(boxes)}
    arrays['pretrained_feature'] = image_features(boxes)
    image = np.stack([boxes.reduce(boxes.score, 'sum')] * 2, 1)
    counts = np.int32(counts)
    return Outputs.from_arrays(ids, arrays | {'label_count': counts, 'feature': image})


def select(rule, pool: Outputs, budget: int, labelled=NOTHING, seed=0):
    answer = rule.select(pool, labelled, budget, seed)
    return check_selection(answer, len(pool.image_ids), budget, 'x')


RULES = {
    'foreground': dict(type='ForegroundRandom'),
    'count': dict(type='BoxCount'),
    'class_balanced': dict(type='ClassBalanced'),
    'class_balanced_all': dict(
        type='ClassBalanced',
        score='entropy',
        power=0.5,
        gamma=0.5,
        control=0.2,
        cost='boxes',
        noise=4,
    ),
    'entropy': dict(type='Composition', score=dict(type='BoxScore', kind='entropy')),
    'k_center': dict(
        type='Composition',
        score=dict(type='BoxScore', over='mean'),
        diversity=dict(type='KCenter'),
        control=0.1,
    ),
    'k_center_within': dict(
        type='Composition',
        score=dict(type='BoxScore', over='mean'),
        balance=dict(type='ClassBalance'),
        diversity=dict(type='KCenter', within='class'),
    ),
    'with_control': dict(type='WithControl', query=dict(type='BoxCount'), control=0.3),
    'k_means': dict(
        type='Composition',
        score=dict(type='ExpectedBoxes'),
        diversity=dict(type='KMeansPlusPlus'),
    ),
    'herding_within': dict(
        type='Composition',
        score=dict(type='FlipScore'),
        diversity=dict(type='Herding', within='cluster', clusters=3),
    ),
    'clasp': dict(type='ClaSP'),
    'ppal': dict(type='PPAL'),
    'ppal_greedy': dict(type='PPAL', iterations=0, quality=0.5),
    'herding': dict(type='ObjectHerding'),
    'herding_all': dict(type='ObjectHerding', cost='boxes', reference=4, control=0.2),
    'flip': dict(type='FlipConsistency'),
    'auto': dict(type='Auto', task='detection'),
    'auto_control': dict(type='Auto', task='detection', control=0.3),
    'probe': dict(
        type='Composition',
        score=dict(type='ProbeScore'),
        balance=dict(type='ClassBalance'),
    ),
    'probe_product': dict(
        type='Composition',
        score=dict(
            type='Product', scores=[dict(type='BoxScore'), dict(type='ProbeScore')]
        ),
        balance=dict(type='ClassBalance'),
        cost='boxes',
    ),
    'probe_sum': dict(
        type='Composition',
        score=dict(
            type='Sum',
            scores=[
                dict(type='BoxScore'),
                dict(type='ProbeScore', kind='score_entropy', strength=0.1),
            ],
        ),
        balance=dict(type='ClassBalance'),
    ),
}
SAMPLED = {
    'foreground',
    'class_balanced_all',
    'k_center',
    'k_means',
    'herding_within',
    'clasp',
    'herding_all',
    'with_control',
    'auto_control',
}
"""Rules that draw: picks depend on which image has which place in the pool."""
DIVERSE = {
    'k_center': dict(control=0.0, shortlist=6),
    'k_means': dict(shortlist=6),
    'ppal': dict(shortlist=6),
    'ppal_greedy': dict(shortlist=6),
    'herding': dict(),
}
"""Rules that do not pick two copies while other scenes on their list have none."""


def rule_of(name: str):
    return build_own(QUERIES, RULES[name])


CASES = {
    'usual': ([3, 0, 5, 1, 2, 0, 7, 4, 2, 1, 3, 6], 5),
    'the whole pool': ([3, 0, 5, 1], 4),
    'no detections': ([0] * 9, 4),
    'one image': ([3], 1),
    'one box in all': ([0, 0, 1, 0, 0], 3),
}


@pytest.mark.parametrize('name', RULES)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('labelled', ['some', 'without boxes', 'none'])
def test_the_budget_is_kept_whatever_the_pool(name, case, labelled):
    counts, budget = CASES[case]
    pool = make_pool(make_boxes(counts))
    given = {
        'some': make_labelled(make_boxes([2, 0, 3], seed=1)),
        'without boxes': make_labelled(make_boxes([0, 0])),
        'none': make_labelled(make_boxes([])),
    }[labelled]
    answer = select(rule_of(name), pool, budget, given)
    again = select(rule_of(name), pool, budget, given)
    np.testing.assert_array_equal(answer.rows, again.rows)
    if not answer.columns.get('fallback', np.zeros(1)).all():
        assert np.isfinite(answer.columns['score']).all()


@pytest.mark.parametrize('name', RULES)
def test_one_class(name):
    pool = make_pool(make_boxes([3, 0, 5, 1, 2, 0, 7, 4], classes=1))
    labelled = make_labelled(make_boxes([2, 3], classes=1, seed=1))
    select(rule_of(name), pool, 4, labelled)


@pytest.mark.parametrize('name', RULES)
def test_budgets_that_do_not_fit_are_refused(name):
    pool = make_pool(make_boxes([3, 0, 5]))
    labelled = make_labelled(make_boxes([2]))
    for budget in (0, 4):
        with pytest.raises(ValueError, match='budget must be 1 to 3'):
            rule_of(name).select(pool, labelled, budget, 0)


@pytest.mark.parametrize('name', sorted(set(RULES) - SAMPLED))
def test_names_of_images_decide_nothing_that_is_no_tie(name):
    boxes = make_boxes([3, 4, 5, 1, 2, 6, 7, 4, 2, 1])
    labelled = make_labelled(make_boxes([2, 0, 3], seed=1))
    before = select(rule_of(name), make_pool(boxes), 6, labelled).rows
    order = np.random.default_rng(0).permutation(10)
    after = select(rule_of(name), make_pool(images(boxes, order)), 6, labelled).rows
    assert order[after].tolist() == before.tolist()


@pytest.mark.parametrize('name', RULES)
def test_equals_are_ordered_by_the_seed(name):
    boxes = joined([make_boxes([3])] * 30)
    ids = [f'{"abc"[i // 10]}/{i}' for i in range(30)]
    pool, labelled = make_pool(boxes, ids), make_labelled(make_boxes([2]))
    one, two = (select(rule_of(name), pool, 9, labelled, seed).rows for seed in (1, 2))
    assert set(one) != set(two)
    assert {ids[row][0] for row in one} == {'a', 'b', 'c'}


@pytest.mark.parametrize('name', sorted(DIVERSE))
def test_diverse_rules_see_all_scenes_before_a_copy(name):
    config = RULES[name] | DIVERSE[name]
    scenes = make_boxes([3, 4, 2, 5, 3], seed=3)
    pool = make_pool(joined([scenes] * 6))
    rows = select(build_own(QUERIES, config), pool, 5, make_labelled(make_boxes([])))
    assert set(rows.rows % 5) == set(range(5))


@pytest.mark.parametrize('name', ['count', 'entropy', 'flip'])
def test_rules_that_sort_do_pick_copies(name):
    pool = make_pool(joined([make_boxes([3, 4, 2, 5, 3], seed=3)] * 6))
    rows = select(rule_of(name), pool, 6).rows
    assert len(set(rows % 5)) == 1


def test_each_kind_is_its_definition():
    def bits(*probabilities):
        return -sum(p * math.log(p) for p in probabilities)

    boxes = replace(
        make_boxes([2], classes=3),
        probability=np.float32([[0.5, 0.2, 0.1], [0.05, 0.1, 0.3]]),
        score=np.float32([0.4, 0.3]),
    )
    expected = {
        'entropy': bits(0.5, 0.5, 0.2, 0.8, 0.1, 0.9),
        'softmax_entropy': bits(0.5, 0.2, 0.1, 0.2),
        'score_entropy': bits(0.4, 0.6),
        'margin': 1 - (0.5 - 0.2),
        'least_confidence': 0.5,
        'score': 0.4,
    }
    assert set(expected) == set(KINDS)
    for kind, value in expected.items():
        assert box_scores(boxes, kind)[0] == pytest.approx(value, rel=1e-6)
    one = replace(boxes, probability=np.float32([[0.3], [0.9]]))
    np.testing.assert_allclose(box_scores(one, 'margin'), [0.6, 0.2], rtol=1e-6)
    certain = replace(boxes, probability=np.eye(3, dtype=np.float32)[:2])
    for kind in ('entropy', 'softmax_entropy', 'margin', 'least_confidence'):
        assert (box_scores(certain, kind) == 0).all()
    with pytest.raises(InputError, match="write kind='entropy'"):
        sigmoids = replace(boxes, probability=np.float32([[0.9, 0.9, 0.1]] * 2))
        box_scores(sigmoids, 'softmax_entropy')
    with pytest.raises(InputError, match='kind must be one of'):
        box_scores(boxes, 'bald')


def test_a_prior_counts_once_and_low_scores_and_long_tails_do_not():
    boxes = replace(
        make_boxes([4, 0, 2]),
        score=np.float32([0.9, 0.8, 0.7, 0.04, 0.6, 0.05]),
        prior=np.int32([5, 5, 2, 1, 5, 0]),
    )
    assert detections(boxes).feature.tolist() == [0, 2, 4, 5]
    assert detections(boxes).count.tolist() == [2, 0, 2]
    assert detections(boxes, max_boxes=1).feature.tolist() == [0, 4]
    assert detections(boxes, min_score=0.65).count.tolist() == [2, 0, 0]


class OfVectors(BoxScore):
    """As its base, but it may read class vectors."""

    def values(self, boxes, labelled):
        assert boxes.probability.shape == (len(boxes.score), K)
        return super().values(boxes, labelled)


def peak(call, *arguments) -> int:
    """Most bytes that a call holds at once."""
    tracemalloc.start()
    try:
        call(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('kind', ['score', 'score_entropy'])
def test_of_class_vectors_only_their_number_is_read(kind):
    boxes = make_boxes(np.random.default_rng(1).integers(0, 9, 50))
    boxes = replace(boxes, prior=boxes.prior // 2)
    pool = make_pool(boxes)
    for settings in (dict(gamma=0.5), dict(over='max'), dict(max_boxes=3)):
        part, whole = (c(kind, **settings) for c in (BoxScore, OfVectors))
        found, expected = (score(pool, NOTHING) for score in (part, whole))
        for name in ('image', 'by_class', 'expected', 'boxes'):
            a, b = getattr(found, name), getattr(expected, name)
            np.testing.assert_array_equal(a, b, strict=True)
    wide = make_boxes([40] * 100, classes=300)
    pool = Outputs.from_arrays([f'{i:03d}' for i in range(100)], {'boxes': wide})
    assert peak(BoxScore(kind), pool, NOTHING) < wide.probability.nbytes / 2


def test_images_are_sums_means_or_the_most_of_their_boxes():
    boxes = make_boxes([3, 0, 2])
    h = box_scores(boxes, 'score_entropy')
    for how, three, two in (
        (dict(over='sum'), h[:3].sum(), h[3:].sum()),
        (dict(over='sum', gamma=0.5), h[:3].sum() / 3**0.5, h[3:].sum() / 2**0.5),
        (dict(over='mean'), h[:3].mean(), h[3:].mean()),
        (dict(over='max'), h[:3].max(), h[3:].max()),
    ):
        scores = image_scores(boxes, 'score_entropy', **how)
        np.testing.assert_allclose(scores, [three, 0, two])
    sums = by_class(boxes, h)
    assert sums.shape == (3, K)
    assert sums[2, 1] == pytest.approx(h[3:][boxes.label[3:] == 1].sum())
    assert expected_boxes(boxes)[0] == pytest.approx(boxes.score[:3].sum())


def test_a_ranking_is_cut_at_expected_boxes():
    rows, expected = np.array([2, 0, 1]), np.array([3.0, 2.0, 4.0])
    for limit, length in ((9, 3), (8.9, 2), (7, 2), (4, 1), (1, 1)):
        assert cut_at_boxes(rows, expected, limit).tolist() == [2, 0, 1][:length]


def test_count_is_the_most_expected_boxes():
    boxes = make_boxes([3, 0, 5, 1, 2])
    answer = select(BoxCount(), make_pool(boxes), 5)
    count = np.array([boxes[i].score.sum() for i in range(5)])
    assert answer.rows.tolist() == np.argsort(-count).tolist()
    np.testing.assert_allclose(answer.columns['expected_boxes'], count, rtol=1e-6)


def test_foreground_is_drawn_as_often_as_it_says():
    boxes = make_boxes([9, 0, 3, 1, 20])
    pool = make_pool(boxes)
    weight = np.sqrt(1 + boxes.reduce(boxes.score, 'sum'))
    answers = [select(ForegroundRandom(), pool, 2, seed=seed) for seed in range(600)]
    chance = weight / weight.sum()
    np.testing.assert_allclose(answers[0].columns['draw_probability'], chance, 1e-6)
    first = np.bincount([a.rows[0] for a in answers], minlength=5) / 600
    np.testing.assert_allclose(first, chance, atol=0.06)
    # Of the second draw: proportional to what is left.
    second = np.bincount([a.rows[1] for a in answers], minlength=5) / 600
    left = chance / (1 - chance)
    np.testing.assert_allclose(second, chance * (left.sum() - left), atol=0.06)


def test_class_balance_is_its_definition():
    boxes, budget = make_boxes([3, 0, 5, 1, 2, 6, 4, 2]), 6
    counts = [[3, 0, 1, 0], [2, 0, 0, 0]]
    labelled = make_labelled(make_boxes([1, 1]), counts)
    for settings, power, gamma in (
        (dict(), 1, 0),
        (dict(power=0.5, gamma=0.5), 0.5, 0.5),
        (dict(score='score', cost='boxes', base_cost=2.0), 1, 0),
        (dict(class_weights=[1, 2, 0, 5]), 1, 0),
    ):
        class_weights = settings.get('class_weights', [1] * K)
        have, left, picks, classes = np.sum(counts, 0) + 0.0, list(range(8)), [], []

        def terms(
            i, have=have, settings=settings, gamma=gamma, power=power, cw=class_weights
        ):
            e = np.zeros(K)
            for score, label in zip(boxes[i].score, boxes[i].label, strict=True):
                h = -score * math.log(score) - (1 - score) * math.log(1 - score)
                e[label] += score if 'score' in settings else h
            cost = 2 + boxes[i].score.sum() if 'cost' in settings else 1
            n = max(1, len(boxes[i].score))
            return e * cw / n**gamma / cost / (have + 1) ** power

        value = [terms(i).sum() for i in range(8)]
        for _ in range(budget):
            best = max(left, key=lambda i: terms(i).sum())
            picks.append(best)
            classes.append(terms(best).argmax())
            left.remove(best)
            for score, label in zip(boxes[best].score, boxes[best].label, strict=True):
                have[label] += score
        answer = select(ClassBalanced(**settings), make_pool(boxes), budget, labelled)
        assert answer.rows.tolist() == picks
        assert answer.columns['class'][answer.rows].tolist() == classes
        assert np.isnan(answer.columns['class']).sum() == 2
        np.testing.assert_allclose(answer.columns['score'], value, rtol=1e-5)


def test_class_balance_of_a_classifier():
    p = np.float32([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
    pool = Outputs.from_arrays(list('abcd'), {'probability': p})
    counts = {'label_count': np.int32([[1, 0], [1, 0], [1, 0]])}
    labelled = Outputs.from_arrays(list('xyz'), counts)
    rule = ClassBalanced('probability')
    assert rule.needs == Needs(pool=('probability',), labelled=('label_count',))
    assert select(rule, pool, 1, labelled).rows.tolist() == [2]
    assert balanced_order(p, p, np.array([3, 0]), 4)[0].tolist() == [2, 3, 1, 0]
    answer = select(ClassBalanced('probability', score='margin'), pool, 1, labelled)
    assert answer.rows.tolist() == [3]
    with pytest.raises(InputError, match='label_count is of 3 classes'):
        wrong = {'label_count': np.zeros((1, 3), np.int32)}
        select(rule, pool, 1, Outputs.from_arrays(['x'], wrong))


@pytest.mark.parametrize('shape', [(1, 1), (7, 1), (2, 9), (300, 150)])
def test_the_balanced_order_is_that_of_whole_sums(shape):
    rng = np.random.default_rng(0)
    gain, adds, have = rng.random(shape), rng.random(shape), rng.random(shape[1])
    budget = min(20, shape[0])
    found = balanced_order(gain, adds, have, budget, 0.5)[0]
    # By image, so of the same numbers in another order of adding.
    expected = []
    for _ in range(budget):
        value = (gain / np.sqrt(have + 1)).sum(1)
        value[expected] = -1
        expected.append(int(value.argmax()))
        have = have + adds[expected[-1]]
    assert found.tolist() == expected
    order = rng.permutation(len(gain))
    moved = balanced_order(gain[order], adds[order], have, budget, 0.5)[0]
    again = balanced_order(gain, adds, have, budget, 0.5)[0]
    assert order[moved].tolist() == again.tolist()


def test_a_pick_among_many_classes_costs_no_copy_of_all():
    gain = np.random.default_rng(0).random((2_000, 400))
    order = (gain, gain, np.zeros(400), 3)
    assert peak(balanced_order, *order) < 1.2 * gain.nbytes  # one is kept by class


@pytest.mark.parametrize('weights', [[-1, 2], [np.nan, 1], [np.inf, 1], [], 2, ['a']])
def test_class_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match='class_weights must be numbers, finite'):
        ClassBalanced(class_weights=weights)


def test_class_weights_may_be_an_array():
    pool = make_pool(make_boxes([3, 0, 5, 1, 2]))
    labelled = make_labelled(make_boxes([1]))
    for weights in ([1.0, 2, 0, 5], [0.0] * K):
        a, b = (
            select(ClassBalanced(class_weights=w), pool, 4, labelled).rows
            for w in (weights, np.array(weights))
        )
        assert a.tolist() == b.tolist()


def test_copies_of_an_image_have_one_score_wherever_they_stand():
    scenes = make_boxes([3, 4, 2, 5, 3, 6, 7], classes=20)
    pool = make_pool(joined([scenes] * 9))
    for name in ('class_balanced', 'entropy'):
        labelled = make_labelled(make_boxes([1], classes=20))
        score = select(rule_of(name), pool, 1, labelled).columns['score']
        assert (score.reshape(9, 7) == score[:7]).all()


def test_a_control_share_is_uniform_and_comes_first():
    pool = make_pool(make_boxes([9, 0, 3, 1, 20]))
    picks = []
    for seed in range(400):
        rule = ClassBalanced(control=0.5)
        answer = select(rule, pool, 2, make_labelled(make_boxes([])), seed)
        assert np.flatnonzero(answer.columns['control']).tolist() == [answer.rows[0]]
        picks.append(answer.rows[0])
    np.testing.assert_allclose(np.bincount(picks) / 400, 0.2, atol=0.07)
    wrapped = select(WithControl(dict(type='BoxCount'), control=0.5), pool, 4)
    assert wrapped.columns['control'].sum() == 2
    ranked = select(BoxCount(), pool, 5).rows
    left = [row for row in ranked if row not in wrapped.rows[:2]]
    assert wrapped.rows[2:].tolist() == left[:2]


def test_noise_draws_in_proportion_to_a_power_of_the_score():
    pool = make_pool(make_boxes([4, 0, 3, 1, 2]))
    score = dict(type='BoxScore', kind='score')
    rule = Composition(score, noise=2)
    answers = [select(rule, pool, 1, seed=seed) for seed in range(600)]
    chance = answers[0].columns['score'] ** 2
    chance /= chance.sum()
    np.testing.assert_allclose(answers[0].columns['draw_probability'], chance, 1e-6)
    first = np.bincount([a.rows[0] for a in answers], minlength=5) / 600
    np.testing.assert_allclose(first, chance, atol=0.06)


def test_outputs_are_scores_by_their_rank():
    logit = np.float32([-3, 2, 5, 2])
    pool = Outputs.from_arrays(list('abcd'), {'logit': logit})
    lowest = dict(type='OutputScore', name='logit', highest=False)
    answer = select(Composition(lowest), pool, 2)
    assert answer.rows[0] == 0 and answer.rows[1] in (1, 3)
    np.testing.assert_allclose(answer.columns['score'], [1, 0.75, 0.25, 0.75])


def test_k_center_takes_the_farthest():
    x = np.array([0.0, 1, 2, 10, 11])
    picks, reach = k_center(lambda i: abs(x - x[i]), np.full(5, np.inf), 3)
    assert picks.tolist() == [0, 4, 2] and reach.tolist() == [np.inf, 11, 2]
    assert k_center(lambda i: abs(x - x[i]), abs(x - 11), 1)[0].tolist() == [0]
    assert share_out(np.array([5, 3, 2]), 5).tolist() == [3, 1, 1]


def test_plus_plus_draws_by_distance():
    x = np.array([0.0, 1, 3])

    def drawn(seed):
        rng = np.random.default_rng(seed)
        nearest = np.full(3, np.inf)
        return plus_plus(lambda i: (x - x[i]) ** 2, nearest, 3, rng)[0].tolist()

    picks = [drawn(seed) for seed in range(500)]
    assert {tuple(p) for p in picks} == {(0, 1, 2), (0, 2, 1)}
    assert np.mean([p[1] == 2 for p in picks]) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize('within', ['class', 'cluster'])
def test_diversity_within_groups_takes_of_each(within):
    labels = np.repeat([0, 1, 2], [6, 3, 3])
    boxes = replace(make_boxes([1] * 12), label=np.int32(labels))
    x = np.float32(np.eye(3)[labels] * 100)
    x += np.random.default_rng(0).random((12, 3))
    arrays = {'boxes': boxes, 'feature': x}
    pool = Outputs.from_arrays([f'{i:02d}' for i in range(12)], arrays)
    rule = Composition(
        score=dict(type='BoxScore'),
        balance=dict(type='ClassBalance'),
        diversity=dict(type='KCenter', within=within, clusters=3),
    )
    rows = select(rule, pool, 4).rows
    assert np.bincount(labels[rows]).tolist() == [2, 1, 1]


def test_control_images_count_as_labelled():
    """What is drawn for the control is neither picked again nor forgotten."""
    labels = np.int32([0] * 8 + [1] * 2)
    boxes = replace(make_boxes([1] * 10), label=labels, score=np.full(10, 0.9, 'f4'))
    pool, empty = make_pool(boxes), make_labelled(make_boxes([]))
    for seed in range(20):
        rule = ClassBalanced(control=0.5)
        control, pick = select(rule, pool, 2, empty, seed).rows
        assert labels[pick] != labels[control]


@pytest.mark.parametrize(
    'config, message',
    [
        (dict(score=dict(type='Mine')), "'Mine' is unknown. Known: "),
        (dict(score=dict(type='BoxScore', kind='bald')), 'kind must be one of'),
        (dict(score=dict(type='BoxScore', gamma=2)), 'gamma must be in'),
        (dict(score=dict(type='BoxScore', over='min')), 'over must be'),
        (dict(noise=0.01), 'noise must be at least 0.1'),
        (dict(control=1.5), 'control must be in'),
        (dict(cost='euros'), 'cost must be'),
        (dict(shortlist=0.5), 'shortlist must be'),
        (dict(balance=dict(type='ClassBalance', power=-1)), 'power must be'),
        (dict(balance=dict(type='ClassBalance', power=math.inf)), 'power must be'),
        (dict(balance=dict(type='ClassBalance', power=math.nan)), 'power must be'),
        (dict(diversity=dict(type='BoxHerding', power=-1)), 'power must be'),
        (dict(diversity=dict(type='BoxHerding', min_candidates=0)), 'min_candidates'),
        (dict(diversity=dict(type='BoxHerding', max_boxes=0)), 'max_boxes must be'),
        (dict(score=dict(type='BoxScore', max_boxes=0)), 'max_boxes must be'),
        (dict(diversity=dict(type='KCenter', within='box')), 'within must be'),
        (
            dict(diversity=dict(type='KCenter'), shortlist=None, noise=1),
            'noise needs a shortlist',
        ),
    ],
)
def test_wrong_parts_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        Composition(**{'score': dict(type='BoxScore'), **config})


def test_parts_that_do_not_fit_together_are_refused():
    pool = make_pool(make_boxes([3, 2]))
    labelled = make_labelled(make_boxes([1]))
    logit = dict(type='OutputScore', name='logit')
    for settings, message in (
        (dict(score=logit, balance=dict(type='ClassBalance')), 'no scores of classes'),
        (dict(score=logit, cost='boxes'), "cost='boxes' needs"),
    ):
        with pytest.raises(InputError, match=message):
            select(Composition(**settings), pool, 1, labelled)


def test_label_counts_are_of_labelled_images_only():
    assert ClassBalanced().needs == Needs(('boxes',), ('label_count',))
    with pytest.raises(InputError, match='known of labelled images only'):
        Needs(pool=('label_count',))


def test_classes_take_turns_and_leave_what_they_cannot_pick():
    by_class = np.array([[5, 1, 0], [4, 9, 0], [3, 0, 0], [2, 8, 0], [1, 7, 0.0]])
    image = np.array([1, 0, 9, 0, 5.0])
    for seed in range(4):
        rng = np.random.default_rng(seed)
        turns = [k for k in np.random.default_rng(seed).permutation(3) if k < 2]
        rows, classes = stratified_order(image, by_class, 5, 0.6, rng)
        expected = {0: [0, 1, 2], 1: [1, 3, 4]}
        taken = []
        for k in (turns * 2)[:3]:
            taken.append(next(row for row in expected[k] if row not in taken))
        assert rows[:3].tolist() == taken
        assert classes.tolist() == (turns * 2)[:3] + [-1, -1]
        left = [row for row in (2, 4, 0, 1, 3) if row not in taken]
        assert rows[3:].tolist() == left
    rows, classes = stratified_order(image, 0 * by_class, 2, 1.0, rng)
    assert rows.tolist() == [2, 4] and set(classes) == {-1}


def test_clasp_scores_classes_by_entropy_times_probability():
    boxes = make_boxes([3, 0, 2, 4, 1, 5])
    answer = select(ClaSP(beta=1e6), make_pool(boxes), 6)
    e = box_scores(boxes, 'entropy')
    s = np.zeros((6, K + 1))
    for image in range(6):
        for row in range(boxes.offsets[image], boxes.offsets[image + 1]):
            s[image, :K] += e[row] * boxes.probability[row]
            s[image, K] += e[row]
    s /= boxes.count.clip(1)[:, None] ** 0.5
    np.testing.assert_allclose(answer.columns['score'], s[:, K], rtol=1e-5)
    # Hardly any noise: each class takes its best of what is left.
    classes, left = answer.columns['class'], list(range(6))
    for place, row in enumerate(answer.rows):
        kind = int(classes[row]) if place < 4 else K
        assert row == max(left, key=lambda i, kind=kind: s[i, kind])
        left.remove(row)
    assert set(classes[answer.rows[:4]]) == set(range(K))
    draws = ClaSP(share=1.0, beta=1.0)
    answers = [select(draws, make_pool(boxes), 1, seed=i) for i in range(30)]
    for answer in answers:
        row = answer.rows[0]
        of_class = s[:, int(answer.columns['class'][row])]
        chance = of_class[row] / of_class.sum()
        assert answer.columns['draw_probability'][row] == pytest.approx(chance)


def objects_of(boxes: Boxes):
    outputs = Outputs.from_arrays(
        [f'{i:03d}' for i in range(len(boxes))],
        {'box_feature': features(boxes), 'boxes': boxes},
    )
    return read_objects(outputs, detections(boxes), range(len(boxes)))


def slow_distance(a, b) -> float:
    """Of two images with boxes and features, by loops."""
    ways = []
    for one, other in ((a, b), (b, a)):
        near = 0
        for x, label, score in zip(one.feature, one.label, one.score, strict=True):
            likeness = [
                x @ y / np.linalg.norm(x) / np.linalg.norm(y)
                for y, kind in zip(other.feature, other.label, strict=True)
                if kind == label
            ]
            near += score * (1 - max(likeness, default=-1))
        ways.append(near / one.score.sum() if len(one.score) else 2)
    return sum(ways) / 2 if len(a.score) + len(b.score) else 0


def test_distance_of_images_is_its_definition():
    boxes = make_boxes([3, 0, 5, 1, 2, 0, 4], seed=2)
    vectors = replace(boxes, feature=features(boxes).astype(np.float64))
    objects = objects_of(boxes)
    expected = [
        [slow_distance(vectors[i], vectors[j]) for j in range(7)] for i in range(7)
    ]
    distances = image_distances(objects, objects)
    np.testing.assert_allclose(distances, expected, atol=2e-5)
    assert (np.diag(distances) == 0).all()
    few = objects.of_images(np.array([2, 6]))
    np.testing.assert_array_equal(image_distances(few, objects), distances[[2, 6]])
    np.testing.assert_array_equal(
        nearest_distances(objects, few), distances[[2, 6]].min(0)
    )


def test_medoids_move_to_the_middle_and_leave_what_is_covered():
    objects = objects_of(make_boxes([2] * 30, seed=4))
    table = image_distances(objects, objects)
    begin, covered = np.array([3, 11, 20]), np.full(30, np.inf, np.float32)
    covered[[5, 6, 7]] = 0
    medoids = k_medoids(objects, begin, table[begin], covered, 1)
    owner = table[begin].argmin(0)
    owner[[5, 6, 7]] = -1
    for k in range(3):
        members = np.flatnonzero(owner == k)
        sums = table[np.ix_(members, members)].sum(0)
        assert sums[members == medoids[k]] == pytest.approx(sums.min(), abs=1e-3)
    settled = k_medoids(objects, begin, table[begin], covered, 50)
    again = k_medoids(objects, settled, table[settled], covered, 50)
    assert settled.tolist() == again.tolist()


def test_ppal_shortlists_hard_images_and_spreads_from_labelled_ones():
    weights = difficulty_weights(np.array([1.0, 0.0]), alpha=0.3)
    np.testing.assert_allclose(weights, [1, 2])
    boxes = make_boxes([3, 2, 4, 1, 5, 2, 3, 4, 2, 3])
    known = make_boxes([3, 2], seed=1)
    quality = class_quality(known)
    kind = known.label[0]
    of_kind = known.score[known.label == kind].mean()
    assert quality[kind] == pytest.approx(of_kind) and 0 in quality
    pool, labelled = make_pool(boxes), make_labelled(known)
    answer = select(PPAL(iterations=0, shortlist=2), pool, 3, labelled)
    hard = box_scores(boxes, 'entropy') * difficulty_weights(quality)[boxes.label]
    score = boxes.reduce(hard, 'sum')
    np.testing.assert_allclose(answer.columns['score'], score)
    listed = np.argsort(-score)[:6]
    objects, seeds = objects_of(boxes).of_images(listed), objects_of(known)
    table = image_distances(objects, objects)
    nearest = image_distances(seeds, objects).min(0)
    for row in answer.rows:
        place = nearest.argmax()
        assert row == listed[place]
        nearest = np.minimum(nearest, table[place])
        nearest[place] = -1
    with pytest.raises(InputError, match='quality has 3 numbers'):
        select(PPAL(quality=[0.5] * 3), pool, 3, labelled)
    with pytest.raises(InputError, match='quality must be in'):
        PPAL(quality=[0.5, 2])


def test_cover_is_greedy():
    rng = np.random.default_rng(0)
    best = rng.random((40, 15), np.float32)
    weight, coverage, cost = rng.random(15), rng.random(15) / 2, rng.uniform(1, 3, 40)
    picks, covered = [], coverage.copy()
    for _ in range(40):
        gain = (np.maximum(best - covered, 0) * weight).sum(1) / cost
        gain[picks] = -1
        picks.append(gain.argmax())
        covered = np.maximum(covered, best[picks[-1]])
    assert cover(best, weight, coverage, cost, 40)[:12].tolist() == picks[:12]


@pytest.mark.parametrize('cost', ['image', 'boxes'])
def test_herding_covers_the_boxes_of_the_pool(cost):
    boxes, known = make_boxes([3, 0, 5, 1, 2, 4], seed=6), make_boxes([2, 1], seed=7)
    labelled = make_labelled(known, [[4, 0, 0, 1], [2, 0, 1, 0]])
    rule = ObjectHerding(cost=cost)
    answer = select(rule, make_pool(boxes), 4, labelled)
    unit = [features(b).astype(np.float64) for b in (boxes, known)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in unit]
    weight = boxes.score / np.sqrt(np.array([7, 1, 2, 2])[boxes.label])
    coverage = (unit[0] @ unit[1].T).max(1)
    likeness, picks = unit[0] @ unit[0].T, []
    for _ in range(4):
        gains = np.full(6, -1.0)
        for i in set(range(6)) - set(picks):
            own = likeness[:, boxes.offsets[i] : boxes.offsets[i + 1]].max(1, initial=0)
            price = 1 + boxes[i].score.sum() if cost == 'boxes' else 1
            gains[i] = weight @ np.maximum(0, own - coverage) / price
        picks.append(int(gains.argmax()))
        i = picks[-1]
        own = likeness[:, boxes.offsets[i] : boxes.offsets[i + 1]].max(1, initial=0)
        coverage = np.maximum(coverage, own)
    assert answer.rows.tolist() == picks


def test_herding_does_not_pay_for_crowds():
    """Single boxes against a crowd of six, which covers most."""
    scenes = make_boxes([6] + [1] * 8, seed=6)
    pool, empty = make_pool(scenes), make_labelled(make_boxes([]))
    assert select(ObjectHerding(cost='image'), pool, 1, empty).rows.tolist() == [0]
    picks = select(ObjectHerding(), pool, 4, empty).rows
    assert 0 not in picks[:3]
    explicit = select(ObjectHerding(cost='boxes'), pool, 4, empty).rows
    assert explicit.tolist() == picks.tolist()


def test_flip_consistency_is_its_definition():
    boxes = make_boxes([3, 0, 2, 1, 4])
    flipped = make_boxes([2, 3, 4, 0, 3], seed=9)
    expected = []
    for i in (0, 2, 3, 4):
        least = 9
        for box, p in zip(boxes[i].xyxy, boxes[i].probability, strict=True):
            best, q = 0, np.zeros(K)
            for other, r in zip(flipped[i].xyxy, flipped[i].probability, strict=True):
                if (iou := overlaps(box[None], other[None])[0, 0]) > best:
                    best, q = iou, r
            agreement = best + (1 - js_divergence(p[None], q[None])[0]) / 2 * (
                p.max() + q.max()
            )
            least = min(least, abs(agreement - 1.3))
        expected.append(least)
    expected.insert(1, np.median(expected))
    values = flip_inconsistency(boxes, flipped)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    answer = select(FlipConsistency(), make_pool(boxes, flipped=flipped), 5)
    assert answer.rows.tolist() == np.argsort(values).tolist()
    assert 1 not in (answer.rows[0], answer.rows[-1])
    np.testing.assert_allclose(answer.columns['score'], 1.3 - values)


def test_overlap_and_divergence():
    a = np.float32([[0, 0, 10, 10], [5, 5, 5, 5]])
    b = np.float32([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(overlaps(a, b), [[1 / 3, 1, 0], [0, 0, 0]], rtol=1e-6)
    p = np.array([[0.2, 0.2], [0.5, 0.0], [0.3, 0.6]])
    q = np.array([[0.4, 0.4], [0.0, 0.1], [0.0, 0.0]])
    np.testing.assert_allclose(js_divergence(p, q), [0, np.log(2), np.log(2)])


@pytest.mark.parametrize('name', RULES)
def test_rules_read_files_and_change_nothing(name, tmp_path):
    """What is gathered is memory-mapped; its boxes carry their features."""
    parts = make_pool(make_boxes([3, 0, 5, 1, 2])), make_labelled(make_boxes([2, 1]))
    read = []
    for part, outputs in zip(('pool', 'labelled'), parts, strict=True):

        def mapped(label, array, part=part):
            np.save(tmp_path / f'{part}.{label}.npy', array)
            return np.load(tmp_path / f'{part}.{label}.npy', mmap_mode='r')

        arrays = {}
        for key, value in outputs.items():
            if isinstance(value, Boxes):
                fields = {
                    f: mapped(f'{key}.{f}', getattr(value, f)) for f in BOX_FIELDS
                }
                arrays[key] = replace(value, **fields)
            else:
                arrays[key] = mapped(key, value)
        arrays['boxes'] = replace(arrays['boxes'], feature=arrays['box_feature'])
        read.append(Outputs.from_arrays(outputs.image_ids, arrays))
    one, two = (
        select(rule_of(name), pool, 3, labelled) for pool, labelled in (parts, read)
    )
    assert one.rows.tolist() == two.rows.tolist()
