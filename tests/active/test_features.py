"""Pretrained features: once per trial, of every image, and what they choose first."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import make_classifier_config, make_config
from mmengine.registry import init_default_scope
from test_kills import Killer
from test_trial import Killed

from tjls_mm.active.features import (
    build_features,
    describe_features,
    extract_features,
    features_of,
)
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.trial import Trial, run_stages
from tjls_mm.datasets import VOCFiles
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.models import EfficientNetLite0, PretrainedFeatures
from tjls_mm.outputs import Needs, Outputs
from tjls_mm.query import QUERIES, QueryStrategy
from tjls_mm.report.comparison import read_trials
from tjls_mm.stage_folder import TrialFolder

SEEN = []


@QUERIES.register_module(force=True)
class FarFromOthers(QueryStrategy):
    """Far from what is labelled, or from the mean, with noise; remembers the rest."""

    needs = Needs(('pretrained_feature',), ('pretrained_feature',))

    def select(self, pool, labelled, budget, seed):
        SEEN.append((pool, labelled))
        x, known = pool['pretrained_feature'], labelled['pretrained_feature']
        centre = (known if len(known) else x).mean(0)
        distance = np.linalg.norm(x - centre, axis=1)
        noise = np.random.default_rng(seed).normal(0, distance.std(), len(x))
        return pool.smallest(noise - distance, budget, seed)


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    """Weights of a backbone that has one block."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save(EfficientNetLite0(out_indices=(0,)).state_dict(), path)
    return path


def features(weights: Path, **kwargs) -> dict:
    init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    return dict(
        type='tjls_mm.PretrainedFeatures',
        backbone=dict(
            type='tjls_mm.EfficientNetLite0', out_indices=(0,), init_cfg=init_cfg
        ),
        **{'mean': [120.0] * 3, 'std': [60.0] * 3, 'size': 32, **kwargs},
    )


@pytest.fixture
def config(demo_data, tmp_path, weights):
    """Function that makes a trial whose images are all chosen by features."""

    def make(work_dir='work', data=None, task='detection', **options):
        init_default_scope('mmdet' if task == 'detection' else 'mmpretrain')
        if task == 'detection':
            cfg = make_config(
                data or demo_data, tmp_path / work_dir, 'demo_random', **options
            )
        else:
            cfg = make_classifier_config(data, tmp_path / work_dir, 'random', **options)
        cfg.method.query = dict(type='FarFromOthers')
        cfg.method.features = features(weights)
        cfg.active_learning.initial = dict(type='FarFromOthers', size=8)
        return cfg

    return make


def chosen(work_dir: Path) -> tuple[list[str], bytes]:
    """What is labelled first, and the features by which that was chosen."""
    folder = TrialFolder(work_dir)
    array = np.load(folder.features / 'pretrained_feature.npy')
    return read_image_ids(folder.initial), array.tobytes()


def start(cfg) -> list[str]:
    """Begin a trial: its first labelled images."""
    with Trial(cfg) as trial:
        trial.choose_initial()
        return trial.initial


@pytest.fixture(scope='module')
def reference(demo_data, weights, tmp_path_factory):
    """A whole trial that nobody stopped."""
    init_default_scope('mmdet')
    work_dir = tmp_path_factory.mktemp('reference') / 'work'
    cfg = make_config(demo_data, work_dir, 'demo_random')
    cfg.method.query = dict(type='FarFromOthers')
    cfg.method.features = features(weights)
    cfg.active_learning.initial = dict(type='FarFromOthers', size=8)
    run_stages(cfg)
    return work_dir


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Images of every pass of a pretrained backbone; the one marked -1 is killed."""
    seen, forward = [], PretrainedFeatures.forward

    def counted(self, inputs, *args):
        if seen == [-1, 16]:
            raise Killed
        seen.append(len(inputs))
        return forward(self, inputs, *args)

    monkeypatch.setattr(PretrainedFeatures, 'forward', counted)
    return seen


@pytest.mark.parametrize('task', ['detection', 'classification'])
def test_every_row_is_of_its_image_and_computed_once(
    task, config, demo_data, class_folders, weights, passes
):
    SEEN.clear()
    data = demo_data if task == 'detection' else class_folders
    cfg = config(task=task, data=data)
    run_stages(cfg)
    (first_pool, nothing), (pool, labelled) = SEEN
    start(config(task=task, data=data, **{'active_learning.stages': 3}))
    assert sum(passes) == len(first_pool.image_ids)
    folder = TrialFolder(cfg.work_dir)
    assert first_pool.image_ids == TrialPlan(cfg).image_ids
    assert nothing['pretrained_feature'].shape == (0, 16) and not nothing.image_ids
    assert labelled.image_ids == read_image_ids(folder.initial)
    assert pool.image_ids == read_image_ids(folder.stage(0).pool)
    alone = EfficientNetLite0(out_indices=(0,))
    alone.load_state_dict(torch.load(weights, weights_only=True))
    source = TrialPlan(cfg).source
    for outputs in (first_pool, pool, labelled):
        found = outputs['pretrained_feature']
        assert found.shape == (len(outputs.image_ids), 16)
        assert found.dtype == np.float32
        for row in (0, 3, len(found) - 1):
            image = cv2.imread(source.image_path(outputs.image_ids[row]))[..., ::-1]
            shrinks = max(image.shape) > 32
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = (cv2.resize(image, (32, 32), interpolation=how) - 120.0) / 60
            pixels = torch.from_numpy(image.transpose(2, 0, 1)[None]).float()
            with torch.no_grad():
                expected = alone.eval()(pixels)[0].mean((2, 3))[0]
            np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_stopped_in_the_middle_and_started_again(reference, config, passes):
    passes.append(-1)
    with pytest.raises(Killed):
        start(config())
    passes.clear()
    start(config())
    assert passes == [16, 16, 16]
    assert chosen(config().work_dir) == chosen(reference)


def test_no_annotation_is_opened_for_features(
    reference, config, copied_data, monkeypatch
):
    """Of the pool they may be missing or broken."""
    never = read_image_ids(TrialFolder(reference).stage(0).pool)
    for i, image_id in enumerate(never):
        name = f'{image_id.split("/")[1]}.xml'
        path = copied_data / 'VOCdemo' / 'Annotations' / name
        path.write_text('<poison>') if i % 2 else path.unlink()
    opened, instances = [], VOCFiles.instances

    def noted(self, image_id):
        opened.append(image_id)
        return instances(self, image_id)

    monkeypatch.setattr(VOCFiles, 'instances', noted)
    cfg = config(data=copied_data)
    start(cfg)
    assert chosen(cfg.work_dir) == chosen(reference)
    assert opened and not set(never) & set(opened)


def test_a_chosen_image_without_annotation_is_named(reference, config, copied_data):
    missing = read_image_ids(reference / 'initial.txt')[3]
    name = f'{missing.split("/")[1]}.xml'
    path = copied_data / 'VOCdemo' / 'Annotations' / name
    kept = path.read_text()
    path.unlink()
    cfg = config(data=copied_data)
    with pytest.raises(InputError, match=name):
        run_stages(cfg)
    folder = TrialFolder(cfg.work_dir)
    assert missing in read_image_ids(folder.initial), 'who labels them can read it'
    assert not folder.stage_numbers()
    path.write_text(kept)
    start(cfg)
    assert chosen(cfg.work_dir) == chosen(reference)


def test_methods_of_one_seed_start_alike_and_say_by_what(
    reference, config, tmp_path, capsys
):
    cfg = config('random')
    cfg.method.query = dict(type='tjls_mm.Random')
    run_stages(cfg)
    one, two = read_trials([reference, cfg.work_dir])
    assert one.sets['initial'] == two.sets['initial'] and one.sets['initial'][0] == 8
    assert chosen(cfg.work_dir) == chosen(reference)
    stages = [TrialFolder(cfg.work_dir).stage(number) for number in (0, 1)]
    first, second = (json.loads(stage.metrics.read_text()) for stage in stages)
    assert first['features']['backbone'] == 'EfficientNetLite0'
    line = f'features EfficientNetLite0 {first["features"]["weights"][:8]}'
    assert capsys.readouterr().out.count(line) == 1
    assert 'features' not in second, 'they chose nothing after it'
    other = start(config('other', **{'randomness.seed': 1}))
    assert other != read_image_ids(reference / 'initial.txt')


def extract(cfg) -> tuple[list[str], np.ndarray, dict]:
    """image_ids, their features, and what these are of."""
    plan, folder = TrialPlan(cfg), TrialFolder(cfg.work_dir)
    model = build_features(cfg, cfg.method.features, load=True)
    outputs = extract_features(model, plan, folder)
    assert outputs.image_ids == plan.image_ids
    found = np.array(outputs['pretrained_feature'])
    return outputs.image_ids, found, describe_features(model)


def test_other_weights_pixels_or_images_are_other_features(
    config, copied_data, weights, tmp_path
):
    """What was extracted of something else is never taken for these."""
    cfg = config(data=copied_data)
    ids, before, facts = extract(cfg)
    other = torch.load(weights, weights_only=True)
    torch.save({k: w + 0.1 for k, w in other.items()}, tmp_path / 'other.pth')
    for changed in (features(tmp_path / 'other.pth'), features(weights, size=64)):
        cfg.method.features = changed
        _, found, now = extract(cfg)
        assert not np.array_equal(found, before) and now['weights'] != facts['weights']
    cfg.method.features = features(weights)
    listed = copied_data / 'VOCdemo' / 'ImageSets' / 'Main' / 'trainval.txt'
    write_image_ids(listed, listed.read_text().split()[1:])
    fewer, found, _ = extract(cfg)
    assert len(fewer) == 47
    rows = [ids.index(image_id) for image_id in fewer]
    np.testing.assert_allclose(found, before[rows], atol=1e-6)


def test_weights_that_change_in_the_middle_of_a_trial_are_refused(
    config, weights, tmp_path
):
    path = Path(shutil.copy(weights, tmp_path / 'weights.pth'))
    cfg = config()
    cfg.method.features = features(path)
    cfg.active_learning.stages = 1
    run_stages(cfg)
    kept = torch.load(weights, weights_only=True)
    torch.save({k: w + 0.1 for k, w in kept.items()}, path)
    cfg.active_learning.stages = 2
    with pytest.raises(InputError, match=r'weights of method\.features are others'):
        run_stages(cfg)
    shutil.copy(weights, path)
    assert len(start(cfg)) == 8


def test_features_that_are_no_numbers_are_refused(config):
    cfg = config()
    cfg.method.features.std = [0.0] * 3
    with pytest.raises(InputError, match='not finite. Correct mean and std'):
        start(cfg)


def test_stopped_before_any_change_of_a_file_until_images_are_chosen(
    reference, config, tmp_path
):
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch, tmp_path)
        expected = start(config())
        assert expected == read_image_ids(reference / 'initial.txt')
    state = json.loads((tmp_path / 'work' / 'al_state.json').read_text())
    assert killer.count > 8
    for at in (killer.count // 3, killer.count * 2 // 3, killer.count):
        shutil.rmtree(tmp_path / 'work')
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, tmp_path, at)
            with pytest.raises(Killed):
                start(config())
        assert start(config()) == expected
        found = json.loads((tmp_path / 'work' / 'al_state.json').read_text())
        assert found == state


@pytest.mark.parametrize('name', ['CoreSet', 'MaxHerding', 'TypiClust'])
def test_strategies_on_whole_images_can_choose_first(name, config):
    cfg = config()
    strategy = dict(type=f'tjls_mm.{name}', features='pretrained_feature')
    cfg.method.query = strategy
    cfg.active_learning.initial = {**strategy, 'size': 8}
    initial = start(cfg)
    assert len(set(initial)) == 8 and set(initial) < set(TrialPlan(cfg).image_ids)


def test_an_initial_set_without_features(config):
    """A strategy that asks for nothing needs no features."""
    cfg = config()
    cfg.method.features = None
    cfg.method.query = dict(type='tjls_mm.Random')
    cfg.active_learning.initial = dict(type='tjls_mm.Random', size=0.25)
    assert len(start(cfg)) == 12
    assert not TrialFolder(cfg.work_dir).features.exists()


@QUERIES.register_module(force=True)
class OfLearner(QueryStrategy):
    """Asks for what a learner alone can say."""

    needs = Needs(('feature',))

    def select(self, pool, labelled, budget, seed):
        return np.arange(budget)


BACKBONE = 'method.features.backbone'


@pytest.mark.parametrize(
    'options, match',
    [
        ({'method.features': None}, r'needs the output .pretrained_feature.: write'),
        (
            {f'{BACKBONE}.type': 'NoSuchNet'},
            r'method\.features cannot be built.*NoSuch',
        ),
        ({f'{BACKBONE}.init_cfg': None}, r'has no weights.*init_cfg='),
        ({f'{BACKBONE}.init_cfg.checkpoint': 'no.pth'}, r'no\.pth does not exist'),
        ({f'{BACKBONE}.out_indices': (5,)}, r'lack \d+ of \d+ layers.*blocks\.1\.'),
        ({'method.features.mean': None}, r'expected mean and std'),
        ({'method.features.size': 0}, r'size must be 1 or more'),
        (
            {'method.features.type': 'tjls_mm.WideResNet'},
            r'cannot be built.*Write dict',
        ),
        ({'method.features.colour': 1}, r'cannot be built.*colour'),
        (
            {'active_learning.initial.type': 'OfLearner'},
            r"needs \['feature'\] of a lear",
        ),
        ({'active_learning.initial.type': 'NoSuch'}, r"'NoSuch' is unknown. Known"),
        ({'active_learning.initial.size': None}, r'initial\.size must be a positive'),
        ({'active_learning.initial.size': 49}, r'initial\.size asks for 49 images'),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(options, match, config):
    cfg = config()
    cfg.merge_from_dict(options)
    with pytest.raises(InputError, match=match):
        run_stages(cfg)
    assert not Path(cfg.work_dir).exists()


def test_features_are_those_of_the_named_images():
    outputs = Outputs.from_arrays(
        ['a', 'b', 'c'], {'pretrained_feature': np.arange(3.0)[:, None]}
    )
    assert features_of(outputs, ['c', 'a']).tolist() == [[2.0], [0.0]]
