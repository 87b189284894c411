"""The doctor names what would stop a trial; following its advice makes it pass."""

import shutil
import sys

import pytest
from conftest import command_line, config_path, load_tool, make_classifier_config
from mmengine.registry import init_default_scope
from PIL import Image

from tjls_mm.active.cost_checks import smallest_ratio
from tjls_mm.active.doctor import CHECKS, examine, has_problem
from tjls_mm.active.examination import Examination, StageSize
from tjls_mm.active.rehearsal import Rehearsal
from tjls_mm.query import QUERIES, QueryStrategy

QUICK = [c for c in CHECKS if c.name not in ('updates', 'time', 'disk')]
"""Checks that run no model."""


@pytest.fixture
def part(copied_data):
    return copied_data / 'VOCdemo'


def ids_of(part, name: str) -> list[str]:
    return (part / 'ImageSets' / 'Main' / f'{name}.txt').read_text().split()


def image_of(part, image_id: str):
    return part / 'JPEGImages' / f'{image_id}.jpg'


def annotation_of(part, image_id: str):
    return part / 'Annotations' / f'{image_id}.xml'


@pytest.fixture
def quick(tiny_config, copied_data):
    """Function that runs the quick checks on the copied data."""

    def run(name='demo_tjls', **options):
        cfg = tiny_config(name, data=copied_data, **options)
        return {r.name: r for r in examine(Examination(cfg), checks=QUICK)}

    return run


def texts(result, kind: str) -> str:
    return '\n'.join(f.text for f in result.findings if f.kind == kind)


def test_good_detector_passes_without_labels_of_the_pool(
    tiny_config, copied_data, part, tmp_path
):
    first = ids_of(part, 'trainval')[:8]
    (tmp_path / 'first.txt').write_text(''.join(f'VOCdemo/{i}\n' for i in first))
    for image_id in ids_of(part, 'trainval')[8:]:
        annotation_of(part, image_id).unlink()
    options = {
        'active_learning.initial': str(tmp_path / 'first.txt'),
        'method.update': 'alternate',
    }
    before = sorted(tmp_path.rglob('*'))
    exam = Examination(tiny_config(data=copied_data, **options))
    results = examine(exam)
    assert not has_problem(results), [r for r in results if not r.passed]
    assert all(result.passed for result in results)
    assert sorted(tmp_path.rglob('*')) == before, 'nothing may be written'
    found = exam.rehearsal
    assert set(found.losses) == {'task', 'sampler'}
    assert min(found.update_s, found.score_s, found.evaluate_s) > 0
    assert found.state > found.weights > 10_000
    assert exam.seconds > 0
    assert [stage.labelled for stage in exam.stages] == [8, 14]


@pytest.mark.parametrize('method', ['tjls', 'random'])
def test_good_classifier_passes(method, class_folders, tmp_path):
    init_default_scope('mmpretrain')
    exam = Examination(make_classifier_config(class_folders, tmp_path / 'work', method))
    results = examine(exam)
    assert all(result.passed for result in results), results
    assert exam.rehearsal.stumble is None
    assert not (tmp_path / 'work').exists()
    assert set(exam.rehearsal.losses) <= {'task', 'sampler', 'joint'}
    assert (exam.rehearsal.score_s > 0) == (method == 'tjls')


def test_all_problems_of_a_config_are_listed(quick):
    spoiled = {
        'active_learning.bugdet': 6,
        'method.holdout': 2,
        'custom_hooks': [dict(type='EarlyStoppingHook', monitor='mAP')],
        'train_dataloader.num_workers': -1,
    }
    found = quick(**spoiled)
    text = texts(found['config'], 'problem')
    for name in ('bugdet', 'EarlyStoppingHook', 'num_workers'):
        assert name in text
    assert found['plan'].skipped_for == found['stages'].skipped_for == 'config'
    # What does not depend on it is looked at all the same.
    assert found['images'].passed
    found = quick(**{'method.holdout': 2})
    assert 'method.holdout must be in' in texts(found['config'], 'problem')
    assert quick()['config'].passed


def test_class_count_and_unknown_output_are_both_named(quick):
    spoiled = {
        'model.bbox_head.num_classes': 4,
        'method.query': dict(_delete_=True, type='tjls_mm.Entropy'),
    }
    text = texts(quick(**spoiled)['plan'], 'problem')
    assert 'num_classes=4, the data set has 5' in text
    assert "needs the output 'probability'" in text


def test_unusable_images_are_named_and_mended(quick, part):
    image_id = ids_of(part, 'test')[2]
    path = image_of(part, image_id)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    gone = image_of(part, ids_of(part, 'trainval')[1])
    whole = gone.read_bytes()
    gone.unlink()
    found = quick()
    text = texts(found['images'], 'problem')
    assert f'{path} cannot be read' in text and f'{gone} does not exist' in text
    assert found['duplicates'].skipped_for == 'images'
    path.write_bytes(content)
    gone.write_bytes(whole)
    assert quick()['images'].passed


def test_every_bad_annotation_is_named(quick, part):
    first, second = ids_of(part, 'test')[:2]
    kept = {i: annotation_of(part, i).read_text() for i in (first, second)}
    annotation_of(part, first).unlink()
    start = kept[second].index('<name>') + 6
    spoiled = kept[second][:start] + 'dragon-' + kept[second][start:]
    annotation_of(part, second).write_text(spoiled)
    text = texts(quick()['annotations'], 'problem')
    assert f'{first}.xml' in text and 'dragon-' in text
    for image_id, content in kept.items():
        annotation_of(part, image_id).write_text(content)
    assert quick()['annotations'].passed


def test_copies_in_the_test_set_are_named(quick, part):
    pool, test = ids_of(part, 'trainval'), ids_of(part, 'test')
    found = quick()['duplicates']
    assert 'test images' not in texts(found, 'warning')
    shutil.copy(image_of(part, pool[3]), image_of(part, test[0]))
    with Image.open(image_of(part, pool[5])) as image:
        image.save(image_of(part, test[1]), quality=60)
    shutil.copy(image_of(part, pool[7]), image_of(part, pool[8]))
    found = quick()['duplicates']
    assert found.passed, 'nothing of this stops a trial'
    text = texts(found, 'warning')
    assert '1 test images are in the pool too' in text
    assert f'VOCdemo/{test[0]} = VOCdemo/{pool[3]}' in text
    assert f'VOCdemo/{test[1]} = VOCdemo/{pool[5]}' in text
    assert f'VOCdemo/{pool[8]} = VOCdemo/{pool[7]}' in text


def test_stages_that_do_not_fit_and_a_short_last_one(quick):
    too_many = {'active_learning.stages': 4, 'active_learning.budget': 15}
    text = texts(quick(**too_many)['stages'], 'problem')
    assert '4 with a last selection of 10 (active_learning.allow_short_stage' in text
    advice = {'active_learning.allow_short_stage': True, 'method.branches': {}}
    found = quick('demo_random', **too_many, **advice)['stages']
    assert found.passed
    assert '10 images in place of 15' in texts(found, 'warning')


def test_loss_that_is_not_finite(tiny_config):
    spoiled = {'model.data_preprocessor.std': [0.0, 0.0, 0.0]}
    names = {
        result.name: result for result in examine(Examination(tiny_config(**spoiled)))
    }
    assert 'The loss of stage 0 is' in texts(names['updates'], 'problem')
    assert names['disk'].skipped_for == 'updates'
    assert names['seeds'].passed


class Stumbling(QueryStrategy):
    """Asks for what it did not name among its needs."""

    def select(self, pool, labelled, budget, seed):
        return pool['probability'].argmax(1)[:budget]


def test_strategy_that_would_fail_after_training(class_folders, tmp_path):
    init_default_scope('mmpretrain')
    QUERIES.register_module(module=Stumbling, force=True)
    query = {'method.query': dict(type='tjls_mm.Stumbling', _delete_=True)}
    data = class_folders, tmp_path / 'work', 'random'
    exam = Examination(make_classifier_config(*data, **query))
    result = next(r for r in examine(exam) if r.name == 'updates')
    assert 'Stumbling cannot select' in texts(result, 'warning')
    assert 'probability' in texts(result, 'warning')


def test_work_dir_that_is_taken(quick, tmp_path):
    assert quick()['work dir'].passed
    (tmp_path / 'work' / 'stage_00').mkdir(parents=True)
    assert 'holds stages but no' in texts(quick()['work dir'], 'problem')
    shutil.rmtree(tmp_path / 'work')
    (tmp_path / 'work').write_text('')
    assert 'is a file' in texts(quick()['work dir'], 'problem')
    (tmp_path / 'work').unlink()
    assert quick()['work dir'].passed


@pytest.mark.parametrize('weights, fits', [(10**4, True), (10**18, False)])
def test_disk(tiny_config, weights, fits):
    exam = Examination(tiny_config())
    examine(exam, checks=[c for c in QUICK if c.name in ('config', 'data', 'plan')])
    exam.stages = [StageSize(8, 40, 6, 4, 4)]
    sizes = dict(weights=weights, state=2 * weights, outputs=10.0, memory=0, growth=0)
    times = dict(losses={}, iterations=2, update_s=1.0, score_s=1.0, evaluate_s=1.0)
    exam.rehearsal = Rehearsal(**times, **sizes, capacity=None)
    (check,) = (c for c in CHECKS if c.name == 'disk')
    (finding,) = check.find(exam)
    assert finding.kind == ('fact' if fits else 'problem')
    assert 'are free at' in finding.text


def test_more_seeds_show_smaller_differences(tiny_config):
    ratios = [smallest_ratio(n) for n in (3, 5, 10, 30)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[2] == pytest.approx(1.0, abs=0.02)  # 10 seeds for one deviation
    (check,) = (c for c in CHECKS if c.name == 'seeds')
    (finding,) = check.find(Examination(tiny_config(), n_seeds=1))
    assert finding.kind == 'warning'


def test_tools_exit_with_1_for_problems_only(demo_data, tmp_path, monkeypatch, capsys):
    work = tmp_path / 'work'
    args = [str(config_path('demo_tjls')), '--work-dir', str(work), '--cfg-options']
    good = [*args, *command_line(demo_data)]
    bad = ['--dry-run', *good, 'method.query.type=tjls_mm.Randon']
    assert load_tool('al_doctor').main(good) == 0
    out = capsys.readouterr().out
    assert 'Nothing was found that would stop the trial. 0 problems' in out
    monkeypatch.setattr(sys, 'argv', ['al_train.py', *bad])
    assert load_tool('al_train').main() == 1
    out = capsys.readouterr().out
    assert 'Randon' in out and 'The trial would stop. 1 problem' in out
    assert not work.exists()
