"""Measure seconds and memory of the query strategies on made-up outputs.

    python tools/benchmark_query.py                          # all, 50,000 x 512
    python tools/benchmark_query.py CoreSet BADGE --images 10000 --budget 500
    python tools/benchmark_query.py --scalars 1000000        # rules of one number

Features are a mixture of Gaussians in as many dimensions as ``--rank``, in ``--groups``
groups, as those of a trained network are; ``--rank 0`` makes them white noise, the
worst case. Each rule runs in a process of its own, on one thread; its peak of memory is
that of the process, with the outputs. On a busy machine look at ``cpu_s``. CoreSet is
compared with the same rule on scikit-learn's ``pairwise_distances``.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np
from threadpoolctl import threadpool_limits

from tjls_mm.outputs import Outputs
from tjls_mm.query import QUERIES, check_selection
from tjls_mm.registry import build_own
from tjls_mm.report.stage_line import print_table

RULES = {
    'CoreSet': {},
    'BADGE': {},
    'BAIT': {},
    'MaxHerding': {},
    'UHerding': {},
    'TypiClust': {},
    'ProbCover': {},
    'DCoM': {},
    'TCM': dict(switch=10**9),
    'DropQuery': {},
    'DAL': {},
    'WithProbe': dict(query=dict(type='Margin')),
}
SCALAR_RULES = {
    'Entropy': {},
    'Margin': {},
    'LeastConfidence': {},
    'Discriminator': {},
}


def made_up(n_images: int, args: argparse.Namespace, seed: int) -> Outputs:
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    if args.rank:
        centres = shared.normal(size=(args.groups, args.rank)) * 2
        mixing = shared.normal(size=(args.rank, args.features)).astype(np.float32)
        places = centres[rng.integers(args.groups, size=n_images)]
        places = np.float32(places + rng.normal(size=places.shape))
        feature = np.maximum(places @ mixing / args.rank**0.5, 0)
    else:
        feature = rng.normal(size=(n_images, args.features)).astype(np.float32)
    logits = rng.normal(size=(n_images, args.classes)).astype(np.float32) * 2
    passes = rng.normal(size=(n_images, 3, args.classes)).astype(np.float32)
    passes += logits[:, None]
    kinds = (feature @ shared.normal(size=(args.features, args.classes))).argmax(1)
    ids = [f'train/{i:08d}.jpg' for i in range(n_images)]
    return Outputs.from_arrays(
        ids,
        dict(
            feature=feature,
            pretrained_feature=feature,
            label_count=np.eye(args.classes, dtype=np.int32)[kinds],
            probability=softmax(logits),
            pass_probability=softmax(passes),
            logit=rng.normal(size=n_images).astype(np.float32),
        ),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    weight = np.exp(logits)
    return weight / weight.sum(-1, keepdims=True)


def measure(name: str, args: argparse.Namespace, queue) -> None:
    pool = made_up(args.images, args, 0)
    labelled = made_up(args.labelled, args, 1)
    settings = {**RULES, **SCALAR_RULES}.get(name, {})
    rule = name != 'sklearn' and build_own(QUERIES, dict(type=name, **settings))
    started, used = time.perf_counter(), time.process_time()
    if rule:
        answer = rule.select(pool, labelled, args.budget, 0)
        check_selection(answer, args.images, args.budget, name)
    else:
        with threadpool_limits(1):
            farthest_by_sklearn(pool['feature'], labelled['feature'], args.budget)
    seconds = time.perf_counter() - started
    cpu = time.process_time() - used
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put(dict(rule=name, wall_s=seconds, cpu_s=cpu, peak_gib=round(gib, 2)))


def farthest_by_sklearn(x: np.ndarray, labelled: np.ndarray, budget: int) -> None:
    from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min

    left = pairwise_distances_argmin_min(x, labelled)[1]
    for _ in range(budget):
        pick = left.argmax()
        left = np.minimum(left, pairwise_distances(x, x[pick : pick + 1])[:, 0])
        left[pick] = -1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('rules', nargs='*', help='names of rules; all that are known')
    parser.add_argument('--images', type=int, default=50_000, help='of the pool')
    parser.add_argument('--features', type=int, default=512)
    parser.add_argument('--classes', type=int, default=10)
    parser.add_argument('--labelled', type=int, default=2_500, help='images')
    parser.add_argument('--budget', type=int, default=2_500)
    parser.add_argument('--rank', type=int, default=32, help='0: white noise')
    parser.add_argument('--groups', type=int, default=100, help='of features')
    parser.add_argument(
        '--scalars', type=int, help='only rules of a number, of so many images'
    )
    args = parser.parse_args()
    if args.scalars:
        args.images, args.features, args.rank = args.scalars, 1, 0
    default = SCALAR_RULES if args.scalars else [*RULES, 'sklearn']
    context = multiprocessing.get_context('spawn')
    rows = []
    for name in args.rules or default:
        queue = context.Queue()
        process = context.Process(target=measure, args=(name, args, queue))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f'{name} failed')
        rows.append(queue.get())
        print(rows[-1], flush=True)
    print_table('Query strategies', rows)
    seconds = {row['rule']: row['cpu_s'] for row in rows}
    if {'CoreSet', 'sklearn'} <= set(seconds):
        ratio = seconds['sklearn'] / seconds['CoreSet']
        print(f"CoreSet is {ratio:.1f} times as fast as on scikit-learn's distances")


if __name__ == '__main__':
    main()
