"""Data sets in the format of PASCAL VOC."""

import collections
import functools
import os.path as osp
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import parse
from mmdet.datasets import VOCDataset

from tjls_mm.datasets.detection_source import DetectionSource, Instance
from tjls_mm.datasets.image_source import check_names, time_of_change
from tjls_mm.errors import InputError
from tjls_mm.image_ids import image_path, read_image_ids, write_image_ids
from tjls_mm.registry import IMAGE_SOURCES

HOW_TO_GET_DATA = (
    'PASCAL VOC unpacks to VOC2007 and VOC2012 below it, each with JPEGImages, '
    'Annotations and ImageSets/Main. To try without it, draw the demo data set '
    '(python tools/make_demo_data.py) and run configs/demo_tjls.py.'
)
_BAD_XML = (ParseError, ArithmeticError, AttributeError, OSError, TypeError, ValueError)


@IMAGE_SOURCES.register_module()
class VOCFiles(DetectionSource):
    """Images, image sets and annotations of a data set in VOC format.

    An image_id is the part and the path below its ``JPEGImages``: ``VOC2007/000004``,
    or ``000004`` where ``data_root`` has no parts.

    Args:
        data_root: Folder of the data set.
        pool_sets: Image sets whose images are labelled or pool, ``'VOC2007/trainval'``
            for ``VOC2007/ImageSets/Main/trainval.txt``, or ``'trainval'``.
        test_sets: Image sets to evaluate on.
        classes: Class names in order; the 20 of VOC by default.
        ignore_classes: Names in annotations that are no classes and no mistakes.
        img_suffix: Of the image files.
        bad_boxes: 'error', or 'drop' to leave out boxes of zero size or outside
            their image.
    """

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
        classes = VOCDataset.METAINFO['classes'] if classes is None else classes
        super().__init__(data_root, classes, ignore_classes, bad_boxes)
        self.pool_sets = check_names('pool_sets', pool_sets)
        self.test_sets = check_names('test_sets', test_sets)
        self.img_suffix = img_suffix

    def list_images(self, split: str) -> list[str]:
        self._check_root(HOW_TO_GET_DATA)
        image_ids = []
        for image_set in self.pool_sets if split == 'pool' else self.test_sets:
            part, _, name = image_set.rpartition('/')
            path = osp.join(self.data_root, part, 'ImageSets', 'Main', f'{name}.txt')
            if not osp.isfile(path):
                named = f"data_source names '{image_set}'"
                raise InputError(f'Image set {path} does not exist: {named}.')
            names = read_image_ids(path)
            image_ids += [f'{part}/{name}' if part else name for name in names]
        return self._sorted_ids(image_ids, f'{split}_sets')

    def image_path(self, image_id: str) -> str:
        template = '{parent}/JPEGImages/{name}' + self.img_suffix
        return image_path(self.data_root, template, image_id)

    def annotation_place(self, image_id: str) -> str:
        return image_path(self.data_root, '{parent}/Annotations/{name}.xml', image_id)

    def instances(self, image_id: str) -> tuple[Instance, ...]:
        path = self.annotation_place(image_id)
        missing = f'{path} does not exist: every labelled and test image needs one.'
        return _read_annotation(path, time_of_change(path, missing))

    def box_problem(self, box: Instance, size: tuple[int, int]) -> str | None:
        """As written the first pixel is 1; tools that count from 0 are tolerated."""
        x1, y1, x2, y2 = box.written
        if not (x2 > x1 and y2 > y1):
            return 'has no area'
        if min(x1, y1) < 0 or x2 > size[0] or y2 > size[1]:
            return f'leaves its image of {size[0]} x {size[1]} pixels'
        return None

    def write_annotation_lists(self, folder: Path, image_ids: dict) -> None:
        """Write the image sets of mmdet's own VOCDataset, one per part."""
        for name, ids in image_ids.items():
            parts = collections.defaultdict(list)
            for image_id in ids:
                part, _, stem = image_id.rpartition('/')
                parts[part].append(stem)
            for part, stems in parts.items():
                if part:
                    path = folder / f'{name}_{part.replace("/", "_")}.txt'
                    write_image_ids(path, sorted(stems))


# Every stage reads the annotations of all earlier ones again.
@functools.lru_cache(maxsize=100_000)
def _read_annotation(path: str, changed: int) -> tuple[Instance, ...]:
    try:
        # What others wrote: entities could fill the memory or open other files.
        root = parse(path, forbid_dtd=True).getroot()
        return tuple(map(_read_object, root.findall('object')))
    except _BAD_XML as e:
        expected = '<object> entries with <name> and <bndbox> of four numbers'
        raise InputError(
            f'{path} is not a VOC annotation: expected {expected}, found: {e}.'
        ) from None


def _read_object(entry: Element) -> Instance:
    sides = ('xmin', 'ymin', 'xmax', 'ymax')
    written = tuple(float(entry.find('bndbox').find(side).text) for side in sides)
    return Instance(
        name=entry.find('name').text,
        bbox=tuple(int(value) - 1 for value in written),
        ignore=int(getattr(entry.find('difficult'), 'text', None) or 0) == 1,
        written=written,
    )
