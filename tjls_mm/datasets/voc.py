"""Data sets in the format of PASCAL VOC."""

import collections
import functools
import os
import os.path as osp
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdet.datasets import BaseDetDataset, VOCDataset
from PIL import Image, ImageOps

from tjls_mm.datasets.image_checks import check_images, image_size
from tjls_mm.datasets.image_source import ImageSource
from tjls_mm.errors import InputError
from tjls_mm.image_ids import image_path, read_image_ids, write_image_ids
from tjls_mm.registry import DATASETS, IMAGE_SOURCES

HOW_TO_GET_DATA = (
    'PASCAL VOC unpacks to {root}/VOC2007 and {root}/VOC2012, each with '
    'JPEGImages, Annotations and ImageSets/Main. To try without it, draw the demo '
    'data set (python tools/make_demo_data.py) and run configs/demo_tjls.py. '
    'Another place: --cfg-options data_source.data_root=PATH'
)


@dataclass(frozen=True)
class VOCBox:
    """One object of an annotation.

    Attributes:
        name: Class name.
        xyxy: Pixels as written, the first pixel being 1.
        difficult: Neither trained on nor evaluated.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class VOCAnnotation:
    """Content of an annotation file.

    Attributes:
        size: (width, height) in pixels as written, or None.
        boxes: Objects in order, whatever their class.
    """

    size: tuple[int, int] | None
    boxes: tuple[VOCBox, ...]


def read_voc_annotation(path: str) -> VOCAnnotation:
    """Read an annotation file; an unchanged file is read once per process.

    Args:
        path: XML file of a VOC data set.

    Returns:
        Its size and objects.

    Raises:
        InputError: If the file is missing, no XML, or lacks a field.
    """
    try:
        changed = os.stat(path).st_mtime_ns
    except FileNotFoundError:
        raise InputError(
            f'{path} does not exist: every labelled and every test image needs an '
            'annotation file, one without objects if nothing is in the image.'
        ) from None
    return _read_voc_annotation(path, changed)


# Every stage reads the annotations of all earlier ones again.
@functools.lru_cache(maxsize=100_000)
def _read_voc_annotation(path: str, changed: int) -> VOCAnnotation:
    try:
        root = ET.parse(path).getroot()
        size = root.find('size')
        return VOCAnnotation(
            None
            if size is None
            else (int(size.find('width').text), int(size.find('height').text)),
            tuple(
                VOCBox(
                    obj.find('name').text,
                    tuple(
                        float(obj.find('bndbox').find(side).text)
                        for side in ('xmin', 'ymin', 'xmax', 'ymax')
                    ),
                    int(getattr(obj.find('difficult'), 'text', None) or 0) == 1,
                )
                for obj in root.findall('object')
            ),
        )
    except (ET.ParseError, AttributeError, ValueError, TypeError) as error:
        raise InputError(
            f'{path} is not a VOC annotation: expected <object> entries with '
            f'<name> and <bndbox> of four numbers, found: {error}.'
        ) from None


@IMAGE_SOURCES.register_module()
class VOCFiles(ImageSource):
    """Images, image sets and annotations of a data set in VOC format.

    An image_id is the path of the image below ``JPEGImages`` of its part, with the
    part in front: ``VOC2007/000004``, or ``000004`` where the parts of
    ``data_root`` lie in it directly.

    Args:
        data_root: Folder of the data set.
        pool_sets: Image sets whose images are labelled or pool, as
            ``'VOC2007/trainval'`` for
            ``VOC2007/ImageSets/Main/trainval.txt``, or ``'trainval'``.
        test_sets: Image sets to evaluate on.
        classes: Class names in order. Defaults to the 20 of VOC.
        ignore_classes: Names in annotations that are no classes and no mistakes.
        img_suffix: Of the image files.
        bad_boxes: 'error', or 'drop' to leave out boxes of zero size or outside
            their image.
    """

    image_template = '{parent}/JPEGImages/{name}'
    annotation_template = '{parent}/Annotations/{name}.xml'

    def __init__(
        self,
        data_root: str,
        pool_sets: Sequence[str],
        test_sets: Sequence[str],
        classes: Sequence[str] | None = None,
        ignore_classes: Sequence[str] = (),
        img_suffix: str = '.jpg',
        bad_boxes: str = 'error',
    ) -> None:
        if bad_boxes not in ('error', 'drop'):
            raise InputError(f"bad_boxes must be 'error' or 'drop', got {bad_boxes!r}")
        self.data_root = data_root
        self.sets = {'pool': list(pool_sets), 'test': list(test_sets)}
        self.classes = tuple(classes or VOCDataset.METAINFO['classes'])
        self.ignore_classes = tuple(ignore_classes)
        self.img_suffix = img_suffix
        self.bad_boxes = bad_boxes

    def list_images(self, split: str) -> list[str]:
        """image_ids of a split, from its image sets; no annotation is opened.

        Args:
            split: 'pool' (labelled and pool together) or 'test'.

        Returns:
            Sorted ids.

        Raises:
            InputError: If the data root or an image set is missing, or an id
                occurs twice.
        """
        if not osp.isdir(self.data_root):
            how = HOW_TO_GET_DATA.format(root=self.data_root.rstrip('/'))
            raise InputError(f'The data root {self.data_root} does not exist. {how}')
        image_ids: list[str] = []
        for image_set in self.sets[split]:
            part, _, name = image_set.rpartition('/')
            path = osp.join(self.data_root, part, 'ImageSets', 'Main', f'{name}.txt')
            if not osp.isfile(path):
                raise InputError(
                    f"Image set {path} does not exist: data_source names '{image_set}'."
                )
            names = read_image_ids(path)
            image_ids += [f'{part}/{name}' if part else name for name in names]
        counts = collections.Counter(image_ids)
        twice = [image_id for image_id, count in counts.items() if count > 1]
        if twice:
            raise InputError(
                f'{twice[0]!r} is in more than one of the {split} sets '
                f'{self.sets[split]} ({len(twice)} such ids): name each set once.'
            )
        return sorted(image_ids)

    def image_path(self, image_id: str) -> str:
        """Path of an image."""
        template = self.image_template + self.img_suffix
        return image_path(self.data_root, template, image_id)

    def annotation_path(self, image_id: str) -> str:
        """Path of the annotation of an image."""
        return image_path(self.data_root, self.annotation_template, image_id)

    def check_images(self, split: str, image_ids: Iterable[str]) -> None:
        """Decode images once; raises InputError naming unusable ones."""
        where = ', '.join(self.sets[split])
        check_images({i: self.image_path(i) for i in image_ids}, where)

    def check_annotations(self, image_ids: Iterable[str], what: str) -> None:
        """Read annotations and check their boxes.

        Args:
            image_ids: Of labelled or test images.
            what: Names the images in the message, e.g. 'test'.

        Raises:
            InputError: If a file is no VOC annotation, a class is unknown, or
                (``bad_boxes='error'``) a box has no size or leaves its image.
        """
        for image_id in image_ids:
            path = self.annotation_path(image_id)
            boxes = read_voc_annotation(path).boxes
            size = image_size(self.image_path(image_id)) if boxes else (0, 0)
            for box in boxes:
                if box.name in self.ignore_classes:
                    continue
                if box.name not in self.classes:
                    raise InputError(
                        f'{path} ({what} image): class {box.name!r} is unknown. '
                        f'Expected one of {list(self.classes)}. Correct it, or set '
                        'data_source.classes or ignore_classes.'
                    )
                problem = box_problem(box, size)
                if problem and self.bad_boxes == 'error':
                    raise InputError(
                        f'{path} ({what} image): box {box.xyxy} of {box.name!r} '
                        f'{problem}. Correct it, or leave such boxes out with '
                        "data_source.bad_boxes='drop'."
                    )

    def _boxes(self, image_id: str) -> tuple[VOCBox, ...]:
        boxes = read_voc_annotation(self.annotation_path(image_id)).boxes
        if self.bad_boxes == 'drop' and boxes:
            size = image_size(self.image_path(image_id))
            boxes = tuple(box for box in boxes if not box_problem(box, size))
        return tuple(box for box in boxes if box.name in self.classes)

    def open_image(self, image_id: str) -> Image.Image:
        """An image to look at, upright."""
        with Image.open(self.image_path(image_id)) as image:
            # A gallery is no place for megapixels.
            image.draft('RGB', (256, 256))
            return ImageOps.exif_transpose(image).convert('RGB')

    def count_labels(self, image_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """``images`` that show a class, and ``boxes``, difficult ones included."""
        boxes, images = collections.Counter(), collections.Counter()
        for image_id in image_ids:
            names = [box.name for box in self._boxes(image_id)]
            boxes.update(names)
            images.update(set(names))
        counts = {'images': images, 'boxes': boxes}
        return {what: {n: c[n] for n in self.classes} for what, c in counts.items()}

    def write_annotation_lists(self, folder: Path, image_ids: dict) -> None:
        """Write the image sets of mmdet's own VOCDataset, one per part.

        Args:
            folder: Of the stage.
            image_ids: Name of a list ('labelled', 'pool') to its ids.
        """
        for name, ids in image_ids.items():
            parts = collections.defaultdict(list)
            for image_id in ids:
                part, _, stem = image_id.rpartition('/')
                parts[part].append(stem)
            for part, stems in parts.items():
                if part:
                    path = folder / f'{name}_{part.replace("/", "_")}.txt'
                    write_image_ids(path, sorted(stems))

    def labelled_dataset(self, list_file: str) -> dict:
        """Config of the data set that opens the annotations of a list's images."""
        return {
            'type': 'tjls_mm.VOCImageSet',
            'data_root': self.data_root,
            'ann_file': list_file,
            'metainfo': {'classes': self.classes},
            'img_suffix': self.img_suffix,
            'drop_bad_boxes': self.bad_boxes == 'drop',
        }

    def pool_dataset(self, list_file: str) -> dict:
        """Config of the data set that lists images and opens no annotation."""
        return {
            'type': 'tjls_mm.PoolDataset',
            'data_root': self.data_root,
            'ann_file': list_file,
            'metainfo': {'classes': self.classes},
            'path_template': self.image_template + self.img_suffix,
        }


def box_problem(box: VOCBox, size: tuple[int, int]) -> str | None:
    """What is wrong with a box, or None.

    Args:
        box: In pixels, the first being 1; tools that count from 0 are tolerated.
        size: (width, height) of the image in pixels.
    """
    x1, y1, x2, y2 = box.xyxy
    if not (x2 > x1 and y2 > y1):
        return 'has no area'
    if min(x1, y1) < 0 or x2 > size[0] or y2 > size[1]:
        return f'leaves its image of {size[0]} x {size[1]} pixels'
    return None


@DATASETS.register_module()
class VOCImageSet(BaseDetDataset):
    """VOC images of several parts in one list, named by image_id.

    Entries equal those of mmdet's VOCDataset; no image is left out.

    Args:
        ann_file: List of image_ids such as ``VOC2007/000004``.
        img_suffix: Of the image files.
        drop_bad_boxes: Leave out boxes of zero size or outside their image.
        **kwargs: Of mmdet's BaseDetDataset. ``filter_cfg`` is refused: it would
            shrink a labelled set that was paid for.
    """

    METAINFO = VOCDataset.METAINFO

    def __init__(
        self,
        ann_file: str,
        img_suffix: str = '.jpg',
        drop_bad_boxes: bool = False,
        **kwargs,
    ) -> None:
        if kwargs.get('filter_cfg'):
            raise InputError(
                'filter_cfg would silently leave out images that were labelled: '
                'remove it from the data set config.'
            )
        self.img_suffix = img_suffix
        self.drop_bad_boxes = drop_bad_boxes
        # Serialising saves memory for worker processes and costs a second.
        kwargs.setdefault('serialize_data', False)
        super().__init__(ann_file=osp.abspath(ann_file), **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image of the list, in its order."""
        root = self.data_root or ''
        image_template = VOCFiles.image_template + self.img_suffix
        label = {name: i for i, name in enumerate(self.metainfo['classes'])}
        entries = []
        for image_id in read_image_ids(self.ann_file):
            xml_path = image_path(root, VOCFiles.annotation_template, image_id)
            annotation = read_voc_annotation(xml_path)
            img_path = image_path(root, image_template, image_id)
            size = None if self.drop_bad_boxes else annotation.size
            # What is dropped is decided by the image itself, as in the checks.
            width, height = size or image_size(img_path)
            entries.append(
                {
                    'img_path': img_path,
                    'img_id': image_id,
                    'image_id': image_id,
                    'xml_path': xml_path,
                    'height': height,
                    'width': width,
                    'instances': [
                        {
                            # VOC counts pixels from 1
                            'bbox': [int(value) - 1 for value in box.xyxy],
                            'bbox_label': label[box.name],
                            'ignore_flag': int(box.difficult),
                        }
                        for box in annotation.boxes
                        if box.name in label
                        and not (
                            self.drop_bad_boxes and box_problem(box, (width, height))
                        )
                    ],
                }
            )
        return entries
