"""Batches are a pure function of seed, stage and number."""

import hashlib
import itertools
from collections import Counter
from types import SimpleNamespace

import pytest

from tjls_mm.datasets import JointBatchSampler

N_LABELLED, N_POOL = 10, 25


def make(batch_size=2, n_labelled=N_LABELLED, n_pool=N_POOL, rank=None, **kwargs):
    dataset = SimpleNamespace(n_labelled=n_labelled, n_pool=n_pool)
    sampler = JointBatchSampler(
        SimpleNamespace(dataset=dataset, seed=3), batch_size, **kwargs
    )
    if rank is not None:
        sampler.rank, sampler.world_size = rank
    return sampler


def first(sampler, n: int) -> list:
    return list(itertools.islice(sampler, n))


def indices(batches) -> list[int]:
    return [index for batch in batches for index, _ in batch]


@pytest.mark.parametrize(
    'arguments, batches, digest',
    [
        (
            dict(batch_size=4),
            '7 18 28 17 8 11 2 9 / 18 5 29 1 20 9 2 17',
            'd53860b47bb32d1a',
        ),
        (
            dict(batch_size=2, rank=(1, 2)),
            '17 2 9 11 / 17 2 18 5',
            '2a4f9d456e382129',
        ),
        (
            dict(batch_size=4, composition='pure'),
            '8 7 9 2 / 29 10 22 25',
            '74cde48da2dacc92',
        ),
        (
            dict(batch_size=4, redraw_pool=True, pool_ratio=1.5),
            '7 15 28 25 8 10 2 9 / 17 5 34 1 19 9 2 18',
            'a2434c3cfb2f300d',
        ),
    ],
)
def test_batches_are_those_of_published_trials(arguments, batches, digest):
    # Trials are continued and repeated by seed: batches stay the same for ever.
    sampler = make(seed=1, stage=2, **arguments)
    for number, expected in zip((0, 3), batches.split(' / '), strict=True):
        assert indices([sampler.batch(number)]) == list(map(int, expected.split()))
    text = repr([sampler.batch(number) for number in range(40)])
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize('composition', ['mixed', 'pure', 'plain'])
def test_which_images_make_a_batch_depends_on_seed_stage_and_pass(composition):
    options = (
        dict(n_pool=0) if composition == 'plain' else dict(composition=composition)
    )

    def sets(n_batches, **arguments):
        batches = first(make(batch_size=5, **options, **arguments), n_batches)
        return [frozenset(i for i in indices([b]) if i < N_LABELLED) for b in batches]

    # Passes over the labelled images of two batches each, 4 where kinds take turns.
    per_pass = 4 if composition == 'pure' else 2
    one = sets(10 * per_pass, seed=1, stage=2)
    assert sets(10 * per_pass, seed=2, stage=2) != one
    assert sets(10 * per_pass, seed=1, stage=3) != one
    passes = {tuple(one[i : i + per_pass]) for i in range(0, len(one), per_pass)}
    assert len(passes) > 5, 'every pass has an order of its own'


def test_order_of_the_pool_depends_on_seed_stage_and_pass():
    def pool(n_batches, **arguments):
        # All 20 pool images fit: the subset tells nothing.
        sampler = make(5, n_pool=20, pool_ratio=9, **arguments)
        return [
            frozenset(i for i in indices([b]) if i >= N_LABELLED)
            for b in first(sampler, n_batches)
        ]

    one = pool(8, seed=1, stage=2)
    assert set.union(*map(set, one[:4])) == set(range(10, 30)), 'one pass'
    assert one[:4] != one[4:]
    assert pool(8, seed=2, stage=2) != one != pool(8, seed=1, stage=3)


def test_same_arguments_same_batches_whatever_came_before():
    whole = first(make(seed=1, stage=2), 12)
    later = make(seed=1, stage=2)
    later.start_at(5)
    assert first(later, 7) == whole[5:]
    assert first(make(seed=2, stage=2), 12) != whole
    assert first(make(seed=1, stage=3), 12) != whole


@pytest.mark.parametrize('n_labelled_per_batch', [1, 3])
def test_odd_sizes_are_half_and_half_too(n_labelled_per_batch):
    for batch in first(make(batch_size=n_labelled_per_batch), 9):
        kinds = Counter(i < N_LABELLED for i, _ in batch)
        assert kinds == {True: n_labelled_per_batch, False: n_labelled_per_batch}


def test_mixed_batches_are_half_and_half_in_changing_order():
    batches = first(make(batch_size=4), 40)
    layouts = {tuple(i < N_LABELLED for i, _ in batch) for batch in batches}
    assert all(sum(layout) == 4 for layout in layouts)
    assert len(layouts) > 15, 'membership must not follow from the slot'


def test_every_labelled_image_is_seen_equally_often():
    # 4 passes over 10 labelled images with 2 in each batch, some spanning passes.
    seen = Counter(i for i in indices(first(make(), 20)) if i < N_LABELLED)
    assert set(seen.values()) == {4} and len(seen) == N_LABELLED


def test_pool_subset_is_as_large_as_asked_and_fixed():
    seen = {i for i in indices(first(make(pool_ratio=1.5), 100)) if i >= N_LABELLED}
    assert len(seen) == 15
    everything = {i for i in indices(first(make(pool_ratio=9), 100)) if i >= N_LABELLED}
    assert len(everything) == N_POOL
    redrawn = first(make(redraw_pool=True), 100)
    assert len({i for i in indices(redrawn) if i >= N_LABELLED}) > 15


@pytest.mark.parametrize('composition', ['mixed', 'pure'])
@pytest.mark.parametrize('redraw', [False, True])
@pytest.mark.parametrize('n_batches', [1, 4, 7, 60])
def test_pool_images_seen_is_what_the_batches_hold(composition, redraw, n_batches):
    sampler = make(composition=composition, redraw_pool=redraw)
    held = {
        i - N_LABELLED
        for number in range(n_batches)
        for i, _ in sampler.batch(number)
        if i >= N_LABELLED
    }
    assert sampler.pool_images_seen(n_batches) == held


def test_pure_batches_take_turns():
    kinds = [
        {i < N_LABELLED for i, _ in batch}
        for batch in first(make(composition='pure'), 6)
    ]
    assert kinds == [{True}, {False}] * 3


@pytest.mark.parametrize('counts', [1, 3])
def test_alternating_updates_serve_every_batch_twice(counts):
    sampler = make(update='alternate', accumulative_counts=counts)
    batches = first(sampler, 4 * counts)
    assert batches[:counts] == batches[counts : 2 * counts]
    assert batches[0] != batches[2 * counts]
    sampler.start_at(0, unique=True)
    unique = first(sampler, 2 * counts)
    assert unique == batches[:counts] + batches[2 * counts : 3 * counts]


def test_without_pool_batches_are_plain():
    sampler = make(4, n_pool=0, update='alternate')
    assert first(sampler, 5)[0] != first(sampler, 5)[1]
    seen = Counter(indices(first(sampler, 5)))
    assert set(seen.values()) == {2} and len(seen) == N_LABELLED


@pytest.mark.parametrize('composition', ['mixed', 'pure'])
def test_processes_together_see_the_batch_of_one(composition):
    whole = first(make(batch_size=8, composition=composition), 12)
    parts = [
        first(make(batch_size=4, composition=composition, rank=(r, 2)), 12)
        for r in range(2)
    ]
    for one, a, b in zip(whole, *parts, strict=True):
        assert sorted(one) == sorted(a + b), 'images and seeds of their transforms'


def test_seeds_of_transforms_differ():
    seeds = [seed for batch in first(make(), 50) for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(composition='half'), "'mixed' or 'pure'"),
        (dict(update='both'), "'joint' or 'alternate'"),
        (dict(pool_ratio=0), 'must be positive'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_length_is_one_pass_over_the_labelled():
    assert len(make()) == 5 and len(make(4, n_pool=0)) == 3
    assert len(make(composition='pure')) == 5
