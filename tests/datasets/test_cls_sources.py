"""Image sources of classification: ids, labels, decoded data, clear errors."""

import hashlib
import pickle
import shutil
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from conftest import CLASSES
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmpretrain.datasets import CIFAR10, CIFAR100, CustomDataset, FashionMNIST
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS
from PIL import Image

from tjls_mm.datasets import (
    BinaryImages,
    ClsImageSet,
    ImageFolders,
    ImageLists,
    JointDataset,
)
from tjls_mm.errors import InputError
from tjls_mm.image_ids import write_image_ids
from tjls_mm.registry import DATASETS

SCOPE = 'mmpretrain'
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def write_list(folder: Path, ids, name: str = 'list.txt') -> str:
    write_image_ids(folder / name, ids)
    return str(folder / name)


@pytest.fixture
def folders(class_folders) -> ImageFolders:
    return ImageFolders(str(class_folders), ['train'], ['test'])


def test_folders_list_ids_and_classes(folders, class_folders):
    ids = folders.list_images('pool')
    assert folders.classes == CLASSES
    assert len(ids) == 80 and ids[0] == 'train/bars/0000.png' and ids == sorted(ids)
    assert len(folders.list_images('test')) == 24
    for image_id in (ids[0], ids[-1]):
        assert CLASSES[folders.label(image_id)] == image_id.split('/')[1]
        expected = Image.open(class_folders / image_id)
        assert np.array_equal(folders.load_image(image_id), np.array(expected))
    counts = folders.count_labels([*ids[:3], ids[-1]])
    assert counts == {'images': {'bars': 3, 'checks': 0, 'discs': 0, 'plain': 1}}


def test_folders_without_a_split_folder(class_folders):
    # The class folders lie in the data root itself.
    source = ImageFolders(str(class_folders / 'train'), ['.'], ['.'])
    assert source.list_images('pool')[0] == 'bars/0000.png'
    assert source.label('plain/0003.png') == 3


def copied(class_folders, tmp_path) -> Path:
    return Path(shutil.copytree(class_folders, tmp_path / 'data'))


@pytest.mark.parametrize(
    'spoil, settings, message',
    [
        ('train/horses', dict(classes=CLASSES), "'horses' is no class"),
        ('test/horses', {}, "no training image can be of class 'horses'"),
        (None, dict(pool_dirs=['trian']), r"names 'trian'. Found folders: test, train"),
        (None, dict(pool_dirs=['../x']), 'leads out of the data root'),
        (None, dict(pool_dirs=['train', './train']), 'overlap'),
        (None, dict(pool_dirs='train'), r"pool_dirs must be a list, e.g. \['train'\]"),
        (None, dict(test_dirs=[]), 'test_dirs must name at least one'),
        (None, dict(classes=['bars', 'bars']), 'classes must name .* each once'),
        ('train/empty', {}, "no image of class 'empty'.*data_source.extensions"),
        (None, dict(channels=4), 'channels must be 1 or 3'),
        (None, dict(data_root='/nowhere'), '/nowhere does not exist'),
    ],
)
def test_bad_folders_get_one_clear_error(
    spoil, settings, message, class_folders, tmp_path
):
    root = copied(class_folders, tmp_path)
    if spoil:
        (root / spoil).mkdir()
    settings = {
        'data_root': str(root),
        'pool_dirs': ['train'],
        'test_dirs': ['test'],
        **settings,
    }
    with pytest.raises(InputError, match=message):
        ImageFolders(**settings).list_images('pool')


def test_image_outside_a_class_folder_is_refused(class_folders, tmp_path):
    root = copied(class_folders, tmp_path)
    (root / 'train' / 'bars' / '0000.png').rename(root / 'train' / 'loose.png')
    (root / 'train' / 'readme.txt').write_text('not an image')
    with pytest.raises(InputError, match=r'loose.png \(1 such files\)'):
        ImageFolders(str(root), ['train'], ['test']).list_images('pool')


def test_hidden_folders_are_left_out(class_folders, tmp_path):
    root = copied(class_folders, tmp_path)
    for folder in (root, root / 'train', root / 'train' / 'bars'):
        (folder / '.ipynb_checkpoints').mkdir()
        for name in ('0001.png', '.hidden.png'):
            path = folder / '.ipynb_checkpoints' / name
            path.write_bytes((root / 'train' / 'bars' / '0001.png').read_bytes())
        (folder / '.0001.png').write_bytes(path.read_bytes())
    source = ImageFolders(str(root), ['train'], ['test'])
    assert source.classes == CLASSES and len(source.list_images('pool')) == 80
    for i in ImageFolders(str(root), ['.'], ['.'], ('train', 'test')).list_images(
        'pool'
    ):
        assert '/.' not in i
    with pytest.raises(InputError, match='Found folders: test, train.$'):
        ImageFolders(str(root), ['x'], ['test'])


def test_image_that_opencv_cannot_decode_is_named(class_folders, tmp_path):
    root = copied(class_folders, tmp_path)
    path = root / 'train' / 'bars' / '0000.png'
    Image.open(path).save(path, format='ICO')
    for channels in (1, 3):
        source = ImageFolders(str(root), ['train'], ['test'], channels=channels)
        with pytest.raises(InputError, match='bars/0000.png cannot be decoded'):
            source.load_image('train/bars/0000.png')


def test_folder_without_classes_is_refused(class_folders):
    with pytest.raises(InputError, match='holds no class folders'):
        ImageFolders(str(class_folders), ['train/bars'], ['train/bars'])


def annotation_files(class_folders, tmp_path, lines=None) -> ImageLists:
    root = copied(class_folders, tmp_path)
    source = ImageFolders(str(root), ['train'], ['test'])
    for split in ('pool', 'test'):
        text = [f'{i} {source.label(i)}' for i in source.list_images(split)]
        if lines is not None and split == 'pool':
            text[4] = lines
        (root / f'{split}.txt').write_text('\n'.join(text) + '\n')
    return ImageLists(str(root), ['pool.txt'], ['test.txt'], CLASSES)


def test_lists_equal_folders(folders, class_folders, tmp_path):
    lists = annotation_files(class_folders, tmp_path)
    for split in ('pool', 'test'):
        ids = folders.list_images(split)
        assert lists.list_images(split) == ids
        assert [lists.label(i) for i in ids] == [folders.label(i) for i in ids]
        assert lists.count_labels(ids) == folders.count_labels(ids)


@pytest.mark.parametrize(
    'line, message',
    [
        ('train/bars/0004.png', r'line 5: expected a path, a blank and the number'),
        ('train/bars/0004.png,0', 'line 5: expected a path'),
        ('train/bars/0004.png bars', 'line 5: expected a path'),
        ('train/bars/0004.png 0 1.5', 'line 5: expected a path'),
        ('', 'line 5: expected a path'),
        ('train/bars/0004.png 4', 'label 4 is out of range.*0 to 3'),
        ('train/bars/0003.png 0', 'line 5: .* is named before'),
        ('../../secret.png 0', 'leads out of the data root'),
    ],
)
def test_bad_annotation_lines_get_one_clear_error(
    line, message, class_folders, tmp_path
):
    with pytest.raises(InputError, match=message):
        annotation_files(class_folders, tmp_path, line).list_images('pool')


def test_annotation_files_of_other_systems(class_folders, tmp_path):
    lists = annotation_files(class_folders, tmp_path)
    ids = lists.list_images('pool')
    path = tmp_path / 'data' / 'pool.txt'
    text = path.read_text().replace('\n', '\r\n')
    path.write_bytes(b'\xef\xbb\xbf' + text.encode())
    again = ImageLists(lists.data_root, ['pool.txt'], ['test.txt'], CLASSES)
    assert again.list_images('pool') == ids


def test_missing_annotation_file(class_folders):
    source = ImageLists(str(class_folders), ['none.txt'], ['none.txt'], CLASSES)
    with pytest.raises(InputError, match='none.txt does not exist'):
        source.list_images('pool')


def test_annotation_lists_open_with_mmpretrains_own_data_set(
    folders, class_folders, tmp_path
):
    ids = folders.list_images('pool')
    folders.write_annotation_lists(tmp_path, {'labelled': ids[:50], 'pool': ids[50:]})
    dataset = CustomDataset(
        data_root=str(class_folders),
        ann_file=str(tmp_path / 'labelled_annotations.txt'),
        metainfo={'classes': CLASSES},
    )
    assert dataset.get_gt_labels().tolist() == [folders.label(i) for i in ids[:50]]
    pool = (tmp_path / 'pool_annotations.txt').read_text().split()
    assert pool == ids[50:], 'paths only'


def test_grey_images_get_three_channels_and_coloured_ones_one(
    class_folders, tmp_path, folders
):
    root = copied(class_folders, tmp_path)
    path = root / 'train' / 'bars' / '0000.png'
    Image.open(path).convert('L').save(path)
    image_id = 'train/bars/0000.png'
    image = ImageFolders(str(root), ['train'], ['test']).load_image(image_id)
    assert image.shape == (16, 16, 3)
    assert (image[..., 0] == image[..., 2]).all()
    grey = ImageFolders(str(root), ['train'], ['test'], channels=1)
    assert grey.load_image('train/bars/0001.png').shape == (16, 16, 1)
    assert folders.open_image(image_id).mode == 'RGB'
    assert grey.open_image(image_id).mode == 'L'


# ------------------------------------------------------------ one file of many images


@MMPRETRAIN_DATASETS.register_module()
class FixtureCIFAR10(CIFAR10):
    """CIFAR10 whose files have the hashes of the fixture."""


@MMPRETRAIN_DATASETS.register_module()
class FixtureCIFAR100(CIFAR100):
    """CIFAR100 whose files have the hashes of the fixture."""


def cifar_files(cls, folder: Path, per_file: int = 7):
    """Write files in CIFAR's format; returns pixels and labels per split."""
    rng = np.random.default_rng(0)
    out = folder / cls.base_folder
    out.mkdir()
    n_classes = len(cls.METAINFO['classes'])
    key = 'labels' if n_classes == 10 else 'fine_labels'
    content = {}
    for split, attribute in (('train', 'train_list'), ('test', 'test_list')):
        files, pixels, labels = [], [], []
        for name, _ in getattr(cls.__mro__[1], attribute):
            data = rng.integers(0, 256, (per_file, 3072), dtype=np.uint8)
            own = rng.integers(0, n_classes, per_file).tolist()
            blob = pickle.dumps({'data': data, key: own})
            (out / name).write_bytes(blob)
            files.append([name, hashlib.md5(blob).hexdigest()])
            pixels.append(data)
            labels += own
        setattr(cls, attribute, files)
        content[split] = np.concatenate(pixels).reshape(-1, 3, 32, 32), labels
    return content


@pytest.mark.parametrize('cls', [FixtureCIFAR10, FixtureCIFAR100])
def test_cifar_through_mmpretrains_data_set(cls, tmp_path):
    content = cifar_files(cls, tmp_path)
    source = BinaryImages(f'mmpretrain.{cls.__name__}', str(tmp_path))
    assert len(source.classes) == len(cls.METAINFO['classes'])
    for split, name in (('pool', 'train'), ('test', 'test')):
        pixels, labels = content[name]
        ids = source.list_images(split)
        assert ids == [f'{name}/{i:05d}' for i in range(len(labels))]
        assert [source.label(i) for i in ids] == labels
        found = source.load_image(ids[3])
        assert np.array_equal(found, pixels[3].transpose(1, 2, 0))
    dataset = ClsImageSet(
        write_list(tmp_path, ['train/00004', 'train/00001']),
        source.settings(),
        decode_once=True,
    )
    sample = dataset[0]
    assert torch.equal(sample['inputs'], torch.from_numpy(content['train'][0][4]))
    assert sample['data_samples'].gt_label.tolist() == [content['train'][1][4]]
    with pytest.raises(InputError, match='is no image of'):
        source.load_image('train/99999')


def test_cifar_pickle_with_another_hash_is_not_opened(tmp_path):
    cifar_files(FixtureCIFAR10, tmp_path)
    path = tmp_path / 'cifar-10-batches-py' / 'data_batch_3'
    path.write_bytes(path.read_bytes() + b'x')
    with pytest.raises(InputError, match='data_batch_3 is not the original file.*MD5'):
        BinaryImages('mmpretrain.FixtureCIFAR10', str(tmp_path))
    path.unlink()
    with pytest.raises(InputError, match='data_batch_3 does not exist'):
        BinaryImages('mmpretrain.FixtureCIFAR10', str(tmp_path))


def mnist_files(folder: Path, n_train: int = 9, n_test: int = 5):
    """Write unpacked idx files of FashionMNIST; returns pixels and labels."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    content = {}
    files = {'train': FashionMNIST.train_list, 'test': FashionMNIST.test_list}
    for split, count in (('train', n_train), ('test', n_test)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        header = struct.pack('>BBBBIII', 0, 0, 8, 3, count, 28, 28)
        images, classes = (
            folder / name[0].removesuffix('.gz') for name in files[split]
        )
        images.write_bytes(header + pixels.tobytes())
        classes.write_bytes(struct.pack('>BBBBI', 0, 0, 8, 1, count) + labels.tobytes())
        content[split] = pixels, labels.tolist()
    return content


def test_fashion_mnist_gives_each_split_its_own_images(tmp_path):
    # mmpretrain's class goes by test_mode: split='train', test_mode=True are the
    # test images.
    content = mnist_files(tmp_path)
    source = BinaryImages('FashionMNIST', str(tmp_path), channels=1)
    for split, name in (('pool', 'train'), ('test', 'test')):
        ids = source.list_images(split)
        pixels, labels = content[name]
        assert ids == [f'{name}/{i:05d}' for i in range(len(labels))]
        assert [source.label(i) for i in ids] == labels
        assert np.array_equal(source.load_image(ids[2])[..., 0], pixels[2])
    for test_mode in (False, True):
        for with_label in (False, True):
            dataset = ClsImageSet(
                write_list(tmp_path, ['train/00008', 'test/00001']),
                source.settings(),
                with_label=with_label,
                test_mode=test_mode,
                decode_once=True,
            )
            assert np.array_equal(dataset[0]['inputs'][0], content['train'][0][8])
            assert np.array_equal(dataset[1]['inputs'][0], content['test'][0][1])
    three = BinaryImages('FashionMNIST', str(tmp_path))
    assert three.load_image('train/00000').shape == (28, 28, 3)


def test_packed_and_damaged_mnist_files_are_named(tmp_path):
    name = 'train-labels-idx1-ubyte'
    for folder in ('damaged', 'packed'):
        mnist_files(tmp_path / folder)
    damaged, packed = tmp_path / 'damaged' / name, tmp_path / 'packed' / name
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises(InputError, match='cannot be read from'):
        BinaryImages('FashionMNIST', str(damaged.parent)).list_images('pool')
    packed.rename(packed.with_name(f'{name}.gz'))
    with pytest.raises(InputError, match=r'does not exist.*unpack train-labels'):
        BinaryImages('FashionMNIST', str(packed.parent))


def test_failed_download_is_one_clear_error(tmp_path, monkeypatch):
    from mmpretrain.datasets import mnist, utils

    def fail(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(utils, 'download_and_extract_archive', fail)
    monkeypatch.setattr(mnist, 'download_and_extract_archive', fail)
    for name in ('CIFAR100', 'FashionMNIST'):
        with pytest.raises(InputError, match='cannot be fetched.*no network'):
            BinaryImages(name, str(tmp_path), download=True)


def test_one_of_many_fetches_and_the_others_wait(tmp_path, monkeypatch):
    from mmpretrain.datasets import mnist

    mnist_files(tmp_path / 'there')
    fetched = []

    def fetch(url, download_root, filename, md5):
        time.sleep(0.1)
        fetched.append(filename)
        name = filename.removesuffix('.gz')
        shutil.copy(tmp_path / 'there' / name, Path(download_root) / name)

    monkeypatch.setattr(mnist, 'download_and_extract_archive', fetch)
    out = str(tmp_path / 'out')
    with ThreadPoolExecutor(3) as pool:
        sources = list(
            pool.map(lambda _: BinaryImages('FashionMNIST', out, True), range(3))
        )
    assert len(fetched) == len(set(fetched)) == 4
    assert [len(source.list_images('test')) for source in sources] == [5] * 3


def test_download_leaves_files_that_are_there(tmp_path):
    mnist_files(tmp_path)
    source = BinaryImages('FashionMNIST', str(tmp_path), download=True)
    assert len(source.list_images('pool')) == 9


def test_data_set_that_is_not_binary_is_refused(tmp_path):
    for name in ('ImageNet', 'CustomDataset', 'Cifar'):
        with pytest.raises(InputError, match='Known: CIFAR10, CIFAR100, MNIST'):
            BinaryImages(name, str(tmp_path))


# ------------------------------------------------------------------------- data sets


def test_pool_never_asks_for_a_label(folders, tmp_path, monkeypatch):
    path = write_list(tmp_path, folders.list_images('pool'))

    def refuse(self, image_id):
        raise AssertionError('a label was asked for')

    monkeypatch.setattr(ImageFolders, 'label', refuse)
    for options in (dict(decode_once=True), dict(pipeline=PIPELINE)):
        dataset = DATASETS.build({**folders.pool_dataset(path), **options})
        for sample in (dataset[0], dataset[79]):
            assert 'gt_label' not in sample['data_samples']
        assert not any('gt_label' in entry for entry in dataset.data_list)


def test_decoded_images_are_those_of_mmpretrains_pipeline(folders, tmp_path):
    path = write_list(tmp_path, folders.list_images('pool')[::7])
    decoded = ClsImageSet(path, folders.settings(), decode_once=True)
    loaded = ClsImageSet(path, folders.settings(), pipeline=PIPELINE)
    for one, two in zip(decoded, loaded, strict=True):
        assert torch.equal(one['inputs'], two['inputs'].flip(0)), 'RGB against BGR'
        assert torch.equal(one['data_samples'].gt_label, two['data_samples'].gt_label)
        assert one['data_samples'].image_id.startswith('train/')


@pytest.mark.parametrize('options', [dict(decode_once=True), dict(pipeline=PIPELINE)])
def test_a_subset_has_its_own_images(folders, tmp_path, options):
    path = write_list(tmp_path, folders.list_images('pool'))
    whole = ClsImageSet(path, folders.settings(), **options)
    rows = [70, 3, 41]
    by_index = ClsImageSet(path, folders.settings(), indices=rows, **options)
    for subset in (whole.get_subset(rows), by_index):
        assert len(subset) == 3
        for row, sample in zip(rows, subset, strict=True):
            expected = whole[row]
            assert torch.equal(sample['inputs'], expected['inputs'])
            label = expected['data_samples'].gt_label
            assert torch.equal(sample['data_samples'].gt_label, label)


def test_decoded_images_are_resized_once(folders, class_folders, tmp_path):
    path = write_list(tmp_path, folders.list_images('pool')[:3])
    dataset = ClsImageSet(path, folders.settings(), decode_once=True, scale=(10, 12))
    image = cv2.imread(str(class_folders / 'train/bars/0000.png'))
    expected = cv2.resize(image, (10, 12), interpolation=cv2.INTER_AREA)
    assert np.array_equal(
        dataset[0]['inputs'].permute(1, 2, 0).numpy(), expected[..., ::-1]
    )


def test_decoded_images_of_two_sizes_are_refused(class_folders, tmp_path):
    root = copied(class_folders, tmp_path)
    path = root / 'train' / 'bars' / '0000.png'
    Image.open(path).resize((20, 18)).save(path)
    source = ImageFolders(str(root), ['train'], ['test'])
    ids = write_list(tmp_path, source.list_images('pool'))
    with pytest.raises(InputError, match=r'differ in size \(\(16, 16\) to \(18, 20\)'):
        ClsImageSet(ids, source.settings(), decode_once=True)
    with pytest.raises(InputError, match='remove pipeline'):
        ClsImageSet(ids, source.settings(), decode_once=True, pipeline=PIPELINE)


@pytest.mark.parametrize('workers', [0, 1])
def test_joint_data_says_what_is_labelled(folders, tmp_path, workers):
    ids = folders.list_images('pool')
    joint = JointDataset(
        labelled=dict(
            folders.labelled_dataset(write_list(tmp_path, ids[:5], 'l.txt')),
            decode_once=True,
        ),
        pool=dict(
            folders.pool_dataset(write_list(tmp_path, ids[5:12], 'p.txt')),
            decode_once=True,
        ),
    )
    loader = torch.utils.data.DataLoader(
        joint,
        batch_sampler=[[(0, 11), (6, 12), (4, 13)]],
        num_workers=workers,
        collate_fn=pseudo_collate,
    )
    (batch,) = loader
    assert batch['seeds'] == [11, 12, 13]
    assert [s.image_id for s in batch['data_samples']] == [ids[0], ids[6], ids[4]]
    assert [s.is_labelled for s in batch['data_samples']] == [True, False, True]
    assert ['gt_label' in s for s in batch['data_samples']] == [True, False, True]
    assert torch.equal(batch['inputs'][2], joint[(4, 0)]['inputs'])
    write_image_ids(tmp_path / 'held_out.txt', [ids[4]])
    settings = [
        dict(source(write_list(tmp_path, part, name)), decode_once=True)
        for source, part, name in (
            (folders.labelled_dataset, ids[:5], 'l.txt'),
            (folders.pool_dataset, ids[5:12], 'p.txt'),
        )
    ]
    held_out = JointDataset(*settings, held_out=str(tmp_path / 'held_out.txt'))
    facts = [held_out[(i, 0)]['data_samples'].is_held_out for i in range(12)]
    assert facts == [False] * 4 + [True] + [False] * 7
    assert held_out[4]['data_samples'].is_held_out and 'seeds' not in held_out[4]


# --------------------------------------------------------------------------- configs


def config(**changes) -> Config:
    part = dict(decode_once=True, scale=(8, 8))
    cfg = Config(
        dict(
            model=dict(type='ImageClassifier'),
            data_preprocessor=dict(
                type='tjls_mm.JointClsDataPreprocessor', mean=[1.0, 2.0, 3.0]
            ),
            train_dataloader=dict(dataset=dict(labelled=part, pool=part)),
            val_dataloader=dict(dataset=dict(part, test_mode=True)),
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize(
    'changes, message',
    [
        ({}, None),
        ({'data_preprocessor.type': 'ClsDataPreprocessor'}, "type='tjls_mm.JointCls"),
        ({'data_preprocessor.mean': [1.0] * 4}, 'mean has 4 values for images of 3'),
        ({'val_dataloader.dataset.scale': (9, 9)}, 'val_dataloader.dataset has'),
        ({'train_dataloader.dataset.pool': None, 'val_dataloader': None}, None),
        ({'train_dataloader.dataset.pool.scale': None}, 'dataset.pool has'),
    ],
)
def test_parts_of_a_config_that_do_not_fit(folders, changes, message):
    problems = list(folders.config_problems(config(**changes), uses_pool=True))
    assert len(problems) == (message is not None)
    assert not problems or message in problems[0]


def test_mmpretrains_preprocessor_takes_labelled_images(folders):
    cfg = config(**{'data_preprocessor.type': 'ClsDataPreprocessor'})
    assert list(folders.config_problems(cfg, uses_pool=False)) == []


def test_pipelines_stay_as_they_are(folders):
    for derived in (folders.pool_pipeline(PIPELINE), folders.score_pipeline(PIPELINE)):
        assert derived == PIPELINE and derived[0] is not PIPELINE[0]
    assert folders.pool_pipeline(None) == []


def test_checks_of_images_and_labels(class_folders, tmp_path):
    root = copied(class_folders, tmp_path)
    source = ImageFolders(str(root), ['train'], ['test'])
    ids = source.list_images('pool')
    (root / ids[3]).write_bytes(b'')
    (problem,) = source.image_problems('pool', ids)
    assert '1 of 80 images' in problem and f'{ids[3]} is empty' in problem
    (problem,) = source.annotation_problems([*ids, 'train/x/1.png'], 'labelled')
    assert 'lies in no class folder' in problem


def test_images_in_one_file_were_read_by_loading(tmp_path):
    mnist_files(tmp_path)
    source = BinaryImages('FashionMNIST', str(tmp_path))
    assert source.image_files(source.list_images('pool')) == {}
    assert list(source.image_problems('pool', source.list_images('pool'))) == []


def test_one_process_loads_and_fetches_without_the_others(tmp_path):
    # Process 0 lists the images of a trial: what waits for the others would hang.
    mnist_files(tmp_path)
    with mock.patch('mmengine.dist.barrier', side_effect=AssertionError):
        source = BinaryImages('FashionMNIST', str(tmp_path), download=True)
        assert len(source.list_images('test')) == 5
