"""Evaluation of learners that find nothing."""

from types import SimpleNamespace

import pytest
from mmdet.evaluation import CocoMetric, VOCMetric

from tjls_mm.engine.evaluate import run_evaluation
from tjls_mm.errors import InputError
from tjls_mm.files import read_json
from tjls_mm.stage_folder import StageFolder


def evaluate(folder, metrics: list, found: dict) -> dict:
    loop = SimpleNamespace(
        run=lambda: found, evaluator=SimpleNamespace(metrics=metrics)
    )
    folder.mkdir(exist_ok=True)
    run_evaluation(SimpleNamespace(val_loop=loop, work_dir=str(folder)))
    return read_json(StageFolder(folder).metrics)['metrics']


def test_no_box_at_all_is_a_map_of_zero(tmp_path):
    coco = CocoMetric(metric='bbox')
    nothing = evaluate(tmp_path / 'a', [coco], {})
    assert next(iter(nothing.items())) == ('coco/bbox_mAP', 0.0)
    asked = CocoMetric(metric='bbox', metric_items=['mAP_50'])
    assert evaluate(tmp_path / 'c', [asked], {}) == {'coco/bbox_mAP_50': 0.0}
    found = {'coco/bbox_mAP_50': 0.3}
    assert evaluate(tmp_path / 'd', [asked], found) == found
    some = evaluate(tmp_path / 'b', [coco], {'coco/bbox_mAP': 0.2})
    assert some['coco/bbox_mAP'] == 0.2


def test_a_metric_without_numbers_is_refused(tmp_path):
    with pytest.raises(InputError, match='gives nothing'):
        evaluate(tmp_path / 'a', [VOCMetric()], {})
