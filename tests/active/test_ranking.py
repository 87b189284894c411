"""Ranking a folder of images by a checkpoint: no trial, no labels, no test set."""

import copy
import csv
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import families
import numpy as np
import pytest
import torch
from conftest import load_tool, make_config
from mmengine.config import Config
from PIL import Image
from test_coco_trial import CATEGORIES
from test_coco_trial import coco as demo_coco
from test_kills import Killer
from test_trial import Killed

from tjls_mm.active import score_cache
from tjls_mm.active.handed_model import HandedModel
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.ranking import RankingJob, rank_images
from tjls_mm.active.ranking_inputs import DEFAULT_QUERIES, parse_settings
from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import CocoFiles, FolderImages
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.models import EfficientNetLite0
from tjls_mm.outputs import Needs
from tjls_mm.outputs.readers.dense import DenseReader
from tjls_mm.query import QUERIES, QueryStrategy
from tjls_mm.query.strategy import Selection
from tjls_mm.stage_folder import RankingFolder, TrialFolder

CLASSES = ('ball', 'crate', 'cone')
N_IMAGES, BUDGET = 14, 4
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
SEEN = []


@QUERIES.register_module(force=True)
class MeanScore(QueryStrategy):
    """By boxes, and remembers what it was given."""

    needs = Needs(('boxes', 'feature'), ('feature',))

    def select(self, pool, labelled, budget, seed):
        SEEN.append((pool, labelled))
        score = pool['boxes'].reduce(pool['boxes'].score, 'sum')
        return Selection(pool.smallest(-score, budget, seed), {'score': score})


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((80, 60)).save(path)


@pytest.fixture(scope='module')
def brought(tmp_path_factory) -> Path:
    """A config and weights as somebody brings them, and a folder of images."""
    root = tmp_path_factory.mktemp('brought')
    for i in range(N_IMAGES):
        folder = ('', 'day/one', 'night')[i % 3]
        draw(root / 'images' / folder / f'{i:02d}{(".png", ".JPG")[i % 2]}', i)
    (root / 'images' / 'notes.txt').write_text('no image')
    model = families.family('retinanet', len(CLASSES))
    model.test_cfg.update(nms_pre=100, max_per_img=10)
    detector = families.settle(families.build(model))
    with torch.no_grad():  # a born one is sure of nothing
        detector.bbox_head.retina_cls.weight.mul_(30)
        detector.bbox_head.retina_cls.bias.fill_(-1)
    torch.save({'state_dict': detector.state_dict()}, root / 'weights.pth')
    dataset = dict(type='CocoDataset', metainfo=dict(classes=CLASSES))
    dataset.update(pipeline=PIPELINE, data_root='nowhere', ann_file='none.json')
    loader = dict(batch_size=2, num_workers=0, dataset=dataset)
    whole = dict(default_scope='mmdet', model=model, test_dataloader=loader)
    Config(whole).dump(root / 'config.py')
    return root


@pytest.fixture
def job(brought, tmp_path) -> RankingJob:
    return RankingJob(
        images=str(brought / 'images'),
        budget=BUDGET,
        config=str(brought / 'config.py'),
        checkpoint=str(brought / 'weights.pth'),
        query='MeanScore',
        work_dir=str(tmp_path / 'work'),
    )


@pytest.fixture(scope='module')
def done(brought, tmp_path_factory) -> Path:
    """Work dir of a ranking that nobody stopped."""
    work_dir = tmp_path_factory.mktemp('done') / 'work'
    files = str(brought / 'config.py'), str(brought / 'weights.pth')
    images, query = str(brought / 'images'), 'MeanScore'
    return rank_images(
        RankingJob(images, BUDGET, *files, query=query, work_dir=str(work_dir))
    )


@pytest.fixture
def copied(done, job) -> RankingJob:
    """A job whose work dir holds what that ranking left."""
    shutil.copytree(done, job.work_dir)
    return job


class Witness:
    """image_ids in the order in which detectors see them; kills after so many."""

    def __init__(self) -> None:
        self.seen, self.limit = [], None


@pytest.fixture
def scored(monkeypatch) -> Witness:
    """What a detector sees in a test."""
    witness, real = Witness(), DenseReader.boxes

    def boxes(self, model, feats, samples, image_ids):
        if len(witness.seen) == witness.limit:
            raise Killed
        witness.seen.extend(image_ids)
        return real(self, model, feats, samples, image_ids)

    monkeypatch.setattr(DenseReader, 'boxes', boxes)
    return witness


def results(work_dir) -> dict[str, bytes]:
    """Name and content of everything but outputs."""
    root = Path(work_dir)
    names = (p.relative_to(root) for p in sorted(root.rglob('*')) if p.is_file())
    kept = (n for n in names if n.parts[0] not in ('outputs', '.lock'))
    return {str(name): (root / name).read_bytes() for name in kept}


def refused(job: RankingJob) -> str:
    """The message by which a job is refused."""
    with pytest.raises(InputError) as error:
        rank_images(job)
    return str(error.value)


def test_what_a_ranking_leaves(done, brought):
    folder, images = RankingFolder(done), brought / 'images'
    selected = read_image_ids(folder.selected)
    with open(folder.ranking, newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['image_id'] for row in rows[:BUDGET]] == selected
    assert [row['rank'] for row in rows[: BUDGET + 1]] == ['1', '2', '3', '4', '']
    everything = {str(p.relative_to(images)) for p in images.rglob('*.*')}
    assert {row['image_id'] for row in rows} == everything - {'notes.txt'}
    scores = [float(row['score']) for row in rows]
    assert scores[:BUDGET] == sorted(scores, reverse=True)[:BUDGET]
    assert min(scores) < max(scores)
    with open(folder.picked_names, newline='') as file:
        names = {row['image_id']: row['file'] for row in csv.DictReader(file)}
    assert list(names) == selected
    assert list(names.values()) == sorted(
        p.name for p in folder.picked_images.iterdir()
    )
    for image_id, name in names.items():
        copy = folder.picked_images / name
        assert copy.read_bytes() == (images / image_id).read_bytes()
    assert Image.open(folder.gallery).size[0] > 100
    record = json.loads(folder.record.read_text())
    assert record['classes'] == list(CLASSES)
    assert (record['pool'], record['selected']) == (N_IMAGES, BUDGET)


def test_boxes_are_those_that_the_detector_predicts(done, brought):
    store = next((done / 'outputs').glob('*/*/index.json')).parent
    outputs = score_cache.Outputs.open(store)
    cfg = Config.fromfile(brought / 'config.py')
    model = families.build(cfg.model)
    model.load_state_dict(torch.load(brought / 'weights.pth')['state_dict'])
    from mmdet.apis import inference_detector

    model.eval().cfg = cfg
    image_id = outputs.image_ids[3]
    path = str(brought / 'images' / image_id)
    (found,) = inference_detector(model, [path])
    own = outputs['boxes'][3]
    assert len(own.score) == len(found.pred_instances) > 0
    np.testing.assert_allclose(own.score, found.pred_instances.scores, rtol=1e-4)
    np.testing.assert_allclose(own.xyxy, found.pred_instances.bboxes, atol=1e-2)


def test_outputs_are_not_computed_again(copied, done, scored):
    before = results(done)
    rank_images(copied)
    assert results(copied.work_dir) == before
    rank_images(replace(copied, budget=7, query="Entropy(over='max')", seed=3))
    folder = RankingFolder(copied.work_dir)
    assert len(read_image_ids(folder.selected)) == 7
    assert len(list(folder.picked_images.iterdir())) == 7
    assert scored.seen == []
    # Another rule needs more than there is: of that alone the detector is asked.
    rank_images(replace(copied, query='FlipConsistency'))
    assert len(set(scored.seen)) == N_IMAGES
    scored.seen.clear()
    rank_images(copied)
    assert scored.seen == [] and results(copied.work_dir) == before


def test_labelled_images_are_left_out_and_looked_at(copied, job, scored, tmp_path):
    rank_images(copied)
    pool, none = SEEN[-1]
    assert none['feature'].shape == (0, pool['feature'].shape[1])
    ids = pool.image_ids
    labelled = [ids[2], ids[5], ids[9]]
    lines = [
        ids[2],
        os.path.join(job.images, ids[5]),
        os.path.relpath(os.path.join(job.images, ids[9])),
    ]
    path = tmp_path / 'labelled.txt'
    path.write_text(''.join(f'{line}\n' for line in lines))
    rank_images(replace(copied, labelled=str(path)))
    assert scored.seen == []
    rest, known = SEEN[-1]
    assert known.image_ids == labelled
    assert rest.image_ids == [i for i in ids if i not in labelled]
    rank_images(replace(job, labelled=str(path), work_dir=str(tmp_path / 'fresh')))
    assert set(scored.seen) == set(rest.image_ids)  # boxes of the pool alone
    for part, (of_cache, computed) in enumerate(zip(SEEN[-2], SEEN[-1], strict=True)):
        assert of_cache.image_ids == computed.image_ids
        np.testing.assert_array_equal(of_cache['feature'], computed['feature'])
        if not part:
            for name in ('offsets', 'xyxy', 'score', 'label', 'probability', 'prior'):
                a, b = (getattr(o['boxes'], name) for o in (of_cache, computed))
                np.testing.assert_array_equal(a, b)
    picked = read_image_ids(RankingFolder(copied.work_dir).selected)
    assert not set(picked) & set(labelled)
    assert results(copied.work_dir)['ranking.csv'] == (
        (tmp_path / 'fresh' / 'ranking.csv').read_bytes()
    )


def test_another_image_or_setting_is_scored_anew(copied, scored, tmp_path):
    images = Path(shutil.copytree(copied.images, tmp_path / 'images'))
    for path in images.rglob('*.*'):  # copies with the times of the originals
        shutil.copystat(Path(copied.images) / path.relative_to(images), path)
    job = replace(copied, images=str(images))
    RankingFolder(job.work_dir).record.unlink()  # as if the folder had been moved
    rank_images(job)
    assert scored.seen == []
    draw(images / 'night' / '02.png', 99)
    rank_images(job)
    assert set(scored.seen) == {str(p) for p in SEEN[-1][0].image_ids}
    scored.seen.clear()
    rank_images(replace(job, cfg_options=['model.test_cfg.score_thr=0.2']))
    assert len(set(scored.seen)) == N_IMAGES


def test_a_kill_while_scoring(done, job, scored, monkeypatch):
    monkeypatch.setattr(score_cache, 'SHARD', 4)
    scored.limit = 8
    with pytest.raises(Killed):
        rank_images(job)
    scored.limit = None
    killed = list(scored.seen)
    rank_images(job)
    again = scored.seen[len(killed) :]
    assert results(job.work_dir) == results(done)
    # Of what was seen before, no more than a shard is seen again.
    assert 0 < len(set(killed) & set(again)) <= 4
    assert set(killed) | set(again) == {*read_all(done)}


def read_all(work_dir: Path) -> list[str]:
    with open(RankingFolder(work_dir).ranking, newline='') as file:
        return [row['image_id'] for row in csv.DictReader(file)]


def test_a_kill_while_writing(copied, done, tmp_path):
    """Before every change of a file: no list of picks, or the whole."""
    job, expected, at = replace(copied, budget=2, link=True), None, 0
    with pytest.MonkeyPatch.context() as patch:
        whole = tmp_path / 'whole'
        shutil.copytree(done, whole)
        killer = Killer(patch, whole)
        rank_images(replace(job, work_dir=str(whole)))
        expected = results(whole)
    assert killer.count > 6
    for at in range(1, killer.count + 1):
        with pytest.MonkeyPatch.context() as patch:
            Killer(patch, job.work_dir, at)
            with pytest.raises(Killed):
                rank_images(job)
        folder = RankingFolder(job.work_dir)
        if folder.selected.exists():
            left = results(job.work_dir)
            assert left['selected.txt'] in (
                expected['selected.txt'],
                results(done)['selected.txt'],
            )
            names = {'ranking.csv', 'ranking.json', 'to_annotate/images.csv'}
            same = [left[n] == expected[n] for n in names]
            assert all(same) or not any(same)
        rank_images(job)
        assert results(job.work_dir) == expected
        rank_images(copied)
        assert results(job.work_dir) == results(done)


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ['EVIL_FOLDER'],)


def test_weights_are_loaded_safely(copied, tmp_path, monkeypatch, scored):
    folder = tmp_path / 'evil'
    monkeypatch.setenv('EVIL_FOLDER', str(folder))
    content = torch.load(copied.checkpoint)
    path = tmp_path / 'evil.pth'
    torch.save({**content, 'message_hub': Evil()}, path)
    job = replace(copied, checkpoint=str(path))
    message = refused(job)
    assert '--trust-checkpoint' in message and str(path) in message
    assert not folder.exists()
    rank_images(replace(job, trust_checkpoint=True))
    assert folder.exists()
    path.write_bytes(pickle.dumps([1, 2]))
    assert str(path) in refused(job)
    torch.save({'state_dict': {'a': 3}}, path)
    assert 'no weights' in refused(job)


def test_weights_of_another_model(job, brought, tmp_path, scored):
    content = torch.load(job.checkpoint)
    state = content['state_dict']
    path = tmp_path / 'other.pth'
    bad = replace(job, checkpoint=str(path))

    def save(state, **meta):
        torch.save({'state_dict': state, 'meta': meta}, path)

    save({k: v for k, v in state.items() if not k.startswith('neck')})
    message = refused(bad)
    assert 'neck.lateral_convs.0.conv.weight is missing' in message
    count = sum(key.startswith('neck') for key in state)
    assert f'differ: {count} (the model has {len(state)})' in message
    save({**state, 'more.weight': torch.zeros(1)})
    assert 'more.weight is not in the model' in refused(bad)
    options = ['model.bbox_head.num_classes=5']
    save(state, dataset_meta=dict(classes=CLASSES))
    message = refused(replace(bad, cfg_options=options))
    assert 'differ: 2 (' in message and 'bbox_head.retina_cls' in message
    assert 'trained on 3 classes, the config has 5' in message
    assert scored.seen == []
    broken = {
        **state,
        'bbox_head.retina_cls.bias': torch.full_like(
            state['bbox_head.retina_cls.bias'], float('nan')
        ),
    }
    save(broken)
    message = refused(bad)
    assert 'cannot rank these images' in message and '00.png' in message
    assert (
        '--work-dir' not in message and not Path(bad.work_dir, 'selected.txt').exists()
    )
    scored.seen.clear()
    # As a wrapper for several GPUs saves them.
    save({f'module.{key}': value for key, value in state.items()})
    rank_images(bad)
    assert len(set(scored.seen)) == N_IMAGES


def test_unreadable_images_are_named_at_once(copied, tmp_path, scored):
    images = Path(shutil.copytree(copied.images, tmp_path / 'images'))
    job = replace(copied, images=str(images), budget=N_IMAGES - 2)
    RankingFolder(job.work_dir).record.unlink()
    (images / '03.JPG').write_bytes(b'')
    whole = (images / 'night' / '02.png').read_bytes()
    (images / 'night' / '02.png').write_bytes(whole[:200])
    message = refused(job)
    assert '2 of 14' in message and '--skip-unreadable' in message
    assert '03.JPG is empty' in message and 'night/02.png' in message
    assert scored.seen == []


def test_unreadable_images_are_left_out(job, tmp_path, capsys, scored):
    images = Path(shutil.copytree(job.images, tmp_path / 'images'))
    broken = sorted(str(p.relative_to(images)) for p in images.rglob('0*.png'))
    for name in broken:
        (images / name).write_bytes(b'no image')
    job = replace(job, images=str(images), skip_unreadable=True)
    rank_images(job)
    out = capsys.readouterr().out
    assert all(name in out for name in broken)
    assert json.loads(RankingFolder(job.work_dir).record.read_text())['left_out'] == (
        broken
    )
    assert not {*read_all(job.work_dir)} & {*broken}
    left = N_IMAGES - len(broken)
    assert f'1 to {left}' in refused(replace(job, budget=left + 1))


def test_nothing_outside_the_folder(job, tmp_path, scored):
    images = Path(shutil.copytree(job.images, tmp_path / 'images'))
    job = replace(job, images=str(images))
    draw(tmp_path / 'secret.png', 5)
    (images / 'link.png').symlink_to(tmp_path / 'secret.png')
    message = refused(job)
    assert 'link.png' in message and 'secret.png' in message
    (images / 'link.png').unlink()
    (images / 'away').symlink_to(tmp_path)
    assert 'away' in refused(job)
    (images / 'away').unlink()
    (images / 'link.png').symlink_to(images / '00.png')
    (images / '.hidden').mkdir()
    draw(images / '.hidden' / 'x.png', 3)
    assert f'1 to {N_IMAGES + 1},' in refused(replace(job, budget=99))
    (tmp_path / 'list.txt').write_text(f'{tmp_path}/secret.png\n')
    message = refused(replace(job, labelled=str(tmp_path / 'list.txt')))
    assert '1 of its lines' in message and 'secret.png' in message
    inside = replace(job, work_dir=str(images / 'work'))
    assert 'lies in the folder of images' in refused(inside)
    assert scored.seen == [] and not (images / 'work').exists()


def test_a_ranking_of_another_folder_stays(copied, tmp_path, monkeypatch, scored):
    before, folder = results(copied.work_dir), RankingFolder(copied.work_dir)
    record = json.loads(folder.record.read_text())
    assert record['folder'] == os.path.abspath(copied.images)
    other = shutil.copytree(copied.images, tmp_path / 'site' / 'images')
    message = refused(replace(copied, images=str(other)))
    assert 'ranking.json' in message and '\n' not in message
    assert copied.images in message and str(other) in message
    # The same folder by other names is the same.
    (tmp_path / 'link').symlink_to(copied.images)
    rank_images(replace(copied, images=str(tmp_path / 'link')))
    monkeypatch.chdir(copied.images)
    rank_images(replace(copied, images='.'))
    assert results(copied.work_dir) == before and scored.seen == []


def test_images_in_the_work_dir_are_refused(copied, scored):
    before, picks = results(copied.work_dir), RankingFolder(copied.work_dir)
    for images in (picks.picked_images, picks.path):
        message = refused(replace(copied, images=str(images), budget=1))
        assert 'lies in' in message and '\n' not in message
    assert results(copied.work_dir) == before and scored.seen == []


def coco(image_ids, categories=CLASSES, spoil=()) -> dict:
    images = [
        {'id': i, 'file_name': name, 'width': 80, 'height': 60}
        for i, name in enumerate(image_ids)
    ]
    boxes = [
        {'id': i, 'image_id': i, 'category_id': 1, 'bbox': [5, 5, 20, 20]}
        for i in range(len(images))
    ]
    for i in spoil:  # a label that nobody may open
        boxes[i]['category_id'] = 77
    names = [{'id': i, 'name': name} for i, name in enumerate(categories, 1)]
    return {'images': images, 'annotations': boxes, 'categories': names}


def test_labels_of_labelled_images_alone(copied, done, tmp_path, scored):
    ids = sorted(read_all(done))
    listed, answers = tmp_path / 'labelled.txt', tmp_path / 'answers.json'
    listed.write_text(''.join(f'{image_id}\n' for image_id in ids[:3]))
    answers.write_text(json.dumps(coco(ids, spoil=range(3, len(ids)))))
    job = replace(copied, query=None, labelled=str(listed))
    counted = replace(job, annotations=str(answers))
    rank_images(counted)
    record = json.loads(RankingFolder(job.work_dir).record.read_text())
    assert record['query'] == DEFAULT_QUERIES['label counts']
    assert record['labelled'] == 3
    balanced = (RankingFolder(job.work_dir).ranking).read_bytes()
    # Three balls are known; were none, the first picks would be worth more.
    listed.write_text('')
    rank_images(replace(counted, annotations=None, query='ClassBalanced'))
    assert RankingFolder(job.work_dir).ranking.read_bytes() != balanced
    assert scored.seen == []
    listed.write_text(f'{ids[0]}\n')
    message = refused(replace(job, query='ClassBalanced'))
    assert '--annotations' in message and 'ClaSP' in message
    message = refused(replace(copied, query='ClassBalanced'))
    assert '--labelled' in message
    assert '--labelled' in refused(replace(copied, annotations=str(answers)))
    answers.write_text(json.dumps(coco(ids, ('ball', 'crate', 'hat'))))
    assert "'hat' is no class" in refused(counted)
    answers.write_text(json.dumps(coco(ids[1:])))
    assert ids[0] in refused(counted)
    rank_images(job)
    record = json.loads(RankingFolder(job.work_dir).record.read_text())
    assert record['query'] == DEFAULT_QUERIES['detector']


def test_features_alone_choose_a_first_set(job, tmp_path, scored):
    torch.manual_seed(0)
    weights = tmp_path / 'tiny.pth'
    torch.save(EfficientNetLite0(out_indices=(0,)).state_dict(), weights)
    features = (
        "PretrainedFeatures(backbone=dict(type='tjls_mm.EfficientNetLite0', "
        f"out_indices=(0,), init_cfg=dict(type='Pretrained', checkpoint='{weights}')), "
        'mean=[120, 120, 120], std=[60, 60, 60], size=32)'
    )
    job = replace(job, config=None, checkpoint=None, query=None, features=features)
    rank_images(job)
    folder = RankingFolder(job.work_dir)
    first = results(job.work_dir)
    record = json.loads(folder.record.read_text())
    assert record['query'] == DEFAULT_QUERIES['features']
    assert len(set(read_image_ids(folder.selected))) == BUDGET
    # A strategy that takes features is given them; the rest is there already.
    stores = sorted(p.stat().st_mtime_ns for p in folder.outputs.glob('*/*/*.npy'))
    rank_images(replace(job, query='CoreSet'))
    assert stores == sorted(
        p.stat().st_mtime_ns for p in folder.outputs.glob('*/*/*.npy')
    )
    rank_images(job)
    assert results(job.work_dir) == first
    assert 'CONFIG and CHECKPOINT' in refused(replace(job, query='ClaSP'))
    # Of such weights, too, nothing is run.
    torch.save({'state_dict': Evil}, weights)
    assert '--trust-checkpoint' in refused(job)
    assert scored.seen == []


def test_a_classifier(job, tmp_path):
    model = dict(
        type='ImageClassifier',
        backbone=dict(
            type='ResNet_CIFAR',
            depth=18,
            base_channels=8,
            stem_channels=8,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1,),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
    )
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=36),
        dict(type='CenterCrop', crop_size=32),
        dict(type='PackInputs'),
    ]
    loader = dict(batch_size=4, dataset=dict(type='CustomDataset', pipeline=pipeline))
    prep = dict(num_classes=3, mean=[120] * 3, std=[60] * 3)
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            data_preprocessor=prep,
            test_dataloader=loader,
        )
    )
    cfg.dump(tmp_path / 'cls.py')
    from tjls_mm.active.learner import build_model

    torch.manual_seed(0)
    built = build_model(cfg, cfg.model)
    torch.save({'state_dict': built.state_dict()}, tmp_path / 'cls.pth')
    job = replace(
        job,
        config=str(tmp_path / 'cls.py'),
        query=None,
        checkpoint=str(tmp_path / 'cls.pth'),
    )
    rank_images(job)
    record = json.loads(RankingFolder(job.work_dir).record.read_text())
    assert record['query'] == DEFAULT_QUERIES['classifier']
    assert record['classes'] == ['class 0', 'class 1', 'class 2']
    plain, grey = copy.deepcopy(cfg), copy.deepcopy(cfg)
    plain.data_source, grey.data_source = dict(channels=3), dict(channels=1)
    made_of = [HandedModel(c, job.checkpoint).made_of for c in (cfg, plain, grey)]
    assert made_of[0] == made_of[1] != made_of[2]
    names = ["metainfo.classes=['crane','hen','crane']"]
    rank_images(replace(job, cfg_options=names))  # ImageNet has two, a bird and a tool
    record = json.loads(RankingFolder(job.work_dir).record.read_text())
    assert record['classes'] == ['crane (0)', 'hen', 'crane (2)']
    message = refused(replace(job, query='ClaSP'))
    assert "'boxes'" in message and 'classifier' in message
    ids = sorted(read_all(job.work_dir))
    (tmp_path / 'list.txt').write_text(f'{ids[0]}\n')
    (tmp_path / 'labels.txt').write_text(f'{ids[0]} 2\n')
    rank_images(
        replace(
            job,
            query="ClassBalanced(output='probability')",
            labelled=str(tmp_path / 'list.txt'),
            annotations=str(tmp_path / 'labels.txt'),
        )
    )
    assert ids[0] not in read_all(job.work_dir)


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (dict(budget=15), '--budget 15: expected 1 to 14'),
        (dict(budget=0), '--budget 0'),
        (dict(checkpoint='gone.pth'), 'gone.pth does not exist'),
        (dict(config='gone.py'), 'gone.py does not exist'),
        (dict(config='mmdet::gone/gone.py'), 'mmdet::gone/gone.py cannot be read'),
        (dict(images='gone'), 'gone does not exist'),
        (dict(query='Gone'), "'Gone' is unknown"),
        (dict(query='Entropy(over="sum"'), '--query: expected a name'),
        (dict(query='__import__("os").getcwd()'), '--query: expected a name'),
        (dict(query='Margin'), "'probability'"),
        (dict(query='Discriminator'), "'logit'"),
        (dict(labelled='gone.txt'), 'gone.txt does not exist'),
        (dict(cfg_options=['test_dataloader=None']), 'no test pipeline'),
        (dict(cfg_options=['model=None']), 'no section model'),
        (
            dict(cfg_options=['test_dataloader.dataset.pipeline.0.type=LoadProposals']),
            'proposals',
        ),
        (dict(config=None), 'name both'),
    ],
)
def test_bad_input_is_one_line_before_scoring(job, changes, expected, scored):
    message = refused(replace(job, **changes))
    assert expected in message and '\n' not in message
    assert scored.seen == []


def test_what_others_put_beside_the_picks_stays(copied):
    folder = RankingFolder(copied.work_dir)
    (folder.to_annotate / 'boxes.json').write_text('{}')
    rank_images(replace(copied, budget=2, link=True))
    assert (folder.to_annotate / 'boxes.json').read_text() == '{}'
    links = list(folder.picked_images.iterdir())
    assert len(links) == 2 and all(link.is_symlink() for link in links)
    (folder.picked_images / '0001_00.xml').write_text('my boxes')
    assert '0001_00.xml' in refused(copied)
    assert (folder.picked_images / '0001_00.xml').exists()


def test_settings_from_the_command_line():
    expected = {'type': 'WithControl', 'query': {'type': 'tjls_mm.Margin'}}
    for text in (
        'WithControl(query=tjls_mm.Margin)',
        "dict(type='WithControl', query=dict(type='tjls_mm.Margin'))",
        "{'type': 'WithControl', 'query': {'type': 'tjls_mm.Margin'}}",
    ):
        assert parse_settings(text, '--query') == expected
    found = parse_settings("X(a=(0, -1.5), b=[1, 'c'], d=None, e=True)", '--query')
    assert found == dict(type='X', a=(0, -1.5), b=[1, 'c'], d=None, e=True)


def test_the_tool(copied, capsys):
    main = load_tool('al_select').main
    arguments = [copied.config, copied.checkpoint, '--images', copied.images]
    arguments += ['--work-dir', copied.work_dir, '--query', 'MeanScore']
    assert main([*arguments, '--budget', '3']) == 0
    assert 'MeanScore chose 3 of 14' in capsys.readouterr().out
    assert main([*arguments, '--budget', '300']) == 1
    assert capsys.readouterr().err.startswith('ERROR: --budget 300')
    with pytest.raises(SystemExit):
        main(['--images', copied.images, '--budget', '3'])
    assert '--features' in capsys.readouterr().err


def test_a_pool_of_a_trial_needs_no_list(brought, tmp_path):
    images = Path(shutil.copytree(brought / 'images', tmp_path / 'images'))
    ids = sorted(str(p.relative_to(images)) for p in images.rglob('*.*'))
    ids.remove('notes.txt')
    (images / 'answers.json').write_text(json.dumps(coco(ids[:4])))
    (images / 'test.json').write_text(json.dumps(coco(ids[10:])))
    files = dict(pool_files=['answers.json'], test_files=['test.json'])
    settings = dict(data_root=str(images), annotated=dict(type='CocoFiles', **files))
    source = FolderImages(**settings)
    own = CocoFiles(str(images), **files)
    assert source.classes == own.classes == CLASSES
    assert source.list_images('test') == sorted(ids[10:])
    assert source.list_images('pool') == sorted(ids[:10])
    assert source.instances(ids[1]) == own.instances(ids[1])
    assert source.img_id(ids[11]) == own.img_id(ids[11])
    assert source.img_id(ids[7]) != source.img_id(ids[8])
    assert source.label_counts(ids[:4]).tolist() == own.label_counts(ids[:4]).tolist()
    problems = list(source.annotation_problems([ids[5]], 'selected'))
    assert problems and all(ids[5] in problem for problem in problems)
    with pytest.raises(InputError, match='annotated'):
        FolderImages(str(images), CLASSES).instances(ids[0])
    part = FolderImages(**settings, pool_dirs=['night'])
    assert all(i.startswith('night/') for i in part.list_images('pool'))
    with pytest.raises(InputError, match='leads out'):
        FolderImages(**settings, pool_dirs=['../other']).list_images('pool')


def test_a_trial_does_not_draw_into_its_pool(brought, tmp_path):
    images = Path(shutil.copytree(brought / 'images', tmp_path / 'images'))
    cfg = make_config(images, images / 'work_dirs' / 'trial', 'demo_random')
    cfg.data_source = dict(
        type='tjls_mm.FolderImages', data_root=str(images), classes=CLASSES
    )
    for kind in ('FolderImages', 'FolderClsImages'):
        cfg.data_source.type = f'tjls_mm.{kind}'
        with pytest.raises(InputError, match='work_dirs/trial lies in') as error:
            TrialPlan(cfg)
        assert '\n' not in str(error.value)
    (tmp_path / 'link').symlink_to(images)
    source = FolderImages(str(tmp_path / 'link'), CLASSES)
    assert len(list(source.work_dir_problems(images))) == 1
    assert not list(source.work_dir_problems(images / '.trial'))  # no images for it
    assert not list(source.work_dir_problems(tmp_path / 'images_work'))
    part = FolderImages(str(images), CLASSES, pool_dirs=['night', 'day'])
    assert not list(part.work_dir_problems(images / 'work'))
    assert len(list(part.work_dir_problems(images / 'day' / 'work'))) == 1


def test_a_trial_on_a_folder(copied_data, tmp_path):
    for name, part, first in (('pool', 'trainval', 1), ('test', 'test', 99)):
        content = json.dumps(demo_coco(copied_data, part, first))
        (copied_data / f'{name}.json').write_text(content)
    cfg = make_config(copied_data, tmp_path / 'work', 'demo_random')
    answers = dict(type='tjls_mm.CocoFiles', image_dirs='VOCdemo/JPEGImages')
    answers.update(pool_files=['pool.json'], test_files=['test.json'])
    cfg.data_source = dict(
        type='tjls_mm.FolderImages',
        data_root=str(copied_data),
        classes=tuple(CATEGORIES),
        pool_dirs=['VOCdemo/JPEGImages'],
        annotated=answers,
    )
    # Nobody has labelled this one, and nobody needs to.
    draw(copied_data / 'VOCdemo' / 'JPEGImages' / 'new.png', 1)
    run_stages(cfg)
    folder = TrialFolder(tmp_path / 'work').stage(0)
    pool, labelled = read_image_ids(folder.pool), read_image_ids(folder.labelled)
    assert len(pool) + len(labelled) == 49
    assert json.loads(folder.metrics.read_text())['metrics']
