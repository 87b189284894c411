"""CIFAR and MNIST, whose files hold many images and their labels."""

import contextlib
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

    An image_id is the split and the position in it: ``train/00042``.

    Args:
        dataset: 'CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST', or the name of a
            subclass with its scope.
        data_root: Folder of the files.
        download: Fetch missing files.
        channels: 3, or 1 for grey images.
        max_pool, max_test: Images at most, see ``ClsImageSource``.
    """

    def __init__(
        self,
        dataset: str,
        data_root: str,
        download: bool = False,
        channels: int = 3,
        max_pool: int | None = None,
        max_test: int | None = None,
    ) -> None:
        super().__init__(channels, max_pool, max_test)
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
        ids = [f'{SPLITS[split]}/{i:05d}' for i in range(len(images))]
        return self._thinned(split, ids)

    def _find(self, image_id: str) -> tuple[np.ndarray, int]:
        split, _, number = image_id.partition('/')
        if split in SPLITS.values() and number.isascii() and number.isdigit():
            images, labels = _load(self.dataset, self.data_root, split)
            if int(number) < len(images):
                return images[int(number)], int(labels[int(number)])
        expected = "expected an id such as 'train/00042'"
        raise InputError(f'{image_id!r} is no image of {self.dataset}: {expected}.')

    def load_image(self, image_id: str) -> np.ndarray:
        image, _ = self._find(image_id)
        if self.channels == 1 and image.ndim == 3:
            advice = 'set data_source.channels=3'
            raise InputError(f'{self.dataset} has coloured images: {advice}.')
        return spread_channels(image, self.channels)

    def entry(self, image_id: str) -> dict:
        return {'img': self.load_image(image_id)}

    def label(self, image_id: str) -> int:
        return self._find(image_id)[1]

    def image_files(self, image_ids: Iterable[str]) -> dict[str, str]:
        return {}  # loading has read every image


@functools.cache
def _fetch(cls, data_root: str) -> None:
    """Download missing files in one process; the others wait for its lock."""
    from mmpretrain.datasets import utils

    with contextlib.suppress(InputError):
        return _check_files(cls, data_root)
    try:
        os.makedirs(data_root, exist_ok=True)
        with FileLock(osp.join(data_root, '.fetching')):
            with contextlib.suppress(InputError):  # fetched by another process
                return _check_files(cls, data_root)
            if hasattr(cls, 'base_folder'):
                archive = dict(filename=cls.filename, md5=cls.tgz_md5)
                utils.download_and_extract_archive(cls.url, data_root, **archive)
            else:
                cls(data_root=join_path(data_root, ''), lazy_init=True)._download()
    # Whatever the network, the archive or the disk say.
    except Exception as error:
        raise InputError(
            f'{cls.__name__} cannot be fetched into {data_root} ({type(error).__name__}'
            f': {error}). Put its files there and set data_source.download=False.'
        ) from None


# A data set is built several times per stage; hashing its files takes a second.
@functools.cache
def _check_files(cls, data_root: str) -> None:
    """Name a missing or changed file; in mmpretrain only its first process does."""
    from mmpretrain.datasets.utils import check_md5, rm_suffix

    has_md5 = hasattr(cls, 'base_folder')  # CIFAR's pickles, whose hash it insists on
    for name, md5 in cls.train_list + cls.test_list:
        path = osp.join(data_root, getattr(cls, 'base_folder', ''), name)
        path = path if has_md5 else rm_suffix(path)
        if not osp.exists(path):
            packed = '' if has_md5 else f' (unpack {name} there if you have it)'
            raise InputError(
                f'{path} does not exist{packed}: put the original files of '
                f'{cls.__name__} below {data_root}, set data_source.data_root or fetch '
                'them: --cfg-options data_source.download=True'
            )
        if has_md5 and md5 is not None and not check_md5(path, md5):
            raise InputError(
                f'{path} is not the original file of {cls.__name__} (MD5 {md5}), and '
                'other pickles are not opened. Fetch it again.'
            )


# Labelled, pool, test and score data sets of every stage share one copy.
@functools.lru_cache(maxsize=8)
def _load(dataset: str, data_root: str, split: str) -> tuple[list, np.ndarray]:
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
