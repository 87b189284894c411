"""Measure what joint learning and pool scoring cost, as ratios in one run.

Every figure is a ratio of two sides timed in turn in one process, so that a slow
machine or a busy neighbour slows both. Nothing is loaded from disk but the config.

    python tools/benchmark.py train    # an update against plain mmdet SSD
    python tools/benchmark.py score    # scoring against a plain forward pass
    python tools/benchmark.py memory   # peak of an update against plain mmdet SSD
    python tools/benchmark.py stage    # what a stage costs beside the GPU's work
"""

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table

from tjls_mm import compat  # noqa: F401
from tjls_mm.models import fill_context_banks
from tjls_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
METHODS = {
    'plain': None,
    'jls': dict(bottleneck=None),
    'images': dict(bottleneck=dict(type='tjls_mm.BatchTransformer')),
    'channels': dict(
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='channels')
    ),
}


def device() -> str:
    """Where to measure."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def build(method: str, batch_size: int, size: str = 'ssd300') -> torch.nn.Module:
    """Plain mmdet SSD, or ours with a bottleneck, random weights."""
    name = {'ssd300': 'ssd300_voc', 'small': 'ssd_r18_160'}[size]
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / f'{name}.py').model
    if size == 'ssd300':
        cfg.backbone.init_cfg = None
    head = cfg.bbox_head
    if method == 'plain':
        head.type = 'SSDHead'
    else:
        head.update(METHODS[method], type='tjls_mm.JointSSDHead')
        head.discriminator = dict(type='tjls_mm.DiscriminatorHead')
        if method == 'channels':
            head.bottleneck = dict(head.bottleneck, batch_size=batch_size)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model.to(device())


def input_size(model) -> int:
    """Side of the images the model was built for, in pixels."""
    maps = {6: 300, 4: 160}
    return maps[len(model.bbox_head.cls_convs)]


def make_batch(model, batch_size: int, joint: bool) -> dict:
    """Random images; every image has two boxes, or the first half has if joint."""
    from mmdet.structures import DetDataSample

    side = input_size(model)
    rng = torch.Generator().manual_seed(0)
    samples = []
    for i in range(batch_size):
        is_labelled = not joint or i < batch_size // 2
        corner = torch.rand(2 if is_labelled else 0, 2, generator=rng) * side / 2
        sample = DetDataSample(
            metainfo=dict(
                img_id=str(i),
                img_shape=(side, side),
                ori_shape=(side, side),
                scale_factor=(1.0, 1.0),
                is_labelled=is_labelled,
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + side / 3], 1),
            labels=torch.zeros(len(corner), dtype=torch.long),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        samples.append(sample)
    images = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def synchronise() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turn(sides: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds per call of every side, called in turn after one warm-up round."""
    seconds = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, call in sides.items():
            synchronise()
            started = time.perf_counter()
            call()
            synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def print_ratios(title: str, seconds: dict, reference: str, images: int) -> dict:
    """Print medians and their ratios to a reference; return the ratios.

    A ratio is the median of the rounds' ratios: what slows the machine for a
    while slows both sides of a round.
    """
    table = Table(title=title)
    for column in ('', 'seconds (median)', 'images/s', f'ratio to {reference}'):
        table.add_column(column, justify='right')
    ratios = {}
    for name, values in seconds.items():
        pairs = zip(values, seconds[reference], strict=True)
        ratios[name] = statistics.median(a / b for a, b in pairs)
        median = statistics.median(values)
        table.add_row(
            name, f'{median:.3f}', f'{images / median:.1f}', f'{ratios[name]:.3f}'
        )
    Console(width=100).print(table)
    return ratios


def updates(methods, batch_size: int, size: str, amp: bool) -> dict:
    """A call per method that does one joint update."""
    sides = {}
    for method in methods:
        model = build(method, batch_size, size).train()
        batch = make_batch(model, batch_size, joint=method != 'plain')
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=5e-4)
        if amp:
            from mmengine.optim import AmpOptimWrapper

            wrapper = AmpOptimWrapper(optimizer=optimizer)
        else:
            wrapper = OptimWrapper(optimizer)
        wrapper.initialize_count_status(model, 0, 10**9)

        def call(model=model, batch=batch, wrapper=wrapper):
            model.train_step(batch, wrapper)

        sides[method] = call
    return sides


def bench_train(args) -> None:
    """One update of each method on as many images."""
    methods = args.methods or list(METHODS)
    sides = updates(['plain', *[m for m in methods if m != 'plain']], *_common(args))
    title = f'Update, {args.size}, batch {args.batch_size}, {device()}'
    print_ratios(title, in_turn(sides, args.rounds), 'plain', args.batch_size)


def _common(args) -> tuple:
    return args.batch_size, args.size, args.amp


@torch.no_grad()
def bench_score(args) -> None:
    """Scoring against backbone, neck and both convolutions of plain SSD's head."""
    sides = {}
    for method in args.methods or list(METHODS):
        model = build(method, args.batch_size, args.size)
        batch = make_batch(model, args.batch_size, joint=False)
        if method == 'plain':
            model.eval()

            def call(model=model, batch=batch):
                model(**model.data_preprocessor(batch, False), mode='tensor')
        else:
            bank = make_batch(model, args.batch_size - 1, joint=False)
            fill_context_banks(model, [bank])
            model.eval()

            def call(model=model, batch=batch):
                data = model.data_preprocessor(batch, False)
                feats = model.extract_feat(data['inputs'])
                model.bbox_head.pool_outputs(feats, ['logit'])

        sides[method] = call
    title = f'Scoring, {args.size}, batch {args.batch_size}, {device()}'
    print_ratios(title, in_turn(sides, args.rounds), 'plain', args.batch_size)


def bench_memory(args) -> None:
    """Peak memory of updates; on a CPU each method in a process of its own."""
    methods = args.methods or list(METHODS)
    peaks = {}
    for method in methods:
        command = [sys.executable, '-W', 'ignore', __file__, 'peak']
        command += ['--methods', method, '--batch-size', str(args.batch_size)]
        command += ['--size', args.size, *(['--amp'] if args.amp else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[method] = float(done.stdout.strip().splitlines()[-1])
    table = Table(title=f'Peak memory of an update, {args.size}, {device()}')
    for column in ('', 'MiB', 'ratio to plain'):
        table.add_column(column, justify='right')
    for method, peak in peaks.items():
        ratio = peak / peaks['plain'] if 'plain' in peaks else float('nan')
        table.add_row(method, f'{peak:.0f}', f'{ratio:.3f}')
    Console(width=100).print(table)


def bench_peak(args) -> None:
    """Print the peak of one method in MiB, above the process before the update."""
    (call,) = updates(args.methods, *_common(args)).values()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        call()
        call()
        print(torch.cuda.max_memory_allocated() / 2**20)
        return
    before = int(Path('/proc/self/statm').read_text().split()[1])
    before *= resource.getpagesize()
    call()
    call()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print((peak - before) / 2**20)


def bench_stage(args) -> None:
    """What stages cost beside training, evaluation and scoring, by pool size.

    Runs the demo's learner for two iterations a stage on pools that list the demo
    images under many names.
    """
    from tjls_mm.active.stages import run_stages

    table = Table(title='A stage beside training, evaluation and scoring')
    for column in ('images', 'seconds per stage'):
        table.add_column(column, justify='right')
    demo = ROOT / 'data' / 'demo' / 'VOCdemo'
    images = sorted((demo / 'JPEGImages').glob('*.jpg'))
    for count in (500, 16551):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / 'data' / 'VOCdemo'
            for sub in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
                (part / sub).mkdir(parents=True)
            rng = np.random.default_rng(0)
            names = []
            for i in range(count + 20):
                source = images[rng.integers(len(images))]
                names.append(f'{i:06d}')
                (part / 'JPEGImages' / f'{i:06d}.jpg').symlink_to(source)
                xml = demo / 'Annotations' / f'{source.stem}.xml'
                (part / 'Annotations' / f'{i:06d}.xml').symlink_to(xml)
            lists = part / 'ImageSets' / 'Main'
            (lists / 'trainval.txt').write_text('\n'.join(names[:count]) + '\n')
            (lists / 'test.txt').write_text('\n'.join(names[count:]) + '\n')
            cfg = Config.fromfile(ROOT / 'configs' / 'demo_random.py')
            cfg.work_dir = f'{folder}/work'
            cfg.data_source.data_root = f'{folder}/data'
            cfg.active_learning.update(
                initial=count // 16, budget=count // 16, stages=3
            )
            cfg.train_cfg = dict(type='tjls_mm.StageTrainLoop', max_iters=2)
            cfg.param_scheduler = []
            ends = []
            from tjls_mm.active.stages import Trial

            real = Trial._complete

            def complete(self, number, real=real, ends=ends):
                real(self, number)
                ends.append(time.perf_counter())

            Trial._complete = complete
            try:
                run_stages(cfg)
            finally:
                Trial._complete = real
            rests = []
            for number in (1, 2):
                path = Path(folder) / 'work' / f'stage_{number:02d}' / 'metrics.json'
                seconds = json.loads(path.read_text())['seconds']
                spent = sum(seconds.get(k, 0) for k in ('train', 'eval', 'score'))
                rests.append(ends[number] - ends[number - 1] - spent)
            table.add_row(str(count), f'{statistics.mean(rests):.2f}')
    Console(width=100).print(table)


def main() -> None:
    """Run one benchmark."""
    benchmarks = {
        'train': bench_train,
        'score': bench_score,
        'memory': bench_memory,
        'peak': bench_peak,
        'stage': bench_stage,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('benchmark', choices=benchmarks)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--size', choices=['ssd300', 'small'], default='ssd300')
    parser.add_argument('--methods', nargs='+', choices=list(METHODS))
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPU)')
    args = parser.parse_args()
    init_default_scope('mmdet')
    logging.disable(logging.INFO)  # MMEngine logs every initialised weight
    benchmarks[args.benchmark](args)


if __name__ == '__main__':
    main()
