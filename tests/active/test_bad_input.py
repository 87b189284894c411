"""Bad input gets one clear error at start, and nothing is written."""

import subprocess
import sys
import urllib.error

import pytest
import torch
from conftest import ROOT
from mmengine.runner.checkpoint import CheckpointLoader
from PIL import Image

from tjls_mm.active.preflight import check_pretrained
from tjls_mm.active.stages import run_stages
from tjls_mm.datasets.voc import VOCBox, box_problem, read_voc_annotation
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
    n_boxes = len(read_voc_annotation(str(part / f'Annotations/{image_id}.xml')).boxes)
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
        }
    )
    # A discriminator needs a pool: all labels in the last stage is refused.
    with pytest.raises(InputError, match='leaves no image in the pool'):
        run_stages(cfg)
    cfg.model.bbox_head.update(bottleneck=None, discriminator=None)
    cfg.active_learning.query.type = 'random'
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
        ({'active_learning.budgets': 3}, 'active_learning.budgets is unknown'),
        ({'active_learning.query.type': 'best'}, 'Known: lowest, margin, random'),
        ({'active_learning.joint.ratio': 3}, 'joint.ratio is unknown'),
        ({'randomness.seed': None}, 'randomness.seed must be an integer'),
        ({'model.bbox_head.discriminator': None}, 'the learner has none'),
        ({'train_dataloader.batch_size': 7}, 'make train_dataloader.batch_size even'),
        ({'val_dataloader': None}, 'val_dataloader is missing'),
        (
            {'optim_wrapper.type': 'AmpOptimWrapper'},
            'needs a GPU and there is none',
        ),
        (
            {'custom_hooks': [dict(type='EMAHook')]},
            'EMAHook is not supported',
        ),
        ({'active_learning.query.margin': 0.2}, 'unless it says _delete_=True'),
        ({'data_source.bad_boxes': 'fix'}, "must be 'error' or 'drop'"),
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
        check_pretrained(cfg)
    cfg.model.backbone.init_cfg = None
    check_pretrained(cfg)


class Payload:
    """What a pickle could hold."""


def test_a_checkpoint_of_a_stranger_is_not_unpickled_silently(refused, tmp_path):
    path = tmp_path / 'theirs.pth'
    torch.save({'state_dict': {}, 'meta': Payload()}, path)
    refused('load_from: .*could run code.*trust_checkpoints', load_from=str(path))
    refused('load_from: .*does not exist', load_from=str(tmp_path / 'no.pth'))


def test_tools_that_count_from_zero_are_tolerated():
    assert box_problem(VOCBox('a', (0, 0, 10, 10), False), (10, 10)) is None
    assert box_problem(VOCBox('a', (1, 1, 11, 10), False), (10, 10))


def test_command_line_prints_one_line_and_fails(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            str(ROOT / 'tools' / 'al_train.py'),
            str(ROOT / 'configs' / 'demo_tjls.py'),
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


def test_rotated_photos_have_the_size_they_are_loaded_with(tmp_path):
    from tjls_mm.datasets.image_checks import image_size

    image = Image.new('RGB', (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    assert image_size(str(tmp_path / 'a.jpg')) == (10, 20)
