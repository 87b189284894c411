"""Data sets in the format of COCO, and that formats agree under mmdet's metrics."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric, VOCMetric
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image

from tjls_mm.datasets import CocoFiles, DetImageSet, VOCFiles
from tjls_mm.errors import InputError
from tjls_mm.image_ids import write_image_ids
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, build_own

CLASSES = ('ball', 'crate', 'cone', 'star', 'ring')
KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=KEYS),
]


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def box(number, image, category, xywh, **more):
    return dict(id=number, image_id=image, category_id=category, bbox=xywh, **more)


@pytest.fixture
def small(tmp_path):
    """Two images of 40 x 30 pixels per split: one with boxes, one without."""
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        content = dict(
            categories=[dict(id=7, name='dog'), dict(id=3, name='cat')],
            images=[
                dict(id=9, file_name='a.jpg', width=40, height=30),
                dict(id=5, file_name='b.jpg', width=40, height=30),
            ],
            annotations=[
                box(1, 5, 7, [1.5, 2, 10, 20.25], area=202.5, iscrowd=0),
                box(2, 5, 3, [0, 0, 40, 30], area=1200, iscrowd=1),
                box(3, 5, 7, [0, 0, 5, 5], area=25, iscrowd=0),
            ],
        )
        for image in content['images']:
            Image.new('RGB', (40, 30)).save(tmp_path / split / image['file_name'])
        write_json(tmp_path / 'annotations' / f'{split}.json', content)
    return tmp_path


def make(root, **settings) -> CocoFiles:
    arguments = dict(
        data_root=str(root),
        pool_files=['annotations/train.json'],
        test_files=['annotations/val.json'],
        image_dirs=dict(pool='train', test='val'),
    )
    return build_own(
        IMAGE_SOURCES, dict(arguments, type='tjls_mm.CocoFiles') | settings
    )


def change(root, split='train', **parts):
    """Write an annotation file with some of its parts replaced, None removed."""
    path = root / 'annotations' / f'{split}.json'
    content = {**json.loads(path.read_text()), **parts}
    write_json(path, {key: part for key, part in content.items() if part is not None})


def dataset_of(source, ids, folder, **options) -> DetImageSet:
    write_image_ids(folder / 'list.txt', ids)
    cfg = source.labelled_dataset(str(folder / 'list.txt'))
    return DATASETS.build(dict(cfg, pipeline=PIPELINE, test_mode=True, **options))


def test_ids_classes_and_instances(small):
    source = make(small)
    assert source.classes == ('cat', 'dog'), 'by category id'
    assert source.list_images('pool') == ['train/a.jpg', 'train/b.jpg']
    assert source.list_images('test') == ['val/a.jpg', 'val/b.jpg']
    assert [source.img_id(i) for i in source.list_images('pool')] == [9, 5]
    assert list(source.instances('train/a.jpg')) == [], 'background'
    first, crowd, _ = source.instances('train/b.jpg')
    assert (first.name, first.bbox, first.ignore) == (
        'dog',
        (1.5, 2, 11.5, 22.25),
        False,
    )
    assert first.written == (1.5, 2, 10, 20.25)
    assert (crowd.name, crowd.ignore) == ('cat', True)
    assert source.image_size('train/b.jpg') == (40, 30)
    assert source.open_image('train/b.jpg').size == (40, 30)
    for split in ('pool', 'test'):
        ids = source.list_images(split)
        assert list(source.image_problems(split, ids)) == []
        assert list(source.annotation_problems(ids, split)) == []
    counts = source.count_labels(['train/a.jpg', 'train/b.jpg'])
    assert counts == {'images': {'cat': 1, 'dog': 1}, 'boxes': {'cat': 1, 'dog': 2}}
    again = build_own(IMAGE_SOURCES, source.settings())
    assert again.settings() == source.settings()


def test_entries_equal_those_of_mmdets_coco_data_set(small, tmp_path):
    source = make(small)
    ours = dataset_of(source, source.list_images('pool'), tmp_path)
    # Labels of mmdet's go by the order of categories in the file.
    theirs = CocoDataset(
        ann_file=str(small / 'annotations' / 'train.json'),
        data_prefix=dict(img=str(small / 'train')),
        metainfo=dict(classes=('dog', 'cat')),
    )
    for i, j in ((0, 0), (1, 1)):
        one, two = ours.get_data_info(i), theirs.get_data_info(j)
        for entry in one['instances']:
            entry['bbox_label'] = 1 - entry['bbox_label']
        for key in ('img_id', 'img_path', 'height', 'width', 'instances'):
            assert one[key] == two[key], key
    assert ours.get_data_info(1)['image_id'] == 'train/b.jpg'
    assert len(ours) == 2, 'images without objects stay'


def test_one_class_and_one_folder(small, tmp_path):
    one_box = [box(1, 5, 90, [0, 0, 9, 9])]
    change(small, categories=[dict(id=90, name='dog')], annotations=one_box)
    source = make(small, image_dirs='train', test_files=['annotations/train.json'])
    assert source.classes == ('dog',)
    assert source.list_images('test') == source.list_images('pool')
    (entry,) = dataset_of(source, ['train/b.jpg'], tmp_path)
    assert entry['data_samples'].gt_instances.labels.tolist() == [0]


def test_categories_that_are_no_classes(small):
    source = make(small, ignore_classes=['cat'])
    ids = source.list_images('pool')
    assert source.classes == ('dog',)
    assert list(source.annotation_problems(ids, 'labelled')) == []
    assert len(source.usable_instances('train/b.jpg')) == 2
    (problem,) = make(small, classes=['dog']).annotation_problems(ids, 'labelled')
    assert "class 'cat' is unknown" in problem and 'train.json, image 5' in problem


def test_a_pool_of_images_alone(small, tmp_path):
    change(small, annotations=None, categories=None)
    with pytest.raises(InputError, match='train.json has no categories: name them'):
        make(small)
    source = make(small, classes=['cat', 'dog'])
    ids = source.list_images('pool')
    write_image_ids(tmp_path / 'u.txt', ids)
    cfg = source.pool_dataset(str(tmp_path / 'u.txt'))
    pipeline = source.pool_pipeline(PIPELINE)
    samples = list(DATASETS.build(dict(cfg, pipeline=pipeline)))
    assert [len(s['data_samples'].gt_instances) for s in samples] == [0, 0]
    (problem,) = source.annotation_problems(ids[:1], 'selected')
    assert "train.json has no 'annotations', which 'train/a.jpg' needs" in problem
    # The advice: 'annotations': [] says that there is nothing in it.
    change(small, annotations=[])
    assert list(source.annotation_problems(ids[:1], 'selected')) == []


def test_the_pool_asks_for_no_instances(small, tmp_path, monkeypatch):
    def refuse(self, image_id):
        raise AssertionError('an annotation was asked for')

    monkeypatch.setattr(CocoFiles, 'instances', refuse)
    source = make(small)
    write_image_ids(tmp_path / 'u.txt', source.list_images('pool'))
    cfg = source.pool_dataset(str(tmp_path / 'u.txt'))
    for pipeline in (source.pool_pipeline(PIPELINE), source.score_pipeline(PIPELINE)):
        dataset = DATASETS.build(dict(cfg, pipeline=pipeline))
        for i in range(2):
            assert 'instances' not in dataset.get_data_info(i)
            assert 'instances' not in dataset[i]['data_samples']
    with pytest.raises(AssertionError, match='asked for'):
        dataset_of(source, ['train/b.jpg'], tmp_path)


def test_a_file_is_read_once_and_again_when_it_changes(small, monkeypatch):
    source, reads, loads = make(small), [], json.loads
    monkeypatch.setattr(json, 'loads', lambda text: reads.append(1) or loads(text))
    for _ in range(3):
        make(small).instances('train/b.jpg')
    assert not reads
    monkeypatch.undo()
    change(small, annotations=[])
    assert source.instances('train/b.jpg') == []


IMAGE = dict(id=1, file_name='a.jpg')


@pytest.mark.parametrize(
    'parts, message',
    [
        (dict(images=None), r"expected a list 'images', found NoneType there"),
        (dict(images=[dict(file_name='a.jpg')]), "images with 'id', int, found {"),
        (dict(images=[dict(id='1', file_name='a.jpg')]), "images with 'id', int"),
        (dict(images=[dict(id=1)]), "images with 'file_name', str"),
        (dict(images=['a.jpg']), "images with 'id', int, found a.jpg"),
        (
            dict(images=[IMAGE, dict(IMAGE, file_name='b')]),
            'the images once, found 1 tw',
        ),
        (dict(images=[IMAGE, dict(IMAGE, id=2)]), "images once, found 'a.jpg' twice"),
        (dict(images=[IMAGE, dict(id=2, file_name='./a.jpg')]), 'each file_name once'),
        (
            dict(images=[dict(id=1, file_name='../../a')]),
            'a path below data_root, found',
        ),
        (
            dict(images=[dict(id=1, file_name='/etc/a')]),
            'a path below data_root, found',
        ),
        (
            dict(images=[dict(id=1, file_name='/a.jpg')]),
            'a path below data_root, found',
        ),
        (dict(images=[dict(id=1, file_name='a\n.jpg')]), 'printable characters'),
        (dict(images=[dict(id=1, file_name='a.jpg ')]), 'without blanks around'),
        (dict(categories={}), "expected a list 'categories', found dict"),
        (dict(categories=[dict(id=1)]), "categories with 'name', str"),
        (dict(categories=[dict(id=i, name='a') for i in (1, 2)]), "'a' twice"),
        (dict(annotations={}), "a list 'annotations', found dict"),
        (dict(annotations=[dict(id=1)]), "annotations with 'image_id', int"),
        (dict(annotations=[box(1, 99, 7, [0] * 4)]), "'image_id' is one of the images"),
    ],
)
def test_files_that_are_no_coco_annotations(small, parts, message):
    change(small, **parts)
    with pytest.raises(InputError, match=message) as error:
        make(small, classes=['cat', 'dog']).list_images('pool')
    assert 'train.json' in str(error.value)


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'expected JSON, found Expecting value'),
        ('[1]', 'expected an object, found list'),
        ('{"images": [', 'expected JSON'),
        ('[' * 100_000, 'expected JSON'),
        (b'\xff\xfe\xff', 'expected JSON'),
    ],
)
def test_files_that_are_no_json(small, text, message):
    path = small / 'annotations' / 'train.json'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f'train.json is no COCO.*{message}'):
        make(small)


@pytest.mark.parametrize(
    'annotation, message',
    [
        (dict(image_id=5, category_id=7), "'bbox' None: expected .x, y, width, height"),
        (box(1, 5, 7, [1, 2, 3]), r"'bbox' \[1, 2, 3\]"),
        (box(1, 5, 7, [1, 2, 3, '4']), "'bbox' .*'4'"),
        (box(1, 5, 8, [0, 0, 9, 9]), r"'category_id' 8: expected .* \[7, 3\]"),
        (dict(image_id=5, bbox=[0, 0, 9, 9]), "'category_id' None"),
        (box(1, 5, 7, [0, 0, 9, 0]), r'box \(0, 0, 9, 0\) of .dog. has no area.*drop'),
        (box(1, 5, 7, [0, 0, float('nan'), 9]), 'has no area'),
        (box(1, 5, 7, [32, 0, 10, 9]), 'leaves its image of 40 x 30 pixels'),
        (box(1, 5, 7, [-2, 0, 10, 9]), 'leaves its image'),
    ],
)
def test_bad_annotations(small, annotation, message, tmp_path):
    change(small, annotations=[annotation])
    source = make(small)
    ids = source.list_images('pool')
    (problem,) = source.annotation_problems(ids, 'labelled')
    assert (
        re.search(message, problem) and 'train.json, image 5 (train/b.jpg)' in problem
    )
    if 'drop' in problem:
        source = make(small, bad_boxes='drop')
        assert list(source.annotation_problems(ids, 'labelled')) == []
        dataset = dataset_of(source, ids, tmp_path)
        assert [len(entry['instances']) for entry in dataset.data_list] == [0, 0]
        assert source.count_labels(ids)['boxes'] == {'cat': 0, 'dog': 0}


def test_rounded_boxes_are_tolerated(small):
    change(small, annotations=[box(1, 5, 7, [-0.5, 0, 41, 30.7])])
    source = make(small)
    assert list(source.annotation_problems(['train/b.jpg'], 'labelled')) == []


def test_turned_images_are_noticed(small):
    image = Image.new('RGB', (40, 30))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(small / 'train' / 'b.jpg', exif=exif)
    (problem,) = make(small).annotation_problems(['train/b.jpg'], 'labelled')
    assert '(40, 30) pixels there and (30, 40) as it is loaded' in problem


def test_sizes_that_the_file_lacks_are_read_from_images(small):
    change(small, images=[dict(id=5, file_name='b.jpg', width=0), dict(IMAGE, id=9)])
    assert make(small).image_size('train/b.jpg') == (40, 30)
    (small / 'train' / 'b.jpg').unlink()
    with pytest.raises(InputError, match='b.jpg does not exist'):
        make(small).image_size('train/b.jpg')


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(pool_files='annotations/train.json'), 'pool_files must be a list'),
        (dict(pool_files=['x.json']), 'x.json does not exist: data_source.pool_files'),
        (dict(image_dirs=dict(pool='train')), 'image_dirs must be a folder or dict'),
        (dict(data_root='/nowhere'), '/nowhere does not exist'),
        (dict(bad_boxes='fix'), "'error' or 'drop'"),
        (
            dict(
                pool_files=[
                    'annotations/train.json',
                    'annotations/../annotations/train.json',
                ]
            ),  # fmt: skip
            "'train/a.jpg' is in .*train.json and in",
        ),
    ],
)
def test_bad_settings(small, settings, message):
    with pytest.raises(InputError, match=message):
        make(small, **settings).list_images('pool')


def test_test_files_number_their_images_in_one_sequence(small):
    text = (small / 'annotations' / 'val.json').read_text()
    path = small / 'annotations' / 'more.json'
    path.write_text(text.replace('a.jpg', 'c.jpg').replace('b.jpg', 'd.jpg'))
    files = ['annotations/val.json', 'annotations/more.json']
    with pytest.raises(InputError, match='an image of id 9 each: number'):
        make(small, test_files=files).list_images('test')
    source = make(small, pool_files=files, image_dirs='val')
    assert len(source.list_images('pool')) == 4, 'mmdet evaluates test images only'


def test_unknown_image(small):
    with pytest.raises(InputError, match="'train/x.jpg' is in none of the annotation"):
        make(small).img_id('train/x.jpg')


@pytest.mark.parametrize(
    'ann_file, classes, message',
    [
        ('annotations/val.json', ('dog', 'cat'), None),
        ('annotations/val.json', None, r"order of 'categories' in .*\['dog', 'cat'\]"),
        ('annotations/train.json', ('dog', 'cat'), 'name the one test file'),
        ('nowhere.json', ('dog', 'cat'), 'name the one test file'),
    ],
)
def test_annotation_files_that_coco_metric_would_misread(
    small, ann_file, classes, message
):
    source = make(small, classes=classes)
    evaluator = dict(type='CocoMetric', ann_file=str(small / ann_file))
    cfg = Config(dict(val_evaluator=evaluator))
    problems = list(source.config_problems(cfg, uses_pool=False))
    assert len(problems) == (message is not None)
    assert not problems or re.search(message, problems[0])


# ---------------------------------------------------------------------- both formats


@pytest.fixture(scope='module')
def formats(demo_data, tmp_path_factory):
    """The demo data set as VOC and as COCO files; a few boxes are ignored."""
    root = tmp_path_factory.mktemp('both')
    shutil.copytree(demo_data, root, dirs_exist_ok=True)
    voc = VOCFiles(str(root), ['VOCdemo/trainval'], ['VOCdemo/test'], classes=CLASSES)
    for image_id in voc.list_images('test')[::4]:
        path = Path(voc.annotation_place(image_id))
        text = path.read_text().replace('<difficult>0', '<difficult>1', 1)
        path.write_text(text)
        assert voc.instances(image_id)[0].ignore
    # Gaps between category ids, in the order of the classes.
    categories = {name: 4 + 3 * i for i, name in enumerate(CLASSES)}
    for split in ('pool', 'test'):
        images, annotations = [], []
        for number, image_id in enumerate(voc.list_images(split), 100):
            width, height = voc.image_size(image_id)
            name = f'{image_id.split("/")[1]}.jpg'
            images.append(dict(id=number, file_name=name, width=width, height=height))
            for instance in voc.instances(image_id):
                x1, y1, x2, y2 = instance.bbox
                xywh = [x1, y1, x2 - x1, y2 - y1]
                annotations.append(
                    box(
                        len(annotations) + 1,
                        number,
                        categories[instance.name],
                        xywh,
                        area=xywh[2] * xywh[3],
                        iscrowd=int(instance.ignore),
                    )
                )
        write_json(
            root / 'annotations' / f'{split}.json',
            dict(
                images=images,
                annotations=annotations,
                categories=[dict(id=i, name=n) for n, i in categories.items()],
            ),
        )
    coco = CocoFiles(
        str(root),
        ['annotations/pool.json'],
        ['annotations/test.json'],
        image_dirs='VOCdemo/JPEGImages',
    )
    return voc, coco


def predictions(sample, noise: float, rng) -> InstanceData:
    """The truth, or what a poor detector makes of it."""
    truth = sample.gt_instances
    boxes = truth.bboxes.numpy().repeat(2, 0)
    moves = rng.normal(0, noise, boxes.shape) if noise else np.zeros(boxes.shape)
    labels = truth.labels.numpy().repeat(2)
    if noise:
        wrong = rng.random(len(labels)) < 0.2
        labels = np.where(wrong, rng.integers(0, len(CLASSES), len(labels)), labels)
        keep = rng.random(len(labels)) < 0.7
    else:
        keep = np.arange(len(labels)) % 2 == 0
    # Among equals the order of the images would decide, which formats have each.
    scores = rng.random(len(labels)) * 0.9 + 0.05
    return InstanceData(
        bboxes=torch.tensor(boxes + moves, dtype=torch.float32)[keep],
        labels=torch.tensor(labels)[keep],
        scores=torch.tensor(scores, dtype=torch.float32)[keep],
    )


def evaluate(source, metrics, folder, noise: float) -> list[float]:
    """AP at IoU 0.5 under several metrics, for the same boxes in every format."""
    dataset = dataset_of(source, source.list_images('test'), folder)
    rng = np.random.default_rng(0)
    for metric in metrics:
        metric.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        sample.pred_instances = predictions(sample, noise, rng)
        for metric in metrics:
            metric.process({}, [sample.to_dict()])
    results = [metric.evaluate(len(dataset)) for metric in metrics]
    return [r.get('pascal_voc/AP50', r.get('coco/bbox_mAP_50')) for r in results]


@pytest.mark.parametrize('noise', [0.0, 6.0])
def test_metrics_agree_over_formats(formats, tmp_path, noise):
    voc, coco = formats
    by_voc = evaluate(voc, [VOCMetric(eval_mode='area'), CocoMetric()], tmp_path, noise)
    ann_file = str(next(coco._files('test')).path)
    by_coco = evaluate(
        coco,
        [VOCMetric(eval_mode='area'), CocoMetric(), CocoMetric(ann_file=ann_file)],
        tmp_path,
        noise,
    )
    assert by_coco[:2] == by_voc, 'the same boxes in either format'
    assert by_coco[2] == by_coco[1], 'from the samples and from the file'
    # COCO takes the mean over 101 recalls and knows no legacy pixel.
    assert abs(by_voc[0] - by_voc[1]) < (1e-6 if not noise else 0.03)
    assert by_voc == [1.0, 1.0] if not noise else 0.05 < by_voc[0] < 0.9
