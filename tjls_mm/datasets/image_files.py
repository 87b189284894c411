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


class _ImageFiles(ClsImageSource):
    def __init__(self, data_root: str, channels: int) -> None:
        super().__init__(channels)
        self.data_root = data_root
        self._check_root()

    def entry(self, image_id: str) -> dict:
        return {'img_path': self.image_path(image_id)}

    def load_image(self, image_id: str) -> np.ndarray:
        """As mmcv's LoadImageFromFile decodes it."""
        flag = 'color' if self.channels == 3 else 'grayscale'
        path = self.image_path(image_id)
        try:
            image = mmcv.imread(path, flag, channel_order='rgb')
            return spread_channels(image, self.channels)
        # OpenCV gives None for what it cannot decode, and its callers fail on that.
        except (cv2.error, AttributeError, OSError) as error:
            raise InputError(
                f'{path} cannot be decoded by OpenCV ({type(error).__name__}). Convert '
                'it to PNG or JPEG with 8 bits per channel.'
            ) from None

    def write_annotation_lists(
        self, folder: Path, image_ids: Mapping[str, Sequence[str]]
    ) -> None:
        """Write annotation files of mmpretrain's CustomDataset.

        ``labelled_annotations.txt`` holds lines of ``path label``,
        ``pool_annotations.txt`` paths only (``with_label=False``).
        """
        for name, lines in image_ids.items():
            if name == 'labelled':
                lines = [f'{image_id} {self.label(image_id)}' for image_id in lines]
            text = ''.join(f'{line}\n' for line in lines)
            write_text(folder / f'{name}_annotations.txt', text)


@IMAGE_SOURCES.register_module()
class ImageFolders(_ImageFiles):
    """Folders of images, one folder per class: ``train/cat/0001.jpg``.

    An image_id is the path below ``data_root``.

    Args:
        data_root: Folder of the data set.
        pool_dirs: Folders below it whose images are labelled or pool; ``'.'`` where
            the class folders lie in ``data_root`` itself.
        test_dirs: Folders below it to evaluate on.
        classes: Names of the class folders in order. Defaults to all that occur, by
            name.
        channels: 3, or 1 for grey images.
        extensions: Of image files; other files are left out.
    """

    def __init__(
        self,
        data_root: str,
        pool_dirs: Sequence[str],
        test_dirs: Sequence[str],
        classes: Sequence[str] | None = None,
        channels: int = 3,
        extensions: Sequence[str] = EXTENSIONS,
    ) -> None:
        super().__init__(data_root, channels)
        self.pool_dirs = [*map(osp.normpath, check_names('pool_dirs', pool_dirs))]
        self.test_dirs = [*map(osp.normpath, check_names('test_dirs', test_dirs))]
        self.dirs = {'pool': self.pool_dirs, 'test': self.test_dirs}
        self.extensions = tuple(extension.lower() for extension in extensions)
        self._check_dirs()
        if classes is not None:
            classes = check_names('classes', classes)
        self.classes = tuple(classes or self._find_classes())
        self._label = {name: i for i, name in enumerate(self.classes)}

    def _check_dirs(self) -> None:
        for split, dirs in self.dirs.items():
            for name in dirs:
                if osp.isabs(name) or name.split(os.sep)[0] == '..':
                    raise InputError(
                        f'data_source.{split}_dirs: {name!r} leads out of the data '
                        f'root {self.data_root}.'
                    )
                if not osp.isdir(osp.join(self.data_root, name)):
                    found = ', '.join(_visible_folders(self.data_root))
                    raise InputError(
                        f'{osp.join(self.data_root, name)} does not exist: '
                        f'data_source.{split}_dirs names {name!r}. Found folders: '
                        f'{found or "none"}.'
                    )

    def _class_folders(self, name: str) -> list[str]:
        found = _visible_folders(osp.join(self.data_root, name))
        # With '.' the folders of other splits may lie beside the classes.
        others = self.pool_dirs + self.test_dirs
        return [c for c in found if osp.normpath(osp.join(name, c)) not in others]

    def _find_classes(self) -> list[str]:
        found = {
            split: {c for name in dirs for c in self._class_folders(name)}
            for split, dirs in self.dirs.items()
        }
        if never := found['test'] - found['pool']:
            raise InputError(
                f'{self.data_root}: no training image can be of class {min(never)!r}, '
                f'a folder in {self.test_dirs} but not in {self.pool_dirs}. Rename it, '
                'or name the classes in data_source.classes.'
            )
        if not found['pool']:
            raise InputError(
                f'{osp.join(self.data_root, self.pool_dirs[0])} holds no class '
                'folders: expected <class>/<image> in it.'
            )
        return sorted(found['pool'])

    def list_images(self, split: str) -> list[str]:
        image_ids = []
        missing = set(self.classes) if split == 'pool' else set()
        for name in self.dirs[split]:
            folder = osp.join(self.data_root, name)
            for class_name in self._class_folders(name):
                if class_name not in self._label:
                    raise InputError(
                        f'{osp.join(folder, class_name)}: {class_name!r} is no '
                        f'class. Expected folders {list(self.classes)}. Rename or '
                        'remove it, or add it to data_source.classes.'
                    )
                found = self._walk(osp.join(folder, class_name))
                image_ids += found
                if found:
                    missing.discard(class_name)
            loose = [name for name in os.listdir(folder) if self._is_image(name)]
            if loose:
                raise InputError(
                    f'{osp.join(folder, min(loose))} ({len(loose)} such files) is in '
                    'no class folder: expected <class>/<image>.'
                )
        if missing:
            raise InputError(
                f'{self.data_root}: no image of class {min(missing)!r} in '
                f'{self.pool_dirs}. Image files end in {", ".join(self.extensions)} '
                '(data_source.extensions).'
            )
        return self._sorted_ids(image_ids, f'{split}_dirs')

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
        """The class that the image's folder is called after."""
        # The longest folder first: 'real/a' before 'real'.
        dirs = sorted({*self.pool_dirs, *self.test_dirs}, key=len, reverse=True)
        for name in dirs:
            prefix = '' if name == '.' else f'{name}{os.sep}'
            if image_id.startswith(prefix):
                class_name = image_id.removeprefix(prefix).split(os.sep)[0]
                if class_name in self._label:
                    return self._label[class_name]
        raise InputError(
            f'{image_id!r} lies in no class folder of {dirs} below {self.data_root}.'
        )


def _visible_folders(path: str) -> list[str]:
    entries = (e for e in os.scandir(path) if not e.name.startswith('.'))
    return sorted(entry.name for entry in entries if entry.is_dir())


def _raise(error: OSError) -> None:
    raise InputError(f'{error.filename} cannot be read: {error.strerror}.')


@IMAGE_SOURCES.register_module()
class ImageLists(_ImageFiles):
    """Images named by annotation files of mmpretrain's CustomDataset.

    A line is a path and the number of its class, ``cats/0001.jpg 3``. An image_id is
    the path below ``data_root``.

    Args:
        data_root: Folder of the data set.
        pool_files: Annotation files below it; their images are labelled or pool.
        test_files: Annotation files of the images to evaluate on.
        classes: Class names; a label is a position in them.
        image_dir: Folder below ``data_root`` that paths in the files start from.
        channels: 3, or 1 for grey images.
    """

    def __init__(
        self,
        data_root: str,
        pool_files: Sequence[str],
        test_files: Sequence[str],
        classes: Sequence[str],
        image_dir: str = '',
        channels: int = 3,
    ) -> None:
        super().__init__(data_root, channels)
        self.pool_files = check_names('pool_files', pool_files)
        self.test_files = check_names('test_files', test_files)
        self.files = {'pool': self.pool_files, 'test': self.test_files}
        self.classes = tuple(check_names('classes', classes))
        self.image_dir = image_dir

    def _read(self, name: str) -> Mapping[str, int]:
        path = osp.join(self.data_root, name)
        missing = f'Annotation file {path} does not exist: data_source names {name!r}.'
        changed = time_of_change(path, missing)
        return read_annotation_file(path, self.image_dir, len(self.classes), changed)

    def list_images(self, split: str) -> list[str]:
        image_ids = [i for name in self.files[split] for i in self._read(name)]
        for image_id in image_ids:
            self.image_path(image_id)  # raises where it leads out of the root
        return self._sorted_ids(image_ids, f'{split}_files')

    def label(self, image_id: str) -> int:
        """The class in the file that names the image."""
        for name in self.pool_files + self.test_files:
            label = self._read(name).get(image_id)
            if label is not None:
                return label
        raise InputError(
            f'{image_id!r} is in none of the annotation files of data_source: '
            f'{self.files}.'
        )


# Every stage reads the labels of the same files again.
@functools.lru_cache(maxsize=64)
def read_annotation_file(
    path: str, image_dir: str, n_classes: int, changed: int
) -> Mapping[str, int]:
    """Labels in [0, ``n_classes``) by image_id; read once until a file is ``changed``.

    Raises:
        InputError: If a line is not ``path label``, a label is out of range, or an
            image is named twice; says the line.
    """
    labels: dict[str, int] = {}
    try:
        lines = split_lines(Path(path).read_text(encoding='utf-8-sig'))
    except UnicodeDecodeError:
        raise InputError(f'{path} is not a text file of lines "path label".') from None
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        where = f'{path}, line {number}'
        if not name.strip() or not label.isascii() or not label.isdigit():
            raise InputError(
                f'{where}: expected a path, a blank and the number of a class, such '
                f'as "cats/0001.jpg 3", found {line!r}.'
            )
        if int(label) >= n_classes:
            raise InputError(
                f'{where}: label {label} is out of range: data_source.classes allow '
                f'0 to {n_classes - 1}.'
            )
        image_id = osp.normpath(osp.join(image_dir, name.strip()))
        if image_id in labels:
            raise InputError(f'{where}: {name.strip()!r} is named before. Remove one.')
        labels[image_id] = int(label)
    return labels
