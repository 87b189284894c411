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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table

from tjls_mm import compat  # noqa: F401
from tjls_mm.models import add_joint_parts, fill_context_banks
from tjls_mm.outputs.readers import DropoutMasks, find_reader
from tjls_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[1]
METHODS = {
    'plain': None,
    'jls': None,
    'images': dict(type='tjls_mm.BatchTransformer'),
    'channels': dict(type='tjls_mm.BatchTransformer', tokens='channels'),
    'gcn': dict(type='tjls_mm.BatchGCN'),
}
"""Names to bottlenecks; all but the plain learner have a discriminator."""
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
    if size in CLASSIFIERS:
        kind = 'ClsDataPreprocessor'
        kind = kind if method == 'plain' else f'tjls_mm.Joint{kind}'
        cfg.data_preprocessor = dict(type=kind, mean=[125.0] * 3, std=[51.0] * 3)
    if method != 'plain':
        hidden = (512,) if size in CLASSIFIERS else ()
        head = dict(type='tjls_mm.DiscriminatorHead', hidden_features=hidden)
        bottleneck = METHODS[method] and dict(METHODS[method])
        if method == 'channels':
            bottleneck['batch_size'] = batch_size
        cfg = add_joint_parts(cfg, bottleneck, dict(discriminator=head))
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model.to(device())


def make_batch(model, batch_size: int, joint: bool) -> dict:
    """Random images; all of them have labels, or the first half has if joint."""
    from mmdet.structures import DetDataSample
    from mmpretrain.structures import DataSample

    is_detector = hasattr(model, 'bbox_head')
    side = {6: 300, 4: 160}[len(model.bbox_head.cls_convs)] if is_detector else 32
    rng = torch.Generator().manual_seed(0)
    samples = []
    for i in range(batch_size):
        is_labelled = not joint or i < batch_size // 2
        facts = dict(image_id=f'{i}', is_labelled=is_labelled, is_held_out=False)
        if not is_detector:
            sample = DataSample(metainfo=facts)
            samples.append(sample.set_gt_label(i % 10) if is_labelled else sample)
            continue
        shape = dict(img_shape=(side, side), ori_shape=(side, side))
        sample = DetDataSample(metainfo={**facts, **shape, 'scale_factor': (1.0, 1.0)})
        corner = torch.rand(2 if is_labelled else 0, 2, generator=rng) * side / 2
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
    for _ in range(rounds + 1):
        for name, call in sides.items():
            synchronise()
            started = time.perf_counter()
            call()
            synchronise()
            seconds[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in seconds.items()}


def print_table(title: str, columns: tuple, rows: list[tuple]) -> None:
    """Print rows of text."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify='right')
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)


def print_ratios(title: str, seconds: dict, images: int) -> None:
    """Print medians and their ratios to the first side.

    A ratio is the median of the rounds' ratios: what slows the machine for a
    while slows both sides of a round.
    """
    reference = np.array(next(iter(seconds.values())))
    rows = []
    for name, values in seconds.items():
        median, ratio = np.median(values), np.median(values / reference)
        rows.append((name, f'{median:.3f}', f'{images / median:.1f}', f'{ratio:.3f}'))
    columns = '', 'seconds (median)', 'images/s', f'ratio to {rows[0][0]}'
    print_table(title, columns, rows)


def updates(methods, batch_size: int, size: str, amp: bool) -> dict:
    """A call per method that does one joint update."""
    sides = {}
    for method in methods:
        model = build(method, batch_size, size).train()
        batch = make_batch(model, batch_size, joint=method != 'plain')
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=5e-4)
        wrapper = (AmpOptimWrapper if amp else OptimWrapper)(optimizer=optimizer)
        wrapper.initialize_count_status(model, 0, 10**9)

        def call(model=model, batch=batch, wrapper=wrapper):
            model.train_step(batch, wrapper)

        sides[method] = call
    return sides


def _methods(args) -> list[str]:
    """Those asked for, or all that the learner has, the plain one first."""
    # The graph bottleneck belongs to classification.
    known = [m for m in METHODS if m != 'gcn' or args.size in CLASSIFIERS]
    return ['plain', *[m for m in args.methods or known if m != 'plain']]


def bench_train(args) -> None:
    """One update of each method on as many images."""
    sides = updates(_methods(args), args.batch_size, args.size, args.amp)
    title = f'Update, {args.size}, batch {args.batch_size}, {device()}'
    print_ratios(title, in_turn(sides, args.rounds), args.batch_size)


@torch.no_grad()
def bench_score(args) -> None:
    """Scoring against the plain learner's forward pass, both branches of SSD's head."""
    sides = {}
    for method in _methods(args):
        model = build(method, args.batch_size, args.size)
        batch = make_batch(model, args.batch_size, joint=False)
        if method != 'plain':
            bank = make_batch(model, args.batch_size - 1, joint=False)
            fill_context_banks(model, [bank])
        masks = DropoutMasks([str(i) for i in range(args.batch_size)], 0, 0.5, 0)
        reader = find_reader(model.eval())

        def call(model=model, batch=batch, reader=reader, masks=masks, method=method):
            data = model.data_preprocessor(batch, False)
            if method == 'plain':
                model(**data, mode='tensor')
            else:
                reader.read(model, data, ['logit'], masks)

        sides[method] = call
    title = f'Scoring, {args.size}, batch {args.batch_size}, {device()}'
    print_ratios(title, in_turn(sides, args.rounds), args.batch_size)


def bench_memory(args) -> None:
    """Peak memory of updates; each method in a process of its own."""
    peaks = {}
    for method in _methods(args):
        command = [sys.executable, '-W', 'ignore', __file__, 'peak']
        command += ['--methods', method, '--batch-size', str(args.batch_size)]
        command += ['--size', args.size, *(['--amp'] if args.amp else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[method] = float(done.stdout.strip().splitlines()[-1])
    rows = [(m, f'{p:.0f}', f'{p / peaks["plain"]:.3f}') for m, p in peaks.items()]
    title = f'Peak memory of an update, {args.size}, {device()}'
    print_table(title, ('', 'MiB', 'ratio to plain'), rows)


def bench_peak(args) -> None:
    """Print the peak of one method in MiB, above the process before the update."""
    (call,) = updates(args.methods, args.batch_size, args.size, args.amp).values()
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
    """What stages cost beside training, evaluation and gathering, by pool size.

    Runs the demo's learner for two iterations a stage on pools that list the demo
    images under many names.
    """
    from tjls_mm.active.trial import run_stages
    from tjls_mm.stage_folder import TrialFolder

    demo = ROOT / 'data' / 'demo' / 'VOCdemo'
    images = sorted((demo / 'JPEGImages').glob('*.jpg'))
    rows = []
    for count in (500, 16551):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / 'data' / 'VOCdemo'
            for sub in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
                (part / sub).mkdir(parents=True)
            names = [f'{i:06d}' for i in range(count + 20)]
            drawn = np.random.default_rng(0).choice(images, len(names))
            for name, image in zip(names, drawn, strict=True):
                (part / 'JPEGImages' / f'{name}.jpg').symlink_to(image)
                xml = demo / 'Annotations' / f'{image.stem}.xml'
                (part / 'Annotations' / f'{name}.xml').symlink_to(xml)
            for split, listed in (('trainval', names[:count]), ('test', names[count:])):
                path = part / 'ImageSets' / 'Main' / f'{split}.txt'
                path.write_text('\n'.join(listed) + '\n')
            cfg = Config.fromfile(ROOT / 'configs' / 'demo' / 'demo_random.py')
            cfg.work_dir = f'{folder}/work'
            cfg.data_source.data_root = f'{folder}/data'
            size = count // 16
            cfg.active_learning.update(initial=size, budget=size, stages=4)
            cfg.train_cfg, cfg.param_scheduler = dict(max_iters=2), []
            run_stages(cfg)
            stages = [TrialFolder(cfg.work_dir).stage(k) for k in range(3)]
            # From answer to answer is once all that a stage does.
            rests = np.diff([stage.answered.stat().st_mtime for stage in stages])
            for i, stage in enumerate(stages[1:]):
                seconds = json.loads(stage.metrics.read_text())['seconds']
                steps = ('train', 'evaluate', 'gather')
                rests[i] -= sum(seconds.get(step, 0) for step in steps)
            rows.append((str(count), f'{rests.mean():.2f}'))
    title = 'A stage beside training, evaluation and gathering'
    print_table(title, ('images', 'seconds per stage'), rows)


def bench_data(args) -> None:
    """Training from decoded data, augmented in batches, against mmpretrain's pipeline.

    Both sides train the plain learner on drawn 32 x 32 images that lie in memory, as
    CIFAR's do; a call is ``--updates`` updates, loading included.
    """
    from mmengine.dataset import pseudo_collate
    from mmpretrain.datasets import CIFAR10
    from torch.utils.data import DataLoader

    n_images = args.updates * args.batch_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n_images, 32, 32, 3), dtype=np.uint8)

    class DrawnImages(CIFAR10):
        """CIFAR10 without its files."""

        def load_data_list(self) -> list[dict]:
            return [
                {'img': image, 'gt_label': i % 10} for i, image in enumerate(pixels)
            ]

    theirs = DrawnImages(
        data_root='.',
        pipeline=[
            dict(type='RandomCrop', crop_size=32, padding=4),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    )
    rows = torch.randperm(n_images).tolist()
    batches = [rows[i :: args.updates] for i in range(args.updates)]
    seeded = [[(row, row) for row in batch] for batch in batches]
    augmentation = dict(type='tjls_mm.BatchCropFlip', crop_size=32, padding=4)
    workers = dict(num_workers=args.workers, persistent_workers=args.workers > 0)
    with tempfile.TemporaryDirectory() as folder:
        ours = _decoded_data(Path(folder), pixels)
        kind = 'tjls_mm.JointClsDataPreprocessor'
        parts = {
            'mmpretrain': (theirs, batches, workers, dict(type='ClsDataPreprocessor')),
            'decoded once': (
                ours,
                seeded,
                {},
                dict(type=kind, augmentation=augmentation),
            ),
        }
        sides = {}
        for name, (dataset, sampler, options, preprocessor) in parts.items():
            options = dict(batch_sampler=sampler, collate_fn=pseudo_collate, **options)
            loader = DataLoader(dataset, **options)
            made = updates(['plain'], args.batch_size, args.size, args.amp)
            (update,) = made.values()
            normalise = dict(mean=[125.0] * 3, std=[51.0] * 3)
            preprocessor = MODELS.build({**preprocessor, **normalise}).to(device())
            update.__defaults__[0].data_preprocessor = preprocessor

            def call(loader=loader, update=update):
                for batch in loader:
                    update(batch=batch)

            sides[name] = call
        seconds = in_turn(sides, args.rounds)
    title = f'Training with its data, {args.size}, batch {args.batch_size}, {device()}'
    print_ratios(title, seconds, n_images)


def _decoded_data(folder: Path, pixels: np.ndarray):
    """A JointDataset of decoded images, all labelled."""
    import cv2

    from tjls_mm.image_ids import write_image_ids
    from tjls_mm.registry import IMAGE_SOURCES, build_own

    classes = [str(i) for i in range(10)]
    for name in classes:
        (folder / 'train' / name).mkdir(parents=True)
    ids = [f'train/{i % 10}/{i:06d}.png' for i in range(len(pixels))]
    for image_id, image in zip(ids, pixels, strict=True):
        cv2.imwrite(str(folder / image_id), image)
    write_image_ids(folder / 'list.txt', ids)
    source = dict(type='tjls_mm.ImageFolders', data_root=str(folder))
    source.update(pool_dirs=['train'], test_dirs=['train'], classes=classes)
    labelled = build_own(IMAGE_SOURCES, source).labelled_dataset(f'{folder}/list.txt')
    labelled['decode_once'] = True
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
