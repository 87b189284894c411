"""Two processes train every family of detectors as one does."""

import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]
# What these divide by is counted on all processes. mmdet's RoI heads, GFL, PAA and the
# first DETRs count on each: there it is the mean of two batches.
COUNT_ALL = (
    'ssd retinanet atss fcos rtmdet yolox deformable_detr deformable_detr_two_stage'
).split()
FAMILIES = [*COUNT_ALL, 'gfl', 'paa', 'yolof', 'faster_rcnn', 'detr', 'dino']


def all_losses(rows: list[int]) -> dict[str, dict[str, float]]:
    """Losses of a joint update of some images, by family."""
    sys.path[:0] = [str(TESTS), str(TESTS / 'models')]
    import families
    from test_joint_detector import MIXED, TRANSFORMER, build, freeze_statistics, losses
    from test_joint_detector import rows as part

    found = {}
    for name in FAMILIES:
        model = build(name, dict(TRANSFORMER, gather=True))
        freeze_statistics(model)
        data = families.batch(MIXED)
        # Twice as many boxes on one side.
        data['data_samples'][1].gt_instances = data['data_samples'][1].gt_instances[:1]
        parts = losses(model, part(data, rows))
        found[name] = {k: float(v.sum()) for k, v in parts.items() if 'loss' in k}
    return found


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    init_default_scope('mmdet')
    found = all_losses([2 * rank, 2 * rank + 1])
    Path(folder, f'{rank}.json').write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_losses_of_two_processes_are_those_of_one(tmp_path):
    torch.multiprocessing.spawn(run, (str(tmp_path),), nprocs=2)
    halves = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1)]
    whole = all_losses([0, 1, 2, 3])
    wrong = []
    for name, parts in whole.items():
        for key, value in parts.items():
            mean = (halves[0][name][key] + halves[1][name][key]) / 2
            if name not in COUNT_ALL and 'sampler' not in key:
                continue
            if mean != pytest.approx(value, rel=1e-4, abs=1e-5):
                wrong.append((name, key, mean, value))
    assert not wrong, '\n'.join(map(str, wrong))
