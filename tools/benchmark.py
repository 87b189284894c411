"""Measure what joint learning and pool scoring cost, as ratios in one run.

Both sides of a ratio are timed in turn in one process: what slows one slows both.

    python tools/benchmark.py train    # an update against plain mmdet or mmpretrain
    python tools/benchmark.py score    # scoring against a plain forward pass
    python tools/benchmark.py memory   # peak of an update against the plain learner
    python tools/benchmark.py stage    # what a stage costs beside the GPU's work
    python tools/benchmark.py data     # --updates against mmpretrain's with --workers
    python tools/benchmark.py outputs  # the store of outputs, of --boxes per image
"""

import argparse
import copy
import logging
import multiprocessing
import resource
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import init_default_scope
from scipy.special import entr
from torch.utils.data import DataLoader

from tjls_mm.files import read_json, write_text
from tjls_mm.image_ids import write_image_ids
from tjls_mm.models import add_joint_parts, fill_context_banks
from tjls_mm.outputs import Outputs, check_finite
from tjls_mm.outputs.readers import DropoutMasks, find_reader
from tjls_mm.outputs.shards import ShardedStore
from tjls_mm.query import Discriminator, check_selection, write_selection
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, MODELS, build_own
from tjls_mm.report.stage_line import print_table
from tjls_mm.stage_folder import TrialFolder

ROOT = Path(__file__).resolve().parents[1]
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
TRANSFORMER, GCN = ({'type': f'tjls_mm.Batch{kind}'} for kind in ('Transformer', 'GCN'))
METHODS = dict(plain=None, jls=None, images=TRANSFORMER, channels=TRANSFORMER, gcn=GCN)
"""Names to bottlenecks; all but the plain learner have a discriminator."""
DETECTORS = {'ssd300': 'ssd300_voc', 'small': 'ssd_r18_160'}
MMDET = {
    'retinanet': 'retinanet/retinanet_r50_fpn_1x_coco',
    'rtmdet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco',
    'faster-rcnn': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco',
}
"""Detectors of mmdet's own configs, at ``--pixels``."""
CLASSIFIERS = {name: f'{name}_cifar' for name in ('vgg16', 'resnet18', 'wrn28')}
CLASSIFIERS['small-resnet18'] = 'resnet18_small'
NORMALISE = dict(mean=[125.0] * 3, std=[51.0] * 3)


def build(method: str, args) -> torch.nn.Module:
    """The learner of mmdet or mmpretrain, or ours with a bottleneck, random weights."""
    size, name = args.size, {**DETECTORS, **CLASSIFIERS, **MMDET}[args.size]
    if size in MMDET:
        cfg = copy.deepcopy(get_config(f'mmdet::{name}.py').model)
        cfg.data_preprocessor.batch_augments = None
        if size == 'dino':  # small images have fewer candidates than 900
            cfg.num_queries = 300
    else:
        folder = ROOT / 'configs' / '_base_' / 'models'
        cfg = Config.fromfile(folder / f'{name}.py').model
    if size not in CLASSIFIERS:
        cfg.backbone.init_cfg = None
    if size in CLASSIFIERS:
        own = '' if method == 'plain' else 'tjls_mm.Joint'
        cfg.data_preprocessor = dict(type=f'{own}ClsDataPreprocessor', **NORMALISE)
    if method != 'plain':
        hidden = (512,) if size in CLASSIFIERS else ()
        head = dict(type='tjls_mm.DiscriminatorHead', hidden_features=hidden)
        bottleneck = METHODS[method]
        if method == 'channels':
            bottleneck = dict(TRANSFORMER, tokens=method, batch_size=args.batch_size)
        vector = None
        if size in DETECTORS:
            vector = dict(type='tjls_mm.ConfidenceFlatten')
        cfg = add_joint_parts(cfg, bottleneck, dict(discriminator=head), vector)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model.to(DEVICE)


def make_batch(args, batch_size: int, joint: bool = False) -> dict:
    """Random images; all of them have labels, or the first half has if joint."""
    from mmdet.testing import demo_mm_inputs
    from mmpretrain.structures import DataSample

    size = args.size
    side = {'ssd300': 300, 'small': 160}.get(size, 32)
    shape = (args.pixels if size in MMDET else side,) * 2
    labelled = [not joint or i < batch_size // 2 for i in range(batch_size)]
    if size not in CLASSIFIERS:
        boxes = [2 * is_labelled for is_labelled in labelled]
        batch = demo_mm_inputs(batch_size, [(3, *shape)] * batch_size, boxes, 2)
    else:
        images = torch.randint(0, 256, (batch_size, 3, *shape), dtype=torch.uint8)
        samples = [DataSample() for _ in labelled]
        batch = dict(inputs=list(images), data_samples=samples)
    for i, sample in enumerate(batch['data_samples']):
        facts = dict(image_id=f'{i}', is_labelled=labelled[i], is_held_out=False)
        sample.set_metainfo(dict(**facts, img_shape=shape, ori_shape=shape))
        if labelled[i] and size in CLASSIFIERS:
            sample.set_gt_label(i % 10)
    return batch


def learner(method: str, args) -> tuple:
    model = build(method, args).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=5e-4)
    wrapper = (AmpOptimWrapper if args.amp else OptimWrapper)(optimizer=optimizer)
    wrapper.initialize_count_status(model, 0, 10**9)
    return model, wrapper


def joint_update(method: str, args) -> partial:
    model, wrapper = learner(method, args)
    batch = make_batch(args, args.batch_size, joint=method != 'plain')
    return partial(model.train_step, batch, wrapper)


def timed(call, *arguments) -> tuple:
    """Seconds that a call takes, and its result."""
    started = time.perf_counter()
    result = call(*arguments)
    if DEVICE == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def time_in_turn(title: str, sides: dict, args, images: int) -> None:
    """Time sides in turn; print medians, and medians of the rounds' ratios."""
    rounds = range(args.rounds + 1)  # the first one warms up
    seconds = [[timed(call)[0] for call in sides.values()] for _ in rounds][1:]
    medians = np.median(seconds, 0)
    ratios = np.median([np.divide(row, row[0]) for row in seconds], 0)
    ratio, rows = f'ratio to {next(iter(sides))}', []
    for name, median, by in zip(sides, medians, ratios, strict=True):
        row = {'': name, 'seconds': median, 'images/s': f'{images / median:.1f}'}
        rows.append({**row, ratio: by})
    print_table(f'{title}, {args.size}, batch {args.batch_size}, {DEVICE}', rows)


def bench_train(args) -> None:
    sides = {method: joint_update(method, args) for method in args.methods}
    time_in_turn('Update', sides, args, args.batch_size)


@torch.no_grad()
def bench_score(args) -> None:
    masks = DropoutMasks([str(i) for i in range(args.batch_size)], 0, 0.5, 0)
    batch = make_batch(args, args.batch_size)

    def score(is_plain, model, reader):
        data = model.data_preprocessor(batch, False)
        if is_plain and hasattr(model, 'rpn_head'):
            # Its forward pass would classify a thousand regions, too.
            model.rpn_head(model.extract_feat(data['inputs']))
        elif is_plain:
            model(**data, mode='tensor')
        else:
            reader.read(model, data, ['logit'], masks)

    sides = {}
    for method in args.methods:
        model = build(method, args)
        if not (is_plain := method == 'plain'):
            fill_context_banks(model, [make_batch(args, args.batch_size - 1)])
        sides[method] = partial(score, is_plain, model.eval(), find_reader(model))
    time_in_turn('Scoring', sides, args, args.batch_size)


def memory_mib() -> tuple[float, float]:
    """Resident memory of this process, now and at most."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return pages * resource.getpagesize() / 2**20, most


def update_peak(method: str, args) -> float:
    """Peak of two updates in MiB; on a CPU above the process before them."""
    call, (before, _) = joint_update(method, args), memory_mib()
    call()
    call()
    if DEVICE == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**20
    return memory_mib()[1] - before


def bench_memory(args) -> None:
    """Peak memory of updates; each method in a process of its own."""
    rows, peaks = [], {}
    for method in args.methods:
        with multiprocessing.get_context('spawn').Pool(1, prepare, [args]) as pool:
            peak = peaks[method] = pool.apply(update_peak, (method, args))
        ratio = {'ratio to plain': peak / peaks['plain']}
        rows.append({'': method, 'MiB': f'{peak:.0f}', **ratio})
    print_table(f'Peak memory of an update, {args.size}, {DEVICE}', rows)


def bench_stage(args) -> None:
    """Stages of two updates, on pools that list the demo images under many names."""
    from tjls_mm.active.trial import run_stages

    demo, rows = ROOT / 'data' / 'demo' / 'VOCdemo', []
    images = [path.stem for path in sorted((demo / 'JPEGImages').glob('*.jpg'))]
    for count in (500, 16551):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / 'data' / 'VOCdemo'
            names = [f'{i:06d}' for i in range(count + 20)]
            drawn = np.random.default_rng(0).choice(images, len(names))
            for file in ('JPEGImages/{}.jpg', 'Annotations/{}.xml'):
                (part / file).parent.mkdir(parents=True)
                for name, image in zip(names, drawn, strict=True):
                    (part / file.format(name)).symlink_to(demo / file.format(image))
            write_text(part / 'ImageSets/Main/trainval.txt', '\n'.join(names[:count]))
            write_text(part / 'ImageSets/Main/test.txt', '\n'.join(names[count:]))
            cfg = Config.fromfile(ROOT / 'configs' / 'demo' / 'demo_random.py')
            cfg.work_dir, cfg.data_source.data_root = f'{folder}/work', f'{folder}/data'
            cfg.active_learning.update(
                initial=count // 16, budget=count // 16, stages=4
            )
            cfg.train_cfg, cfg.param_scheduler = dict(max_iters=2), []
            run_stages(cfg)
            stages = [TrialFolder(cfg.work_dir).stage(k) for k in range(3)]
            # From answer to answer is once all that a stage does.
            rests = np.diff([stage.answered.stat().st_mtime for stage in stages])
            spent = [read_json(stage.metrics)['seconds'] for stage in stages[1:]]
            for name in ('train', 'evaluate', 'gather'):
                rests -= [seconds.get(name, 0) for seconds in spent]
        rows.append({'images': count, 'seconds per stage': rests.mean()})
    print_table('A stage beside training, evaluation and gathering', rows)


def bench_data(args) -> None:
    """The plain learner on 32 x 32 images that lie in memory, as CIFAR's do."""
    from mmpretrain import registry
    from mmpretrain.datasets import CIFAR10

    n_images = args.updates * args.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, 32, 32, 3), 'u1')

    @registry.DATASETS.register_module()
    class DrawnImages(CIFAR10):  # without its files
        train_list = test_list = []

        def load_data_list(self) -> list[dict]:
            return [dict(img=image, gt_label=i % 10) for i, image in enumerate(pixels)]

    crop, flip = dict(crop_size=32, padding=4), dict(type='RandomFlip', prob=0.5)
    pipeline = [dict(type='RandomCrop', **crop), flip, dict(type='PackInputs')]
    source = dict(type='tjls_mm.BinaryImages', dataset='DrawnImages', data_root='.')
    source = build_own(IMAGE_SOURCES, source)
    with tempfile.TemporaryDirectory() as folder:
        list_file = f'{folder}/list.txt'
        write_image_ids(list_file, source.list_images('pool'))
        labelled = {**source.labelled_dataset(list_file), 'decode_once': True}
        decoded = DATASETS.build(dict(type='tjls_mm.JointDataset', labelled=labelled))
    load = partial(DataLoader, batch_size=args.batch_size, collate_fn=pseudo_collate)
    workers = dict(num_workers=args.workers, persistent_workers=args.workers > 0)
    theirs = load(DrawnImages(data_root='.', pipeline=pipeline), **workers)
    # A joint data set is asked for an image and the seed of its transforms.
    ours = load(decoded, sampler=[(i, i) for i in range(n_images)])

    def train(loader, model, wrapper):
        for batch in loader:
            model.train_step(batch, wrapper)

    model, wrapper = learner('plain', args)
    preprocessor = dict(type='tjls_mm.JointClsDataPreprocessor', **NORMALISE)
    preprocessor['augmentation'] = dict(type='tjls_mm.BatchCropFlip', **crop)
    model.data_preprocessor = MODELS.build(preprocessor).to(DEVICE)
    sides = {'mmpretrain': partial(train, theirs, *learner('plain', args))}
    sides['decoded once'] = partial(train, ours, model, wrapper)
    time_in_turn('Training with its data', sides, args, n_images)


def made_up_outputs(args, start: int, stop: int):
    rng = np.random.default_rng(start)
    for first in range(start, stop, args.batch_size):
        n = min(args.batch_size, stop - first)
        if not (m := n * args.boxes):
            yield {'logit': rng.standard_normal(n, np.float32)}
            continue
        yield {
            'boxes.count': np.full(n, args.boxes, np.int32),
            'boxes.xyxy': rng.random((m, 4), np.float32),
            'boxes.score': rng.random(m, np.float32),
            'boxes.label': np.zeros(m, np.int32),
            'boxes.probability': rng.random((m, args.classes), np.float32),
            'boxes.prior': np.arange(m, dtype=np.int32),
            'box_feature': rng.random((m, args.features), np.float32).astype('f2'),
        }


def bench_outputs(args) -> None:
    """Memory is above the start's; pages of memory-mapped files count."""
    before, _ = memory_mib()

    def step(name, call, *arguments):
        seconds, result = timed(call, *arguments)
        peak = (memory_mib()[1] - before) / 2**10
        print(f'{name:8} {seconds:7.2f} s   peak so far {peak:.2f} GiB')
        return result

    def reduce(boxes):
        entropy = entr(boxes.probability).sum(1)
        for how in ('sum', 'mean', 'max'):
            boxes.reduce(entropy, how)
        boxes.reduce(boxes.feature, 'mean')

    names, shards = (['boxes', 'box_feature'], 2) if args.boxes else (['logit'], 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder, budget = Path(temporary) / 'pool', args.budget
        ids = [f'images/{i:07d}' for i in range(args.images)]
        store = step('store', ShardedStore, folder, ids, shards)
        step('prepare', store.prepare, {'list_sha256': ''})
        edges = [args.images * i // shards for i in range(shards + 1)]
        for rank in range(shards):
            made_up = made_up_outputs(args, *edges[rank : rank + 2])
            step(f'shard {rank}', store.write_shard, rank, made_up)
        step('join', store.join, names)
        pool = step('open', Outputs.open, folder)
        step('check', check_finite, pool, 'pool images')
        if args.boxes:
            step('reduce', reduce, pool['boxes'])
        else:
            select = Discriminator('lowest').select
            answer = step('select', select, pool, pool, budget, 0)
            found = check_selection(answer, args.images, budget, 'lowest')
            path = Path(temporary) / 'selection.csv'
            step('csv', write_selection, path, pool, found.rows, found.columns)
        size = sum(path.stat().st_size for path in folder.iterdir())
    print(f'files of {size / 2**30:.2f} GiB')


def prepare(args) -> None:
    init_default_scope('mmpretrain' if args.size in CLASSIFIERS else 'mmdet')
    logging.disable(logging.INFO)  # MMEngine logs every initialised weight
    warnings.simplefilter('ignore')


def main() -> None:
    benchmarks = dict(train=bench_train, score=bench_score, memory=bench_memory)
    benchmarks.update(stage=bench_stage, data=bench_data, outputs=bench_outputs)
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add('benchmark', choices=benchmarks)
    add('--size', choices=[*DETECTORS, *CLASSIFIERS, *MMDET], default='ssd300')
    add('--methods', nargs='+', choices=list(METHODS), help='default: all it has')
    add('--amp', action='store_true', help='mixed precision (GPU)')
    numbers = {'batch-size': 32, 'rounds': 5, 'updates': 10, 'workers': 0}
    numbers.update(
        pixels=160, images=16_551, budget=1000, boxes=0, classes=21, features=256
    )
    for name, number in numbers.items():
        add(f'--{name}', type=int, default=number, help='default: %(default)s')
    args = parser.parse_args()
    # The graph bottleneck belongs to classification.
    known = [m for m in METHODS if m != 'gcn' or args.size in CLASSIFIERS]
    if args.size in MMDET:  # their maps have no size of their own
        known.remove('channels')
    args.methods = ['plain', *[m for m in args.methods or known if m != 'plain']]
    prepare(args)
    benchmarks[args.benchmark](args)


if __name__ == '__main__':
    main()
