"""Measure what joint learning and pool scoring cost, as ratios in one run.

Every figure is a ratio of two sides timed in turn in one process, so that a slow
machine or a busy neighbour slows both. Nothing is loaded from disk but the config.

    python tools/benchmark.py train    # an update against plain mmdet or mmpretrain
    python tools/benchmark.py score    # scoring against a plain forward pass
    python tools/benchmark.py memory   # peak of an update against the plain learner
    python tools/benchmark.py stage    # what a stage costs beside the GPU's work
    python tools/benchmark.py data     # decoded data against mmpretrain's pipeline

--size names the learner, e.g. ssd300 or resnet18.
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
from tjls_mm.models import fill_context_banks, find_joint_learner
from tjls_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[1]
METHODS = {
    'plain': None,
    'jls': dict(bottleneck=None),
    'images': dict(bottleneck=dict(type='tjls_mm.BatchTransformer')),
    'channels': dict(
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='channels')
    ),
    'gcn': dict(bottleneck=dict(type='tjls_mm.BatchGCN')),
}
DETECTORS = {'ssd300': 'ssd300_voc', 'small': 'ssd_r18_160'}
CLASSIFIERS = {
    'vgg16': 'vgg16_cifar',
    'resnet18': 'resnet18_cifar',
    'wrn28': 'wrn28_cifar',
    'small-resnet18': 'resnet18_small',
}


def device() -> str:
    """Where to measure."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def build(method: str, batch_size: int, size: str = 'ssd300') -> torch.nn.Module:
    """The learner of mmdet or mmpretrain, or ours with a bottleneck, random weights."""
    name = {**DETECTORS, **CLASSIFIERS}[size]
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / f'{name}.py').model
    if size == 'ssd300':
        cfg.backbone.init_cfg = None
    is_classifier = size in CLASSIFIERS
    head = cfg.head if is_classifier else cfg.bbox_head
    if is_classifier:
        kind = 'ClsDataPreprocessor'
        kind = kind if method == 'plain' else f'tjls_mm.Joint{kind}'
        cfg.data_preprocessor = dict(type=kind, mean=[125.0] * 3, std=[51.0] * 3)
    if method == 'plain':
        head.type = 'LinearClsHead' if is_classifier else 'SSDHead'
    else:
        head.update(METHODS[method])
        head.type = f'tjls_mm.Joint{"Cls" if is_classifier else "SSD"}Head'
        hidden = (512,) if is_classifier else ()
        head.discriminator = dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=hidden
        )
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
    """Random images; all of them have labels, or the first half has if joint."""
    if not hasattr(model, 'bbox_head'):
        return make_classifier_batch(batch_size, joint)
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


def make_classifier_batch(batch_size: int, joint: bool) -> dict:
    """Random images of 32 x 32 pixels; the first half has labels if joint."""
    from mmpretrain.structures import DataSample

    samples = []
    for i in range(batch_size):
        is_labelled = not joint or i < batch_size // 2
        sample = DataSample(metainfo=dict(img_id=str(i), is_labelled=is_labelled))
        samples.append(sample.set_gt_label(i % 10) if is_labelled else sample)
    images = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8)
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
    methods = _methods(args)
    sides = updates(['plain', *[m for m in methods if m != 'plain']], *_common(args))
    title = f'Update, {args.size}, batch {args.batch_size}, {device()}'
    print_ratios(title, in_turn(sides, args.rounds), 'plain', args.batch_size)


def _methods(args) -> list[str]:
    """Those asked for, or all; the graph bottleneck belongs to classification."""
    skip = () if args.size in CLASSIFIERS else ('gcn',)
    return args.methods or [method for method in METHODS if method not in skip]


def _common(args) -> tuple:
    return args.batch_size, args.size, args.amp


@torch.no_grad()
def bench_score(args) -> None:
    """Scoring against the plain learner's forward pass, both branches of SSD's head."""
    sides = {}
    for method in _methods(args):
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
                find_joint_learner(model).pool_outputs(feats, ['logit'])

        sides[method] = call
    title = f'Scoring, {args.size}, batch {args.batch_size}, {device()}'
    print_ratios(title, in_turn(sides, args.rounds), 'plain', args.batch_size)


def bench_memory(args) -> None:
    """Peak memory of updates; on a CPU each method in a process of its own."""
    methods = _methods(args)
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


def bench_data(args) -> None:
    """Training from decoded data, augmented in batches, against mmpretrain's pipeline.

    Both sides train the plain learner on drawn 32 x 32 images that lie in memory, as
    CIFAR's do; a call is ``--updates`` updates, loading included.
    """
    from mmengine.dataset import pseudo_collate
    from mmpretrain.datasets import CIFAR10
    from torch.utils.data import DataLoader

    n_images = args.updates * args.batch_size
    pixels = np.random.default_rng(0).integers(
        0, 256, (n_images, 32, 32, 3), dtype=np.uint8
    )

    class DrawnImages(CIFAR10):
        """CIFAR10 without its files."""

        def load_data_list(self) -> list[dict]:
            return [
                {'img': image, 'gt_label': i % 10} for i, image in enumerate(pixels)
            ]

    normalise = dict(mean=[125.0] * 3, std=[51.0] * 3)
    theirs = DrawnImages(
        data_root='.',
        pipeline=[
            dict(type='RandomCrop', crop_size=32, padding=4),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    )
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        ours = _decoded_data(Path(folder), pixels)
        options = dict(collate_fn=pseudo_collate, num_workers=args.workers)
        rows = torch.randperm(n_images).tolist()
        batches = [rows[i :: args.updates] for i in range(args.updates)]
        seeded = [[(row, row) for row in batch] for batch in batches]
        workers = dict(persistent_workers=True) if args.workers else {}
        loaders = {
            'mmpretrain': (
                DataLoader(theirs, batch_sampler=batches, **options, **workers),
                dict(type='ClsDataPreprocessor', **normalise),
            ),
            'decoded once': (
                DataLoader(ours, batch_sampler=seeded, collate_fn=pseudo_collate),
                dict(
                    type='tjls_mm.JointClsDataPreprocessor',
                    augmentation=dict(
                        type='tjls_mm.BatchCropFlip', crop_size=32, padding=4
                    ),
                    **normalise,
                ),
            ),
        }
        for name, (loader, preprocessor) in loaders.items():
            (update,) = updates(['plain'], *_common(args)).values()
            model = update.__defaults__[0]
            model.data_preprocessor = MODELS.build(preprocessor).to(device())

            def call(loader=loader, update=update):
                for batch in loader:
                    update(batch=batch)

            sides[name] = call
        title = f'Training with its data, {args.size}, batch {args.batch_size}'
        seconds = in_turn(sides, args.rounds)
    print_ratios(f'{title}, {device()}', seconds, 'mmpretrain', n_images)


def _decoded_data(folder: Path, pixels: np.ndarray):
    """A JointDataset of decoded images, all labelled."""
    import cv2

    from tjls_mm.image_ids import write_image_ids

    classes = [str(i) for i in range(10)]
    for name in classes:
        (folder / 'train' / name).mkdir(parents=True)
    ids = [f'train/{i % 10}/{i:06d}.png' for i in range(len(pixels))]
    for image_id, image in zip(ids, pixels, strict=True):
        cv2.imwrite(str(folder / image_id), image)
    write_image_ids(folder / 'list.txt', ids)
    source = dict(
        type='tjls_mm.ImageFolders',
        data_root=str(folder),
        pool_dirs=['train'],
        test_dirs=['train'],
        classes=classes,
    )
    labelled = dict(
        type='tjls_mm.ClsImageSet',
        ann_file=str(folder / 'list.txt'),
        source=source,
        decode_once=True,
    )
    return DATASETS.build(dict(type='tjls_mm.JointDataset', labelled=labelled))


def main() -> None:
    """Run one benchmark."""
    benchmarks = {
        'train': bench_train,
        'score': bench_score,
        'memory': bench_memory,
        'peak': bench_peak,
        'stage': bench_stage,
        'data': bench_data,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('benchmark', choices=benchmarks)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--size', choices=[*DETECTORS, *CLASSIFIERS], default='ssd300')
    parser.add_argument('--updates', type=int, default=10, help='of a call of data')
    parser.add_argument(
        '--workers', type=int, default=0, help="of mmpretrain's loader in data"
    )
    parser.add_argument('--methods', nargs='+', choices=list(METHODS))
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPU)')
    args = parser.parse_args()
    init_default_scope('mmpretrain' if args.size in CLASSIFIERS else 'mmdet')
    logging.disable(logging.INFO)  # MMEngine logs every initialised weight
    benchmarks[args.benchmark](args)


if __name__ == '__main__':
    main()
