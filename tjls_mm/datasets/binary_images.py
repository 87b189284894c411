"""CIFAR and MNIST, whose files hold many images and their labels."""

import functools
import os
import os.path as osp
from collections.abc import Iterable
from unittest import mock

import numpy as np
from filelock import FileLock
from mmengine import dist
from mmengine.fileio import join_path

from tjls_mm.datasets.cls_source import ClsImageSource, spread_channels
from tjls_mm.errors import InputError
from tjls_mm.registry import DATASETS, IMAGE_SOURCES

SPLITS = {'pool': 'train', 'test': 'test'}


@IMAGE_SOURCES.register_module()
class BinaryImages(ClsImageSource):
    """A data set of mmpretrain with the interface of its CIFAR10 or MNIST.

    An image_id is the split and the position in it: ``train/00042``. Labels are
    parted from images right after loading.

    Args:
        dataset: Its type: 'CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST', or the
            name of a subclass with its scope.
        data_root: Folder of the files.
        download: Fetch missing files.
        channels: 3, or 1 for grey images.
    """

    def __init__(
        self, dataset: str, data_root: str, download: bool = False, channels: int = 3
    ) -> None:
        super().__init__(channels)
        self.dataset = dataset if '.' in dataset else f'mmpretrain.{dataset}'
        self.data_root = data_root
        self.download = download
        cls = DATASETS.get(self.dataset)
        if cls is None or not hasattr(cls, 'train_list'):
            raise InputError(
                f'data_source.dataset {dataset!r} is no data set of mmpretrain that '
                'lies in binary files. Known: CIFAR10, CIFAR100, MNIST, FashionMNIST.'
            )
        if download:
            _fetch(cls, data_root)
        _check_files(cls, data_root)
        self.classes = tuple(cls.METAINFO['classes'])

    def list_images(self, split: str) -> list[str]:
        images, _ = _load(self.dataset, self.data_root, SPLITS[split])
        return [f'{SPLITS[split]}/{i:05d}' for i in range(len(images))]

    def _find(self, image_id: str) -> tuple[np.ndarray, int]:
        """Pixels and class of an image."""
        split, _, number = image_id.partition('/')
        if split in SPLITS.values() and number.isascii() and number.isdigit():
            images, labels = _load(self.dataset, self.data_root, split)
            if int(number) < len(images):
                return images[int(number)], int(labels[int(number)])
        raise InputError(
            f'{image_id!r} is no image of {self.dataset}: expected an id such as '
            "'train/00042'."
        )

    def load_image(self, image_id: str) -> np.ndarray:
        image, _ = self._find(image_id)
        if self.channels == 1 and image.ndim == 3:
            raise InputError(
                f'{self.dataset} has coloured images: set data_source.channels=3.'
            )
        return spread_channels(image, self.channels)

    def entry(self, image_id: str) -> dict:
        return {'img': self.load_image(image_id)}

    def label(self, image_id: str) -> int:
        return self._find(image_id)[1]

    def image_files(self, image_ids: Iterable[str]) -> dict[str, str]:
        """None: loading has read every image."""
        return {}


@functools.cache
def _fetch(cls, data_root: str) -> None:
    """Download the files of a data set that are not there.

    One process does, the others wait for its lock: no rank needs to know of them.
    """
    if _has_files(cls, data_root):
        return
    try:
        os.makedirs(data_root, exist_ok=True)
        with FileLock(osp.join(data_root, '.fetching')):
            if not _has_files(cls, data_root):  # fetched by another process
                _download(cls, data_root)
    # Whatever the network, the archive or the disk say.
    except Exception as error:
        raise InputError(
            f'The files of {cls.__name__} cannot be fetched into {data_root} '
            f'({type(error).__name__}: {error}). Put them there yourself and set '
            'data_source.download=False.'
        ) from None


def _download(cls, data_root: str) -> None:
    from mmpretrain.datasets import utils

    if hasattr(cls, 'base_folder'):
        archive = dict(filename=cls.filename, md5=cls.tgz_md5)
        utils.download_and_extract_archive(cls.url, data_root, **archive)
    else:
        cls(data_root=join_path(data_root, ''), lazy_init=True)._download()


def _has_files(cls, data_root: str) -> bool:
    try:
        _check_files(cls, data_root)
    except InputError:
        return False
    return True


# A data set is built several times per stage; hashing its files takes a second.
@functools.cache
def _check_files(cls, data_root: str) -> None:
    """Refuse missing and changed files, and say which.

    mmpretrain leaves this to its first process while the others wait.
    """
    from mmpretrain.datasets.utils import check_md5, rm_suffix

    has_md5 = hasattr(cls, 'base_folder')  # CIFAR's pickles, whose hash it insists on
    for name, md5 in cls.train_list + cls.test_list:
        path = osp.join(data_root, getattr(cls, 'base_folder', ''), name)
        path = path if has_md5 else rm_suffix(path)
        if not osp.exists(path):
            packed = '' if has_md5 else f' (unpack {name} there if you have it)'
            raise InputError(
                f'{path} does not exist: {cls.__name__} expects its original files '
                f'below {data_root}{packed}. Put them there, set data_source.data_root '
                'or fetch them with --cfg-options data_source.download=True'
            )
        if has_md5 and md5 is not None and not check_md5(path, md5):
            raise InputError(
                f'{path} is not the original file of {cls.__name__}: expected MD5 '
                f'{md5}. It is a pickle, and others are not opened. Fetch it again.'
            )


# Labelled, pool, test and score data sets of every stage share one copy.
@functools.lru_cache(maxsize=8)
def _load(
    dataset: str, data_root: str, split: str
) -> tuple[list[np.ndarray], np.ndarray]:
    """Images and labels of a split, parted at once."""
    # mmpretrain's MNIST goes by test_mode and ignores split.
    cfg = dict(type=dataset, split=split, test_mode=split == 'test', download=False)
    cfg.update(data_root=join_path(data_root, ''), lazy_init=True)
    try:
        # Let mmpretrain load without waiting for all processes to do so.
        with mock.patch.object(dist, 'barrier'):
            data_list = DATASETS.build(cfg).load_data_list()
    # A damaged file fails wherever its bytes stop making sense.
    except (AssertionError, EOFError, KeyError, OSError, RuntimeError, ValueError) as e:
        raise InputError(
            f'{dataset} cannot be read from {os.path.abspath(data_root)} '
            f'({type(e).__name__}: {e}). Fetch its files again.'
        ) from None
    images = [entry['img'] for entry in data_list]
    return images, np.array([int(entry['gt_label']) for entry in data_list])
