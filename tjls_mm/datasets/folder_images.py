"""Folders of images, of which most may have no labels anywhere."""

import os
import os.path as osp
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tjls_mm.datasets.detection_source import DetectionSource, Instance
from tjls_mm.datasets.image_files import ImageFiles
from tjls_mm.datasets.image_source import ImageSource, check_image_id, check_names
from tjls_mm.errors import InputError
from tjls_mm.registry import IMAGE_SOURCES, build_own

EXTENSIONS = '.bmp .jpeg .jpg .pgm .png .ppm .tif .tiff .webp'.split()
"""Of image files, in small or capital letters; other files are left out."""


def find_images(folder: str) -> list[str]:
    """Paths below a folder of the images in it and in its folders, sorted.

    Names that begin with a dot are left out. Links to files of the folder count;
    links to folders are not followed.

    Raises:
        InputError: If a folder cannot be read, a link leads out of the folder, or a
            name cannot stand in a list file.
    """
    if not osp.isdir(folder):
        raise InputError(f'{folder} does not exist: expected a folder of images.')
    root, found = osp.realpath(folder), []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith('.')]
        images = [name for name in names if is_image(name)]
        for name in (*folders, *images):
            _check_link(osp.join(parent, name), root)
        below = osp.relpath(parent, folder)
        found += [osp.normpath(osp.join(below, name)) for name in images]
    return sorted(check_image_id(image_id, folder) for image_id in found)


def is_image(name: str) -> bool:
    """Whether a file is one by its name."""
    return name.lower().endswith(tuple(EXTENSIONS)) and not name.startswith('.')


def _check_link(path: str, root: str) -> None:
    if osp.islink(path):
        target = osp.realpath(path)
        if osp.commonpath([root, target]) != root:
            raise InputError(
                f'{path} is a link to {target}, which is not in the folder: put the '
                'file itself there, or remove the link.'
            )


def _raise(error: OSError) -> None:
    raise InputError(f'{error.filename} cannot be read: {error.strerror}.')


class _FolderSource(ImageSource):
    """What folders of images for detection and classification have in common."""

    pool_dirs: Sequence[str]
    annotated: Mapping | None

    def _build_annotated(self, classes: Sequence[str] | None) -> None:
        """Build the source that has the labels, and find the names of classes."""
        self.labels: ImageSource | None = None
        if self.annotated is not None:
            given = {'data_root': self.data_root, **self.annotated}
            if classes is not None:
                given.setdefault('classes', classes)
            self.labels = build_own(IMAGE_SOURCES, given)
            classes = self.labels.classes if classes is None else classes
            if tuple(classes) != tuple(self.labels.classes):
                raise InputError(
                    f'data_source.classes {tuple(classes)} are not those of '
                    f'data_source.annotated, {self.labels.classes}: name them once.'
                )
        if classes is None:
            raise InputError('data_source.classes: name the classes, in order.')
        self.classes = tuple(check_names('classes', classes))

    def list_images(self, split: str) -> list[str]:
        test = self.labels.list_images('test') if self.labels else []
        if split == 'test':
            return test
        self._check_root()
        image_ids = []
        for name in self.pool_dirs:
            path = osp.normpath(osp.join(self.data_root, name))
            if osp.isabs(name) or osp.normpath(name).split(os.sep)[0] == '..':
                root = f'the data root {self.data_root}'
                raise InputError(f'data_source.pool_dirs: {name!r} leads out of {root}')
            below = find_images(path)
            image_ids += [osp.normpath(osp.join(name, image_id)) for image_id in below]
        held_out = set(test)
        image_ids = [image_id for image_id in image_ids if image_id not in held_out]
        return self._sorted_ids(image_ids, 'pool_dirs')

    def work_dir_problems(self, work_dir: str) -> Iterator[str]:
        for name in self.pool_dirs:
            pool = osp.join(self.data_root, name)
            work, root = osp.realpath(work_dir), osp.realpath(pool)
            if osp.commonpath([work, root]) != root:
                continue
            below = osp.relpath(work, root)
            if below == '.' or not any(p.startswith('.') for p in below.split(os.sep)):
                yield (
                    f'The work dir {work_dir} lies in {pool}, all images of which are '
                    'the pool: pictures that the trial draws would become part of it. '
                    'Use another --work-dir, or other data_source.pool_dirs.'
                )

    def _labels_of(self, image_id: str) -> ImageSource:
        if self.labels is None:
            raise InputError(
                f'{image_id} has no label: data_source names a folder of images, and '
                'no source of labels as annotated=dict(type=...).'
            )
        return self.labels

    def annotation_problems(self, image_ids: Iterable[str], what: str) -> Iterator[str]:
        image_ids = list(image_ids)
        answered = [image_id for image_id in image_ids if image_id in self.answers]
        yield from super().annotation_problems(answered, what)
        image_ids = [i for i in image_ids if i not in self.answers]
        if image_ids and self.labels is None:
            yield f'{image_ids[0]} ({what} image) has no label: set annotated.'
        elif image_ids:
            try:
                yield from self.labels.annotation_problems(image_ids, what)
            except InputError as error:  # an image that its files do not name
                yield str(error)


@IMAGE_SOURCES.register_module()
class FolderImages(_FolderSource, DetectionSource):
    """Every image below a folder; boxes, of some of them, come from another source.

    An image_id is the path below ``data_root``. The pool are the images of
    ``pool_dirs`` that are no test images, without a list of them anywhere.

    Args:
        data_root: Folder of the images.
        classes: In order; by default those of ``annotated``.
        pool_dirs: Folders below it; ``'.'`` for all.
        annotated: Config of a source with the same image_ids, e.g. of
            ``tjls_mm.CocoFiles`` with the same ``data_root``, that has the boxes of
            labelled images and names the test images. Its list of pool images is not
            looked at. None: nobody has labelled anything, and there is no test set.
    """

    def __init__(
        self,
        data_root: str,
        classes: Sequence[str] | None = None,
        pool_dirs: Sequence[str] = ('.',),
        annotated: Mapping | None = None,
    ) -> None:
        self.data_root = data_root
        self.pool_dirs = check_names('pool_dirs', pool_dirs)
        self.annotated = annotated
        self._build_annotated(classes)
        names = 'ignore_classes', 'bad_boxes'
        rules = {n: getattr(self.labels, n) for n in names if hasattr(self.labels, n)}
        super().__init__(data_root, self.classes, **rules)

    def instances(self, image_id: str) -> Sequence[Instance]:
        return self._labels_of(image_id).instances(image_id)

    def img_id(self, image_id: str) -> int:
        try:
            return self._labels_of(image_id).img_id(image_id)
        except InputError:  # an image of the pool
            return super().img_id(image_id)

    def annotation_place(self, image_id: str) -> str:
        return self._labels_of(image_id).annotation_place(image_id)

    def box_problem(self, box: Instance, size: tuple[int, int]) -> str | None:
        return (self.labels or super()).box_problem(box, size)

    def ann_file_problems(self, part: str, ann_file: str) -> Iterator[str]:
        return (self.labels or super()).ann_file_problems(part, ann_file)


@IMAGE_SOURCES.register_module()
class FolderClsImages(_FolderSource, ImageFiles):
    """The same for classification, whatever the folders are called.

    Args:
        data_root, pool_dirs: See ``FolderImages``.
        classes: In order; by default those of ``annotated``.
        annotated: Config of a source with the same image_ids, e.g. of
            ``tjls_mm.ImageLists``, that has the classes of labelled images and names
            the test images; or None.
        channels: 3, or 1 for grey images.
    """

    def __init__(
        self,
        data_root: str,
        classes: Sequence[str] | None = None,
        pool_dirs: Sequence[str] = ('.',),
        annotated: Mapping | None = None,
        channels: int = 3,
    ) -> None:
        super().__init__(data_root, channels)
        self.pool_dirs = check_names('pool_dirs', pool_dirs)
        self.annotated = annotated
        self._build_annotated(classes)

    def label(self, image_id: str) -> int:
        return self._labels_of(image_id).label(image_id)
