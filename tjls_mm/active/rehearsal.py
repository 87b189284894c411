"""A few real updates, a scored batch and a query, in a folder that is removed."""

import contextlib
import gc
import io
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tjls_mm.active.bank import draw_bank
from tjls_mm.active.batches import Batches
from tjls_mm.active.data_checks import sample_ids
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.stage import build_runner
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models.branch import find_joint_learner
from tjls_mm.outputs import Outputs
from tjls_mm.outputs.gather import flatten
from tjls_mm.outputs.readers import DropoutMasks, find_reader
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.query.selection import check_selection
from tjls_mm.registry import DATASETS
from tjls_mm.stage_folder import StageFolder, TrialFolder

LEAST_LABELLED, LEAST_TEST = 16, 8
"""Images of a rehearsal, where there are so many and a batch does not take more."""


@dataclass(frozen=True)
class Rehearsal:
    """What a few updates, an evaluation and a scored batch took.

    Attributes:
        losses: Whose update ('task', 'sampler', 'joint') to its last loss.
        iterations: That were run.
        update_s: Seconds per iteration, loading included, the first left out.
        score_s, evaluate_s: Seconds per image.
        weights, state: Bytes of the weights, and of a state of training.
        outputs: Bytes per scored image.
        memory: Bytes at most: of tensors on the GPU, or without one of this process.
        growth: Bytes of it that the rehearsal added.
        capacity: Bytes of the GPU, None without one.
        stumble: What the query strategy raised on these few images, or None.
    """

    losses: dict[str, float]
    iterations: int
    update_s: float
    score_s: float
    evaluate_s: float
    weights: int
    state: int
    outputs: float
    memory: int
    growth: int
    capacity: int | None
    stumble: str | None = None


class _StopWatch(Hook):
    """Seconds from the end of one iteration to the end of the next, and losses."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: dict[str, float] = {}

    def before_train_epoch(self, runner) -> None:
        self._learner = find_joint_learner(runner.model)
        self._last = time.perf_counter()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        turn = 'task' if self._learner is None else self._learner.turn
        self.losses[turn] = float(outputs['loss'])


def rehearse(plan: TrialPlan) -> Rehearsal:
    """Train stage 0 for one update of each kind; evaluate, score and query some images.

    The config is that of the stage, with batches and rates as they will be, on a few of
    its images. Where a strategy is to choose what is labelled first, test images stand
    in for labelled ones: their labels are read anyway.

    Raises:
        InputError: If the memory of the GPU does not suffice.
        TrainingDiverged: If a loss is not finite.
        Exception: Whatever data sets, models and hooks raise.
    """
    with tempfile.TemporaryDirectory(prefix='al_doctor_') as path:
        folder = TrialFolder(path)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # A start of the trial says the same again.
            warnings.simplefilter('ignore')
            try:
                return _rehearse(plan, folder)
            except torch.cuda.OutOfMemoryError as error:
                raise InputError(
                    f'The memory of the GPU does not suffice ({error}). Lower '
                    'train_dataloader.batch_size or score_dataloader.batch_size, '
                    "or try optim_wrapper.type='AmpOptimWrapper'."
                ) from error
            finally:
                gc.collect()  # a Runner is full of reference cycles


def _rehearse(plan: TrialPlan, folder: TrialFolder) -> Rehearsal:
    batches = plan.deriver.batches(1)
    cfg = _derive(plan, folder, batches)
    before = _memory(start=True)
    runner = build_runner(cfg, 'summary')
    watch = _StopWatch()
    runner.register_hook(watch, priority='LOWEST')
    runner.train()
    stage, memory = folder.stage(0), _memory()
    is_scored = plan.deriver.scores_pool(_inputs(plan, folder))
    weights = stage.model.stat().st_size
    gpu = torch.cuda.is_available() and torch.cuda.get_device_properties(0)
    return Rehearsal(
        losses=watch.losses,
        iterations=len(watch.seconds),
        update_s=_mean(watch.seconds[batches.turns :] or watch.seconds),
        score_s=_time_scoring(plan, runner) if is_scored else 0.0,
        evaluate_s=_time_evaluation(runner),
        weights=weights,
        state=weights + _tensor_bytes(runner.optim_wrapper.state_dict()),
        outputs=_output_bytes(stage),
        memory=memory,
        growth=memory - before,
        capacity=gpu.total_memory if gpu else None,
        stumble=_try_query(plan, stage) if plan.n_stages > 1 else None,
    )


def _try_query(plan: TrialPlan, stage: StageFolder) -> str | None:
    """Let the strategy choose from what was gathered; what it raises, in words."""
    needs = plan.query.needs
    if PRETRAINED_FEATURE in (*needs.pool, *needs.labelled):
        return None  # they are extracted when the trial starts
    gathered = plan.deriver.needs
    pool = Outputs.from_arrays(read_image_ids(stage.pool), {})
    if needs.pool:
        pool = Outputs.open(stage.outputs_of('pool'), stage.pool)
    labelled_ids = read_image_ids(stage.labelled)
    found = dict(
        Outputs.open(stage.outputs_of('labelled')) if gathered.gathered else {}
    )
    if 'label_count' in needs.labelled:
        found['label_count'] = plan.source.label_counts(labelled_ids)
    labelled = Outputs.from_arrays(labelled_ids, found)
    n_pool = len(pool.image_ids)
    budget = max(1, n_pool // 4)
    try:
        answer = plan.query.select(pool, labelled, budget, plan.seed)
        check_selection(answer, n_pool, budget, plan.method.query['type'])
    # Strategies raise whatever they like.
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return None


def _inputs(plan: TrialPlan, folder: TrialFolder) -> StageInputs:
    n_pool = len(plan.image_ids) - plan.n_initial
    return StageInputs(0, folder.stage(0), plan.n_initial, n_pool, folder.test)


def _derive(plan: TrialPlan, folder: TrialFolder, batches: Batches) -> Config:
    cfg = plan.deriver.derive(_inputs(plan, folder))
    _write_lists(plan, folder, batches, cfg)
    train = cfg.train_cfg
    train.max_iters = min(train.max_iters, max(batches.round_to, 2 * batches.turns))
    train.val_interval, train.bar = None, False
    return cfg


def _write_lists(
    plan: TrialPlan, folder: TrialFolder, batches: Batches, cfg: Config
) -> None:
    """Lists as a stage has them, of a few images."""
    stage, seed = folder.stage(0), plan.seed

    def draw(image_ids: list[str], count: int, purpose: str) -> list[str]:
        return sample_ids(image_ids, count, seed, f'rehearse {purpose}')

    n_bank = plan.deriver.bank_size(1)
    known = plan.test_ids if plan.initial is None else plan.initial
    count = max(2 * batches.labelled, LEAST_LABELLED)
    labelled = draw(known, count, 'labelled')
    others = sorted(set(plan.image_ids) - set(plan.initial or ()))
    count = max(cfg.score_dataloader.batch_size, batches.labelled, n_bank)
    pool = draw(others, count, 'pool')
    write_image_ids(stage.labelled, labelled)
    write_image_ids(stage.pool, pool)
    count = max(cfg.val_dataloader.get('batch_size', 1), LEAST_TEST)
    write_image_ids(folder.test, draw(plan.test_ids, count, 'test'))
    plan.source.write_annotation_lists(stage.path, {'labelled': labelled, 'pool': pool})
    held_out = plan.deriver.held_out_count(plan.n_initial)
    if held_out:
        count = min(held_out, max(1, len(labelled) // 5))
        write_image_ids(stage.held_out, draw(labelled, count, 'held out'))
    if n_bank:
        write_image_ids(stage.bank, draw_bank(labelled, pool, n_bank, seed, 0))


def _time_scoring(plan: TrialPlan, runner: Runner) -> float:
    model, loader, needs = runner.model, runner.cfg.score_dataloader, plan.deriver.needs
    reader = find_reader(model)
    logit = [name for name in reader.provides(model) if name == 'logit']
    names = list(dict.fromkeys([*needs.pool, *logit]))
    dataset = DATASETS.build(loader.dataset)
    rows = _rows(dataset, loader.batch_size)
    ids = [dataset.get_data_info(row)['image_id'] for row in rows]

    def score(batch) -> None:
        masks = DropoutMasks(ids, needs.passes, 0.5, plan.seed)
        data = model.data_preprocessor(batch, False)
        flatten(reader.read(model, data, names, masks), len(rows))

    workers = loader.get('num_workers', 0)
    return _seconds_per_image(model, dataset, rows, workers, pseudo_collate, score)


def _time_evaluation(runner: Runner) -> float:
    model, loader = runner.model, runner.val_loop.dataloader

    def predict(batch) -> None:
        model.test_step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    rows = _rows(loader.dataset, loader.batch_size)
    args = loader.dataset, rows, loader.num_workers, loader.collate_fn, predict
    return _seconds_per_image(model, *args)


def _rows(dataset, count: int) -> list[int]:
    return [i % len(dataset) for i in range(count)]


def _seconds_per_image(
    model, dataset, rows: list[int], workers: int, collate: Callable, use: Callable
) -> float:
    """Of one batch: loading and computing take turns, or overlap with workers."""
    model.eval()
    started = time.perf_counter()
    batch = collate([dataset[row] for row in rows])
    loaded = time.perf_counter()
    with torch.no_grad():
        use(batch)
    load, compute = loaded - started, time.perf_counter() - loaded
    seconds = max(load / workers, compute) if workers else load + compute
    return seconds / len(rows)


def _memory(start: bool = False) -> int:
    """Peak in bytes: of this process, or of tensors on the GPU since the start."""
    if torch.cuda.is_available():
        if start:
            torch.cuda.reset_peak_memory_stats()
            return 0
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _tensor_bytes(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


def _output_bytes(stage: StageFolder) -> float:
    """Per scored image, what selection reads and what people look at."""
    n_bytes, n_images = 0, 0
    for part in ('pool', 'labelled'):
        files = [p for p in stage.outputs_of(part).rglob('*') if p.is_file()]
        n_bytes += sum(path.stat().st_size for path in files)
        lists = {'pool': stage.pool, 'labelled': stage.labelled}
        n_images += len(read_image_ids(lists[part])) if files else 0
    return n_bytes / n_images if n_images else 0.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
