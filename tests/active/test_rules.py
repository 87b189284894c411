"""Query strategies in the loop: what they are given, and what never reaches them."""

import numpy as np
import pytest
from conftest import make_classifier_config

from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import VOCFiles
from tjls_mm.outputs import Needs, Outputs
from tjls_mm.query import QUERIES, QueryStrategy
from tjls_mm.stage_folder import TrialFolder

SEEN = []


@QUERIES.register_module(force=True)
class Watching(QueryStrategy):
    """Remembers what it is given."""

    needs = Needs(labelled=('label_count',))

    def select(self, pool, labelled, budget, seed):
        SEEN.append((pool, labelled))
        return np.arange(budget)


def test_labelled_boxes_are_counted_and_those_of_the_pool_are_not(
    tiny_config, demo_data, monkeypatch
):
    SEEN.clear()
    cfg = tiny_config('demo_random')
    cfg.method.query = dict(type='tjls_mm.Watching')
    opened, instances = [], VOCFiles.instances

    def noted(self, image_id):
        opened.append(image_id)
        return instances(self, image_id)

    monkeypatch.setattr(VOCFiles, 'instances', noted)
    run_stages(cfg)
    ((pool, labelled),) = SEEN
    assert list(pool) == []
    counts = labelled['label_count']
    stage = TrialFolder(cfg.work_dir).stage(1)
    assert counts.shape == (8, 5) and counts.sum() > 0
    # Opened for whom it was allowed: labelled now, and test images.
    never = set(stage.pool.read_text().split())
    assert never and not never & set(opened)


def test_classifiers_count_one_label_an_image(class_folders, tmp_path):
    SEEN.clear()
    cfg = make_classifier_config(class_folders, tmp_path / 'work', 'random')
    cfg.method.query = dict(type='tjls_mm.Watching')
    run_stages(cfg)
    assert (SEEN[0][1]['label_count'].sum(1) == 1).all()


@pytest.mark.parametrize('query', [dict(type='tjls_mm.ClassBalanced')])
def test_a_rule_on_boxes_in_the_loop_is_the_rule_on_its_outputs(query, tiny_config):
    cfg = tiny_config('demo_random', **{'active_learning.keep_outputs': True})
    cfg.method.query = dict(query)
    run_stages(cfg)
    stage = TrialFolder(cfg.work_dir).stage(0)
    pool = Outputs.open(stage.outputs_of('pool'))
    assert {'boxes'} <= set(pool)
    lines = stage.selection.read_text().splitlines()
    assert len(lines) == 1 + len(pool.image_ids)
    ranked = [line.split(',')[0] for line in lines[1:7]]
    assert sorted(ranked) == sorted(stage.selected.read_text().split())
