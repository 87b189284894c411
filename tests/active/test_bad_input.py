"""Bad input gets one clear error at start, and nothing is written."""

import subprocess
import sys
import urllib.error

import pytest
import torch
from conftest import ROOT, config_path
from mmengine.runner.checkpoint import CheckpointLoader

from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.trial import run_stages
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids, write_image_ids
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, build_own


@pytest.fixture
def refused(tiny_config, copied_data, tmp_path):
    """Function that expects a trial on the spoiled copy to be refused."""

    def check(match: str, **options):
        with pytest.raises(InputError, match=match):
            run_stages(tiny_config(data=copied_data, **options))
        assert not (tmp_path / 'work').exists(), 'nothing may be written'

    return check


@pytest.fixture
def part(copied_data):
    return copied_data / 'VOCdemo'


def image_set(part, name):
    return part / 'ImageSets' / 'Main' / f'{name}.txt'


def test_missing_data_root_says_where_data_goes(tiny_config, tmp_path):
    cfg = tiny_config(data=tmp_path / 'nowhere')
    with pytest.raises(InputError, match='nowhere does not exist.*VOC2007.*make_demo'):
        run_stages(cfg)
    assert not (tmp_path / 'work').exists()


def test_missing_image_set(refused, part):
    image_set(part, 'trainval').unlink()
    refused(r'trainval\.txt does not exist')


def test_image_set_names_a_missing_image(refused, part):
    with open(image_set(part, 'trainval'), 'a') as file:
        file.write('nothere\n')
    refused(r'1 of 49 images .*\n.*nothere\.jpg does not exist')


@pytest.mark.parametrize('content, problem', [(b'', 'is empty'), (b'x' * 99, 'cannot')])
def test_unusable_pool_image(refused, part, content, problem):
    image_id = image_set(part, 'trainval').read_text().split()[-1]
    (part / 'JPEGImages' / f'{image_id}.jpg').write_bytes(content)
    refused(rf'{image_id}\.jpg {problem}')


def test_truncated_image_is_noticed(refused, part):
    image_id = image_set(part, 'trainval').read_text().split()[-1]
    path = part / 'JPEGImages' / f'{image_id}.jpg'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(rf'{image_id}\.jpg cannot be read as an image')


def spoil_box(part, image_id, tag, value):
    path = part / 'Annotations' / f'{image_id}.xml'
    text = path.read_text()
    start = text.index(f'<{tag}>') + len(tag) + 2
    end = text.index(f'</{tag}>')
    path.write_text(text[:start] + str(value) + text[end:])


@pytest.mark.parametrize(
    'tag, value, problem',
    [
        ('xmax', 999, r'leaves its image of \d+ x \d+ pixels'),
        ('xmin', -5, 'leaves its image'),
        ('xmax', 1, 'has no area'),
        ('name', 'dragon', "class 'dragon' is unknown"),
        ('xmin', 'left', 'is not a VOC annotation'),
    ],
)
def test_bad_test_annotation(refused, part, tag, value, problem):
    image_id = image_set(part, 'test').read_text().split()[3]
    spoil_box(part, image_id, tag, value)
    refused(rf'{image_id}\.xml.*{problem}')


def test_annotation_with_entities_is_not_expanded(refused, part):
    image_id = image_set(part, 'test').read_text().split()[3]
    path = part / 'Annotations' / f'{image_id}.xml'
    text = path.read_text()
    bomb = '<!DOCTYPE x [<!ENTITY a "dragon"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    path.write_text(bomb + text.replace('<name>', '<name>&b;', 1))
    refused(rf'{image_id}\.xml is not a VOC annotation')


def test_bad_labelled_annotation(refused, part, tmp_path):
    ids = image_set(part, 'trainval').read_text().split()
    (tmp_path / 'initial.txt').write_text(''.join(f'VOCdemo/{i}\n' for i in ids[:8]))
    spoil_box(part, ids[5], 'ymax', 0)
    initial = {'active_learning.initial': str(tmp_path / 'initial.txt')}
    refused(rf'{ids[5]}\.xml \(labelled image\).*has no area.*bad_boxes', **initial)


def test_missing_labelled_annotation(refused, part, tmp_path):
    ids = image_set(part, 'trainval').read_text().split()
    (tmp_path / 'initial.txt').write_text(''.join(f'VOCdemo/{i}\n' for i in ids[:8]))
    (part / 'Annotations' / f'{ids[5]}.xml').unlink()
    initial = {'active_learning.initial': str(tmp_path / 'initial.txt')}
    refused(rf'{ids[5]}\.xml does not exist: every labelled', **initial)


def test_bad_boxes_can_be_dropped_on_request(tiny_config, copied_data, part, tmp_path):
    image_id = image_set(part, 'test').read_text().split()[3]
    spoil_box(part, image_id, 'xmax', 999)
    spoil_box(part, image_id, 'width', 0)  # some tools write no size
    options = {'data_source.bad_boxes': 'drop', 'active_learning.stages': 1}
    cfg = tiny_config(data=copied_data, **options)
    run_stages(cfg)
    assert (tmp_path / 'work' / 'summary.json').exists()
    source = build_own(IMAGE_SOURCES, cfg.data_source)
    path = tmp_path / 'one.txt'
    write_image_ids(path, [f'VOCdemo/{image_id}'])
    dataset = DATASETS.build(source.labelled_dataset(str(path)))
    text = (part / f'Annotations/{image_id}.xml').read_text()
    n_boxes = text.count('<object>')
    kept = dataset.get_data_info(0)['instances']
    assert len(kept) == n_boxes - 1
    counts = source.count_labels([f'VOCdemo/{image_id}'])
    assert sum(counts['boxes'].values()) == len(kept)


def test_initial_list_with_unknown_ids(refused, tmp_path):
    (tmp_path / 'initial.txt').write_text('VOCdemo/zzz\n')
    initial = {'active_learning.initial': str(tmp_path / 'initial.txt')}
    refused('expected ids of the pool sets', **initial)


def test_too_many_stages(refused):
    refused(
        '7 stages fit, or 8 with a last selection of 4', **{'active_learning.stages': 9}
    )


def test_short_last_stage_on_request(tiny_config, tmp_path):
    cfg = tiny_config(
        **{
            'active_learning.initial': 30,
            'active_learning.budget': [12, 12],
            'active_learning.stages': 3,
            'active_learning.allow_short_stage': True,
            'train_cfg.max_epochs': 1,
            'param_scheduler.0.total_steps': 1,
        }
    )
    # A discriminator needs a pool: all labels in the last stage is refused.
    with pytest.raises(InputError, match='leaves no image in the pool'):
        run_stages(cfg)
    cfg.method = dict(query=dict(type='tjls_mm.Random'))
    run_stages(cfg)
    last = tmp_path / 'work' / 'stage_02'
    assert len(read_image_ids(last / 'labelled.txt')) == 48


def test_id_twice(refused, part):
    path = image_set(part, 'trainval')
    first = path.read_text().split()[0]
    path.write_text(path.read_text() + first + '\n')
    refused(rf"'{first}' stands in line 1 and again in line 49")


def test_image_in_pool_and_test(refused, part):
    path = image_set(part, 'test')
    path.write_text(path.read_text() + image_set(part, 'trainval').read_text()[:7])
    refused('is in the pool and in the test set')


def test_classes_of_model_and_data_differ(refused):
    refused('num_classes=7, the data set has 5', **{'model.bbox_head.num_classes': 7})


@pytest.mark.parametrize(
    'options, message',
    [
        ({'active_learning.budgets': 3}, r"budgets is unknown; did you mean 'budget'"),
        ({'active_learning': 'x'}, r'expected a section active_learning=dict'),
        ({'active_learning.stages': 'three'}, "stages must be 1 or more, got 'three'"),
        ({'active_learning.budget': 'many'}, "positive number of images.* got 'many'"),
        ({'active_learning.console': 'loud'}, r"console must be one of \('log'"),
        ({'method.query.type': 'tjls_mm.Best'}, 'Known: .*Discriminator.*Random'),
        ({'method.query.type': 'lowest'}, r"has a new name.*Discriminator', rule='low"),
        ({'method.query': 'random'}, r"write dict\(type='tjls_mm.Random'\)"),
        ({'method.query': dict(rule='lowest', _delete_=True)}, r'must be dict\(type'),
        ({'method.query.rule': 'highest'}, "rule.*'highest'"),
        ({'method.query.rule': 'margin', 'method.query.margin': 2}, 'margin.*2'),
        ({'method.query.margins': 0.2}, 'unless it says _delete_=True'),
        ({'method.composition': 'mixt'}, r"composition must be one of \('mixed'"),
        ({'method.pool_ratio': -1}, r'pool_ratio must be in \(0, inf\), got -1'),
        ({'method.holdout': 1.5}, r'holdout must be in \(0, 1\), got 1.5'),
        ({'method.ratio': 3}, 'method.ratio is unknown'),
        ({'method.branches': None}, 'method.branches must be dict'),
        ({'method.branches.discriminator': 3}, 'must be dict.*or None, got 3'),
        ({'method.branches.discriminator': None}, "needs the output 'logit'.*method"),
        ({'method.branches.discriminator.width': 3}, "model cannot be built.*'width'"),
        ({'active_learning.query': dict(type='random')}, 'write method.query'),
        ({'active_learning.joint': dict(update='joint')}, r'write method \(compos'),
        ({'model.bbox_head.discriminator': dict()}, 'method.branches.discriminator'),
        ({'model.type': 'tjls_mm.JointDetector'}, 'which the loop puts in'),
        ({'custom_hooks': [dict(type='tjls_mm.PoolScoringHook')]}, 'puts in by itself'),
        (
            {'train_dataloader.dataset.pool': dict(x=1)},
            'train_dataloader.dataset, once',
        ),
        ({'train_dataloader.dataset.type': 'CocoDataset'}, 'come from data_source'),
        ({'train_dataloader.batch_size': 'big'}, "must be an integer .* got 'big'"),
        ({'train_dataloader.batch_sampler': dict(type='X')}, 'batch_sampler: the loop'),
        ({'train_cfg.type': 'OtherLoop'}, "train_cfg.type='OtherLoop': a stage has"),
        ({'randomness.seed': None}, 'randomness.seed must be an integer'),
        ({'val_dataloader': None}, r'expected a section val_dataloader=dict'),
        ({'val_evaluator.type': 'VOCMetrik'}, "'VOCMetrik' is unknown; did you mean"),
        ({'param_scheduler.0.type': 'OneCycle'}, "param_scheduler.*'OneCycle' is unk"),
        (
            {'train_dataloader.dataset.pipeline.0.type': 'Load'},
            "pipeline.*'Load' is unk",
        ),
        ({'optim_wrapper.optimizer.type': 'AdamZ'}, "optim_wrapper.*'AdamZ'"),
        ({'optim_wrapper.optimizer.rate': 3}, "optim_wrapper.*'rate'"),
        ({'optim_wrapper.type': 'AmpOptimWrapper'}, 'needs a GPU and there is none'),
        ({'model.backbone.type': 'ResNot'}, 'model cannot be built.*ResNot'),
        (
            {
                'model.backbone': dict(
                    _delete_=True,
                    type='mmpretrain.TIMMBackbone',
                    model_name='no_such_network',
                    pretrained=True,
                )
            },
            'model.backbone.pretrained fetches weights by timm.*checkpoint_path',
        ),
        ({'model.bbox_head.anchors': 3}, "model cannot be built.*'anchors'"),
        ({'train_cfg.max_epochs': -3}, 'max_epochs must be above 0, got -3'),
        ({'train_cfg.max_epochs': 'ten'}, "must be above 0, got 'ten'"),
        ({'param_scheduler.0.peak': 3}, "stage cannot be made.*'peak'"),
        ({'param_scheduler.0.type': 'ReduceOnPlateauLR'}, 'nothing may be chosen'),
        (
            {'custom_hooks': [dict(type='CheckInvalidLossHook', speed=3)]},
            "LossHook cannot be built.*'speed'",
        ),
        ({'custom_hooks': [dict(type='EarlyStoppingHook')]}, 'EarlyStopping.*chosen'),
        ({'default_hooks': 3}, 'default_hooks must be a dict'),
        ({'val_evaluator.metrics': 3}, "VOCMetric cannot be built.*'metrics'"),
        ({'visualizer.type': 'Painter'}, "visualizer.*'Painter' is unknown"),
        ({'train_dataloader.dataset.with_annotations': True}, 'come from data_source'),
        ({'val_dataloader.batch_size': 'x'}, "batch_size must be .*'x'"),
        ({'train_dataloader.num_workers': -1}, 'num_workers must be .*-1'),
        ({'score_dataloader': dict(batch_size=0)}, 'batch_size must be .* 0'),
        ({'data_source.bad_boxes': 'fix'}, "must be 'error' or 'drop'"),
        ({'data_source.classes': 'ball'}, r"classes must be a list.*\['ball'\]"),
        ({'data_source.roots': 'ball'}, "image source.*'roots'"),
    ],
)
def test_bad_settings(refused, options, message):
    refused(message, **options)


def test_no_network_for_pretrained_weights(tiny_config, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError('no route to host')

    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', offline)
    cfg = tiny_config()
    init = dict(type='Pretrained', checkpoint='open-mmlab://vgg16_caffe')
    cfg.model.backbone.init_cfg = init
    with pytest.raises(
        InputError, match=r'vgg16_caffe .*model\.backbone\.init_cfg=None'
    ):
        TrialPlan(cfg).check_weights()
    cfg.model.backbone.init_cfg = None
    TrialPlan(cfg).check_weights()


class Payload:
    """What a pickle could hold."""


@pytest.fixture
def pickle_file(tmp_path):
    path = tmp_path / 'theirs.pth'
    torch.save({'state_dict': {}, 'meta': Payload()}, path)
    return str(path)


def test_a_checkpoint_of_a_stranger_is_not_unpickled_silently(
    refused, tmp_path, pickle_file
):
    refused('load_from: .*could run code.*trust_checkpoints', load_from=pickle_file)
    refused('load_from: .*does not exist', load_from=str(tmp_path / 'no.pth'))
    refused('tampered with.*https', load_from='http://example.org/weights.pth')


@pytest.mark.parametrize(
    'place',
    [
        'model.backbone.init_cfg',
        'model.neck.init_cfg',
        'model.bbox_head.init_cfg',
        'method.bottleneck.init_cfg',
        'method.branches.discriminator.init_cfg',
    ],
)
@pytest.mark.parametrize('in_list', [False, True])
def test_no_pickle_hides_anywhere_in_the_model(place, in_list, refused, pickle_file):
    init = dict(type='Pretrained', checkpoint=pickle_file)
    refused('theirs.pth holds more than', **{place: [init] if in_list else init})


def test_command_line_prints_one_line_and_fails(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            str(ROOT / 'tools' / 'al_train.py'),
            str(config_path('demo_tjls')),
            '--work-dir',
            str(tmp_path / 'w'),
            '--cfg-options',
            f'data_source.data_root={tmp_path}/nowhere',
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if 'ERROR' in line]
    assert len(errors) == 1 and 'Traceback' not in done.stderr
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
    'text, arguments, message',
    [
        (None, [], 'missing.py does not exist'),
        ('x = (', [], 'SyntaxError'),
        ("_base_ = 'nowhere.py'", [], 'nowhere.py'),
        ("custom_imports = dict(imports=['no_such'])", [], 'no_such'),
        ('x = 1', ['--cfg-options', 'x'], "expected KEY=VALUE, found 'x'"),
        ('x = [1]', ['--cfg-options', 'x.3.y=2'], 'does not fit the config'),
        ('x = 1', [], 'section active_learning'),
    ],
)
def test_config_files_that_cannot_be_read(text, arguments, message, tmp_path, capsys):
    from conftest import load_tool

    path = tmp_path / 'missing.py'
    if text is not None:
        path.write_text(text)
    tool = load_tool('al_train')
    argv = sys.argv
    sys.argv = ['al_train.py', str(path), *arguments]
    try:
        assert tool.main() == 1
    finally:
        sys.argv = argv
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error
    assert error.startswith('ERROR: ') and error.count('ERROR') == 1


def test_a_work_dir_that_is_a_file(tiny_config, tmp_path):
    (tmp_path / 'work').write_text('')
    with pytest.raises(InputError, match='work is a file.*--work-dir'):
        run_stages(tiny_config())


def test_advice_of_unknown_settings_works(tiny_config, tmp_path):
    """What the message says in place of an old config is one that runs."""
    cfg = tiny_config('demo_random')
    cfg.method = dict(query='lowest')
    with pytest.raises(InputError, match=r"write dict\(type='tjls_mm.Discriminator'"):
        TrialPlan(cfg)
    cfg.method = dict(query=dict(type='tjls_mm.Discriminator', rule='lowest'))
    with pytest.raises(InputError, match=r'branches.*discriminator'):
        TrialPlan(cfg)
    cfg.method.branches = dict(discriminator=dict(type='tjls_mm.DiscriminatorHead'))
    assert TrialPlan(cfg).learner.uses_pool
