"""Batches are a pure function of seed, stage and number."""

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest

from tjls_mm.datasets import JointBatchSampler

N_LABELLED, N_POOL = 10, 25


def make(batch_size=4, n_labelled=N_LABELLED, n_pool=N_POOL, rank=None, **kwargs):
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


def test_same_arguments_same_batches_whatever_came_before():
    whole = first(make(seed=1, stage=2), 12)
    later = make(seed=1, stage=2)
    later.start_at(5)
    assert first(later, 7) == whole[5:]
    assert first(make(seed=2, stage=2), 12) != whole
    assert first(make(seed=1, stage=3), 12) != whole


def test_mixed_batches_are_half_and_half_in_changing_order():
    batches = first(make(batch_size=8), 40)
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
    sampler = make(n_pool=0, update='alternate')
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
        (dict(batch_size=5), 'must be even, got 5'),
        (dict(composition='half'), "'mixed' or 'pure'"),
        (dict(update='both'), "'joint' or 'alternate'"),
        (dict(pool_ratio=0), 'must be positive'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_length_is_one_pass_over_the_labelled():
    assert len(make()) == 5 and len(make(n_pool=0)) == 3
