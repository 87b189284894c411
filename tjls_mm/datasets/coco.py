"""Data sets in the format of COCO."""

import functools
import json
import os
import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tjls_mm.datasets.detection_source import DetectionSource, Instance, add_instances
from tjls_mm.datasets.image_checks import image_size
from tjls_mm.datasets.image_source import check_image_id, check_names, time_of_change
from tjls_mm.errors import InputError
from tjls_mm.registry import IMAGE_SOURCES


class CocoImage(NamedTuple):
    """An image as an annotation file lists it."""

    number: int  # its ``id``
    size: tuple[int, int] | None  # (width, height) in pixels


class CocoFile(NamedTuple):
    """Content of an annotation file, labels parted from images."""

    path: str
    categories: Mapping[int, str]  # ``id`` to name, in the order of the file
    images: Mapping[str, CocoImage]  # by image_id
    # Objects by number of their image, unchecked; None in a file of images alone.
    annotations: Mapping[int, list[Mapping]] | None


@IMAGE_SOURCES.register_module()
class CocoFiles(DetectionSource):
    """Images and annotation files of a data set in COCO format.

    An image_id is the path below ``data_root``: the image dir and ``file_name``,
    ``train2017/000000000009.jpg``. A file of pool images may lack ``annotations``.
    Boxes with ``iscrowd`` or ``ignore`` are neither trained on nor evaluated.

    Args:
        data_root: Folder of the data set.
        pool_files: Annotation files below it; their images are labelled or pool.
        test_files: Annotation files of the images to evaluate on.
        image_dirs: Folder below it of file names, or ``dict(pool=..., test=...)``.
        classes: In order; by default the categories of the first pool file, by id.
        ignore_classes: Names of categories that are no classes and no mistakes.
        bad_boxes: 'error', or 'drop' to leave out boxes of less than a pixel or
            outside their image.
    """

    def __init__(
        self,
        data_root: str,
        pool_files: Sequence[str],
        test_files: Sequence[str],
        image_dirs: str | Mapping[str, str] = '',
        classes: Sequence[str] | None = None,
        ignore_classes: Sequence[str] = (),
        bad_boxes: str = 'error',
    ) -> None:
        self.data_root = data_root
        self._check_root()
        self.pool_files = check_names('pool_files', pool_files)
        self.test_files = check_names('test_files', test_files)
        if isinstance(image_dirs, str):
            image_dirs = {'pool': image_dirs, 'test': image_dirs}
        if set(image_dirs) != {'pool', 'test'}:
            expected = 'must be a folder or dict(pool=..., test=...)'
            raise InputError(f'data_source.image_dirs {expected}, got {image_dirs}.')
        self.image_dirs = dict(image_dirs)
        if classes is None:
            first = next(self._files('pool'))
            names = [name for _, name in sorted(first.categories.items())]
            classes = [name for name in names if name not in ignore_classes]
            if not classes:
                advice = 'name them in data_source.classes'
                raise InputError(f'{first.path} has no categories: {advice}.')
        super().__init__(data_root, classes, ignore_classes, bad_boxes)

    def _files(self, split: str) -> Iterator[CocoFile]:
        setting = f'{split}_files'
        for name in getattr(self, setting):
            path = osp.join(self.data_root, name)
            missing = f'{path} does not exist: data_source.{setting} names {name!r}.'
            yield _read(path, self.image_dirs[split], time_of_change(path, missing))

    def _find(self, image_id: str) -> tuple[CocoFile, CocoImage]:
        for split in ('pool', 'test'):
            for file in self._files(split):
                if image_id in file.images:
                    return file, file.images[image_id]
        files = f'annotation files {self.pool_files + self.test_files}'
        raise InputError(f'{image_id!r} is in none of the {files} of data_source.')

    def list_images(self, split: str) -> list[str]:
        places, numbers = {}, {}
        for file in self._files(split):
            for image_id, image in file.images.items():
                if image_id in places:
                    raise InputError(
                        f'{image_id!r} is in {places[image_id]} and in {file.path}: '
                        f'name each image in one file of data_source.{split}_files.'
                    )
                places[image_id] = file.path
                other = numbers.setdefault(image.number, file.path)
                # mmdet tells the images that it evaluates by this number alone.
                if split == 'test' and other != file.path:
                    both = f'{other} and {file.path} have an image of id {image.number}'
                    advice = 'number the images of the test files in one sequence'
                    raise InputError(f'{both} each: {advice}.')
        return sorted(places)

    def image_size(self, image_id: str) -> tuple[int, int]:
        return self._find(image_id)[1].size or super().image_size(image_id)

    def img_id(self, image_id: str) -> int:
        return self._find(image_id)[1].number

    def annotation_place(self, image_id: str) -> str:
        file, image = self._find(image_id)
        return f'{file.path}, image {image.number} ({image_id})'

    def instances(self, image_id: str) -> list[Instance]:
        file, image = self._find(image_id)
        if file.annotations is None:
            raise InputError(
                f"{file.path} has no 'annotations', which {image_id!r} needs: add its "
                "boxes there ('annotations': [] if no image of the file has any)."
            )
        entries = file.annotations.get(image.number, ())
        return [self._instance(file, image_id, entry) for entry in entries]

    def _instance(self, file: CocoFile, image_id: str, entry: Mapping) -> Instance:
        box, category = entry.get('bbox'), entry.get('category_id')
        is_box = isinstance(box, list) and len(box) == 4
        wrong = None
        if not is_box or not all(type(side) in (int, float) for side in box):
            wrong = f"'bbox' {box!r}: expected [x, y, width, height] in pixels"
        elif type(category) is not int or category not in file.categories:
            wrong = f"'category_id' {category!r}: expected one of the ids in "
            wrong += f"'categories', {list(file.categories)}"
        if wrong:
            place = self.annotation_place(image_id)
            raise InputError(f'An annotation of {place} has {wrong}. Correct it.')
        x, y, width, height = box
        return Instance(
            name=file.categories[category],
            bbox=(x, y, x + width, y + height),
            ignore=bool(entry.get('iscrowd') or entry.get('ignore')),
            written=tuple(box),
        )

    def annotation_problems(self, image_ids, what: str) -> Iterator[str]:
        image_ids = list(image_ids)
        yield from super().annotation_problems(image_ids, what)
        for image_id in image_ids:
            try:
                size = image_size(self.image_path(image_id))
            except InputError:
                continue  # the checks of images name it
            if size != (listed := self.image_size(image_id)):
                yield (
                    f'{self.annotation_place(image_id)} ({what} image) is {listed} '
                    f'pixels there and {size} as it is loaded (turned by EXIF?). '
                    'Correct width, height and boxes, or the image.'
                )

    def ann_file_problems(self, part: str, ann_file: str) -> Iterator[str]:
        (first, *others) = self._files('test')
        if others or osp.realpath(ann_file) != osp.realpath(first.path):
            yield (
                f'{part}_evaluator.ann_file={ann_file!r} is not '
                f'{[file.path for file in (first, *others)]}, of the test images: name '
                f'the one test file, or set it to None and {add_instances(part)}.'
            )
        order = [name for name in first.categories.values() if name in self.classes]
        if order != list(self.classes):
            yield (
                f'{part}_evaluator.ann_file: CocoMetric goes by the order of '
                f"'categories' in {first.path}, {order}: set data_source.classes, "
                f'{list(self.classes)}, to it.'
            )


# Every data set of every stage reads the same files.
@functools.lru_cache(maxsize=16)
def _read(path: str, image_dir: str, changed: int) -> CocoFile:
    def bad(expected: str, found) -> InputError:
        return InputError(
            f'{path} is no COCO annotation file: expected {expected}, found '
            f'{str(found)[:150]}. Correct it, or export it again.'
        )

    def entries(key: str, **types) -> Iterator[tuple]:
        listed = content.get(key)
        if not isinstance(listed, list):
            raise bad(f'a list {key!r}', f'{type(listed).__name__} there')
        seen = set()
        for entry in listed:
            fields = entry if isinstance(entry, dict) else {}
            values = [(name, fields.get(name)) for name in types]
            for name, value in values:
                if type(value) is not types[name]:
                    raise bad(f'{key} with {name!r}, {types[name].__name__}', entry)
                if key != 'annotations' and (name, value) in seen:
                    raise bad(f'each of the {key} once', f'{value!r} twice')
            seen.update(values)
            yield *(value for _, value in values), entry

    try:
        content = json.loads(Path(path).read_bytes())
    # RecursionError: brackets without end.
    except (OSError, RecursionError, ValueError) as error:
        raise bad('JSON', error) from None
    if not isinstance(content, dict):
        raise bad('an object', type(content).__name__)
    triples = entries('categories', id=int, name=str) if 'categories' in content else ()
    categories = {number: name for number, name, _ in triples}
    images = {}
    for number, file_name, entry in entries('images', id=int, file_name=str):
        image_id = osp.normpath(osp.join(image_dir, file_name))
        leads_out = osp.isabs(image_id) or image_id.split(os.sep)[0] == '..'
        if leads_out or image_id in images:
            raise bad('each file_name once, a path below data_root', file_name)
        size = entry.get('width'), entry.get('height')
        is_size = all(type(side) is int and side > 0 for side in size)
        image = CocoImage(number, size if is_size else None)
        images[check_image_id(image_id, path)] = image
    annotations = None
    if content.get('annotations') is not None:
        annotations = {image.number: [] for image in images.values()}
        for number, entry in entries('annotations', image_id=int):
            if number not in annotations:
                raise bad("annotations whose 'image_id' is one of the images", entry)
            # Polygons would take many times the memory.
            kept = ('bbox', 'category_id', 'iscrowd', 'ignore')
            annotations[number].append({k: entry[k] for k in kept if k in entry})
    return CocoFile(path, categories, images, annotations)
