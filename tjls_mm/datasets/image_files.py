"""Classification data sets of one file per image."""

import functools
import os
import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np

from tjls_mm.datasets.cls_source import ClsImageSource, spread_channels
from tjls_mm.datasets.image_source import check_image_id, check_names, time_of_change
from tjls_mm.errors import InputError
from tjls_mm.files import write_text
from tjls_mm.image_ids import split_lines
from tjls_mm.registry import IMAGE_SOURCES

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
"""Of mmpretrain's CustomDataset."""
NO_LABEL = -1
"""Of a pool image that nobody has labelled."""


class ImageFiles(ClsImageSource):
    """Images for classification that have files of their own."""

    def __init__(
        self,
        data_root: str,
        channels: int,
        max_pool: int | None = None,
        max_test: int | None = None,
    ) -> None:
        super().__init__(channels, max_pool, max_test)
        self.data_root = data_root
        self._check_root()

    def entry(self, image_id: str) -> dict:
        return {'img_path': self.image_path(image_id)}

    def load_image(self, image_id: str) -> np.ndarray:
        flag = 'color' if self.channels == 3 else 'grayscale'
        path = self.image_path(image_id)
        try:
            image = mmcv.imread(path, flag, channel_order='rgb')
            return spread_channels(image, self.channels)
        # OpenCV gives None for what it cannot decode, and its callers fail on that.
        except (cv2.error, AttributeError, OSError) as error:
            raise InputError(
                f'{path} cannot be decoded by OpenCV ({type(error).__name__}). Make it '
                'PNG or JPEG with 8 bits per channel.'
            ) from None

    def write_annotation_lists(self, folder: Path, image_ids: Mapping) -> None:
        """Files of mmpretrain's CustomDataset; the pool's are ``with_label=False``."""
        for name, lines in image_ids.items():
            if name == 'labelled':
                lines = [
                    f'{image_id} {self.known_label(image_id)}' for image_id in lines
                ]
            text = ''.join(f'{line}\n' for line in lines)
            write_text(folder / f'{name}_annotations.txt', text)


@IMAGE_SOURCES.register_module()
class ImageFolders(ImageFiles):
    """Folders of images, one folder per class: ``train/cat/0001.jpg``.

    An image_id is the path below ``data_root``.

    Args:
        data_root: Folder of the data set.
        pool_dirs: Folders below it whose images are labelled or pool; ``'.'`` where
            the class folders lie in ``data_root`` itself.
        test_dirs: Folders below it to evaluate on.
        classes: Names of the class folders in order; all that occur by default.
        channels: 3, or 1 for grey images.
        extensions: Of image files; other files are left out.
        max_pool, max_test: Images at most, see ``ClsImageSource``.
        unlabelled_dirs: Folders below ``data_root`` with pool images that have no class
            yet, at any depth; names of folders in them mean nothing.
    """

    def __init__(
        self,
        data_root: str,
        pool_dirs: Sequence[str],
        test_dirs: Sequence[str],
        classes: Sequence[str] | None = None,
        channels: int = 3,
        extensions: Sequence[str] = EXTENSIONS,
        max_pool: int | None = None,
        max_test: int | None = None,
        unlabelled_dirs: Sequence[str] = (),
    ) -> None:
        super().__init__(data_root, channels, max_pool, max_test)
        self.pool_dirs = [*map(osp.normpath, check_names('pool_dirs', pool_dirs))]
        self.test_dirs = [*map(osp.normpath, check_names('test_dirs', test_dirs))]
        self.unlabelled_dirs = []
        if unlabelled_dirs:
            names = check_names('unlabelled_dirs', unlabelled_dirs)
            self.unlabelled_dirs = [*map(osp.normpath, names)]
        self.dirs = {'pool': self.pool_dirs, 'test': self.test_dirs}
        self.extensions = tuple(map(str.lower, extensions))
        self._check_dirs()
        if classes is not None:
            classes = check_names('classes', classes)
        self.classes = tuple(classes or self._find_classes())
        self._label = {name: i for i, name in enumerate(self.classes)}

    def _check_dirs(self) -> None:
        dirs_of = {**self.dirs, 'unlabelled': self.unlabelled_dirs}
        for split, dirs in dirs_of.items():
            for name in dirs:
                setting = f'data_source.{split}_dirs'
                path = osp.join(self.data_root, name)
                if osp.isabs(name) or name.split(os.sep)[0] == '..':
                    root = f'the data root {self.data_root}'
                    raise InputError(f'{setting}: {name!r} leads out of {root}.')
                if not osp.isdir(path):
                    found = ', '.join(_visible_folders(self.data_root)) or 'none'
                    raise InputError(
                        f'{path} does not exist: {setting} names {name!r}. Found '
                        f'folders: {found}.'
                    )

    def _class_folders(self, name: str) -> list[str]:
        found = _visible_folders(osp.join(self.data_root, name))
        # With '.' the folders of other splits may lie beside the classes.
        others = self.pool_dirs + self.test_dirs + self.unlabelled_dirs
        return [c for c in found if osp.normpath(osp.join(name, c)) not in others]

    def _find_classes(self) -> list[str]:
        found = {
            split: {c for name in dirs for c in self._class_folders(name)}
            for split, dirs in self.dirs.items()
        }
        if never := found['test'] - found['pool']:
            raise InputError(
                f'{self.data_root}: no training image can be of class {min(never)!r} '
                f'of {self.test_dirs}. Rename the folder, or set data_source.classes.'
            )
        if not found['pool']:
            path = osp.join(self.data_root, self.pool_dirs[0])
            raise InputError(f'{path} holds no class folders (<class>/<image>).')
        return sorted(found['pool'])

    def list_images(self, split: str) -> list[str]:
        image_ids = []
        missing = set(self.classes) if split == 'pool' else set()
        for name in self.dirs[split]:
            folder = osp.join(self.data_root, name)
            for class_name in self._class_folders(name):
                path = osp.join(folder, class_name)
                if class_name not in self._label:
                    raise InputError(
                        f'{path}: {class_name!r} is no class. Expected folders '
                        f'{list(self.classes)}. Remove it, or set data_source.classes.'
                    )
                if found := self._walk(path):
                    image_ids += found
                    missing.discard(class_name)
            if loose := [name for name in os.listdir(folder) if self._is_image(name)]:
                raise InputError(
                    f'{osp.join(folder, min(loose))} ({len(loose)} such files) is in '
                    'no class folder: expected <class>/<image>.'
                )
        if missing:
            raise InputError(
                f'{self.data_root}: no image of class {min(missing)!r} in '
                f'{self.pool_dirs}, a file that ends in one of {self.extensions} '
                '(data_source.extensions).'
            )
        for name in self.unlabelled_dirs if split == 'pool' else ():
            image_ids += self._walk(osp.join(self.data_root, name))
        return self._thinned(split, self._sorted_ids(image_ids, f'{split}_dirs'))

    def _is_image(self, name: str) -> bool:
        return name.lower().endswith(self.extensions) and not name.startswith('.')

    def _walk(self, folder: str) -> list[str]:
        found = []
        for parent, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith('.')]
            found += [osp.join(parent, name) for name in names if self._is_image(name)]
        ids = (osp.normpath(osp.relpath(path, self.data_root)) for path in found)
        return [check_image_id(image_id, self.data_root) for image_id in ids]

    def label(self, image_id: str) -> int:
        for name in self.unlabelled_dirs:
            if image_id.startswith(f'{name}{os.sep}'):
                raise InputError(f'{image_id!r} has no class: it is in {name!r}.')
        # The longest folder first: 'real/a' before 'real'.
        dirs = sorted({*self.pool_dirs, *self.test_dirs}, key=len, reverse=True)
        for name in dirs:
            prefix = '' if name == '.' else f'{name}{os.sep}'
            if image_id.startswith(prefix):
                class_name = image_id.removeprefix(prefix).split(os.sep)[0]
                if class_name in self._label:
                    return self._label[class_name]
        where = f'{dirs} below {self.data_root}'
        raise InputError(f'{image_id!r} lies in no class folder of {where}.')


def _visible_folders(path: str) -> list[str]:
    entries = (e for e in os.scandir(path) if not e.name.startswith('.'))
    return sorted(entry.name for entry in entries if entry.is_dir())


def _raise(error: OSError) -> None:
    raise InputError(f'{error.filename} cannot be read: {error.strerror}.')


@IMAGE_SOURCES.register_module()
class ImageLists(ImageFiles):
    """Images named by annotation files of mmpretrain's CustomDataset.

    A line is a path and the number of its class, ``cats/0001.jpg 3``, or -1 of a pool
    image that has none yet. An image_id is the path below ``data_root``.

    Args:
        data_root: Folder of the data set.
        pool_files: Annotation files below it; their images are labelled or pool.
        test_files: Annotation files of the images to evaluate on.
        classes: Class names; a label is a position in them.
        image_dir: Folder below ``data_root`` that paths in the files start from.
        channels: 3, or 1 for grey images.
        max_pool, max_test: Images at most, see ``ClsImageSource``.
    """

    def __init__(
        self,
        data_root: str,
        pool_files: Sequence[str],
        test_files: Sequence[str],
        classes: Sequence[str],
        image_dir: str = '',
        channels: int = 3,
        max_pool: int | None = None,
        max_test: int | None = None,
    ) -> None:
        super().__init__(data_root, channels, max_pool, max_test)
        self.pool_files = check_names('pool_files', pool_files)
        self.test_files = check_names('test_files', test_files)
        self.files = {'pool': self.pool_files, 'test': self.test_files}
        self.classes = tuple(check_names('classes', classes))
        self.image_dir = image_dir

    def _read(self, name: str) -> Mapping[str, int]:
        path = osp.join(self.data_root, name)
        missing = f'{path} does not exist: data_source names {name!r}.'
        changed = time_of_change(path, missing)
        return read_annotation_file(path, self.image_dir, len(self.classes), changed)

    def list_images(self, split: str) -> list[str]:
        image_ids = [i for name in self.files[split] for i in self._read(name)]
        for image_id in image_ids:
            self.image_path(image_id)  # raises where it leads out of the root
        return self._thinned(split, self._sorted_ids(image_ids, f'{split}_files'))

    def label(self, image_id: str) -> int:
        for labels in map(self._read, self.pool_files + self.test_files):
            if image_id in labels and labels[image_id] == NO_LABEL:
                raise InputError(f'{image_id!r} has no class: its label is {NO_LABEL}.')
            if image_id in labels:
                return labels[image_id]
        raise InputError(f'{image_id!r} is in no file of data_source: {self.files}.')


# Every stage reads the labels of the same files again.
@functools.lru_cache(maxsize=64)
def read_annotation_file(path: str, image_dir: str, limit: int, changed: int) -> dict:
    """Labels by image_id, in [0, ``limit``) or -1; an InputError names a bad line."""
    labels = {}
    try:
        lines = split_lines(Path(path).read_text(encoding='utf-8-sig'))
    except UnicodeDecodeError:
        raise InputError(f'{path} is not a text file of lines "path label".') from None
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        where = f'{path}, line {number}'
        is_number = label.isascii() and label.removeprefix('-').isdigit()
        if not name.strip() or not is_number:
            expected = 'a path, a blank and the number of a class ("cats/0001.jpg 3")'
            raise InputError(f'{where}: expected {expected}, found {line!r}.')
        if not NO_LABEL <= int(label) < limit:
            allowed = f'data_source.classes allow 0 to {limit - 1}'
            raise InputError(f'{where}: label {label} is out of range: {allowed}.')
        image_id = osp.normpath(osp.join(image_dir, name.strip()))
        if image_id in labels:
            raise InputError(f'{where}: {name.strip()!r} is named before. Remove one.')
        labels[image_id] = int(label)
    return labels
