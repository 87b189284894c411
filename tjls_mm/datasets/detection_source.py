"""What the image sources of detection have in common."""

import collections
import copy
import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.config import Config
from PIL import Image, ImageOps

from tjls_mm.datasets.image_checks import image_size
from tjls_mm.datasets.image_source import ImageSource, check_names
from tjls_mm.errors import InputError
from tjls_mm.registry import type_name

FLAGS = ('with_bbox', 'with_label', 'with_mask', 'with_seg', '_scope_')


@dataclass(frozen=True)
class Instance:
    """One object of an annotation."""

    name: str  # of its class
    # xyxy in pixels, the first being 0, as mmdet's own data set of the format has it.
    bbox: tuple[float, float, float, float]
    ignore: bool  # neither trained on nor evaluated
    # As the annotation has it, for messages and checks.
    written: tuple[float, float, float, float]


class DetectionSource(ImageSource):
    """Images with boxes; a format says which images, files and instances there are."""

    task = 'detection'
    image_set = 'tjls_mm.DetImageSet', 'with_annotations'

    def __init__(
        self,
        data_root: str,
        classes: Sequence[str],
        ignore_classes: Sequence[str] = (),
        bad_boxes: str = 'error',
    ) -> None:
        if bad_boxes not in ('error', 'drop'):
            allowed = "must be 'error' or 'drop'"
            raise InputError(f'data_source.bad_boxes {allowed}, got {bad_boxes!r}.')
        self.data_root = data_root
        self.classes = tuple(check_names('classes', classes))
        self.ignore_classes = tuple(ignore_classes)
        self.bad_boxes = bad_boxes

    @abstractmethod
    def instances(self, image_id: str) -> Sequence[Instance]:
        """Objects of an image in order, whatever their class.

        The only method that opens an annotation; InputError where it cannot.
        """

    def objects(self, image_id: str) -> Sequence[Instance]:
        """Objects that people said there are, else those of ``instances``."""
        answer = self.answers.get(image_id)
        if answer is None:
            return self.instances(image_id)
        return [Instance(box.name, box.bbox, box.ignore, box.bbox) for box in answer]

    def img_id(self, image_id: str) -> int:
        """The integer that mmdet's evaluators know an image by."""
        digest = hashlib.blake2b(image_id.encode(), digest_size=8).digest()
        # JSON readers hold integers exactly up to 2**53.
        return int.from_bytes(digest, 'big') >> 11

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(width, height) of an image in pixels; opens no annotation."""
        return image_size(self.image_path(image_id))

    def annotation_place(self, image_id: str) -> str:
        """For messages."""
        return f'the annotation of {image_id}'

    def box_problem(self, box: Instance, size: tuple[int, int]) -> str | None:
        """What is wrong with a box in an image of (width, height) pixels, or None."""
        x1, y1, x2, y2 = box.bbox
        # Also true for NaN. mmdet skips boxes below a pixel.
        if not (x2 - x1 >= 1 and y2 - y1 >= 1):
            return 'has no area'
        # By a pixel: tools round.
        if not (min(x1, y1) >= -1 and x2 <= size[0] + 1 and y2 <= size[1] + 1):
            return f'leaves its image of {size[0]} x {size[1]} pixels'
        return None

    def usable_instances(self, image_id: str) -> list[Instance]:
        """Objects of the classes, without bad boxes where these are dropped."""
        found = [box for box in self.objects(image_id) if box.name in self.classes]
        if self.bad_boxes == 'error' or not found:
            return found
        size = self.image_size(image_id)
        return [box for box in found if not self.box_problem(box, size)]

    def open_image(self, image_id: str) -> Image.Image:
        with Image.open(self.image_path(image_id)) as image:
            # A gallery is no place for megapixels.
            image.draft('RGB', (256, 256))
            return ImageOps.exif_transpose(image).convert('RGB')

    def annotation_problems(self, image_ids: Iterable[str], what: str) -> Iterator[str]:
        for image_id in image_ids:
            try:
                boxes = self.objects(image_id)
                size = self.image_size(image_id) if boxes else (0, 0)
            except InputError as error:
                yield str(error)
                continue
            where = f'{self.annotation_place(image_id)} ({what} image)'
            if image_id in self.answers:
                where = f'the answer to {image_id}'
            for box in boxes:
                if box.name in self.ignore_classes:
                    continue
                problem = self.box_problem(box, size)
                if box.name not in self.classes:
                    yield (
                        f'{where}: class {box.name!r} is unknown. Correct it or add '
                        f'it to data_source.classes {self.classes} or ignore_classes.'
                    )
                elif problem and self.bad_boxes == 'error':
                    yield (
                        f'{where}: box {box.written} of {box.name!r} {problem}. Mend '
                        "it, or leave such boxes out: data_source.bad_boxes='drop'."
                    )

    def count_labels(self, image_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """``images`` that show a class, and ``boxes``, ignored ones included."""
        boxes, images = collections.Counter(), collections.Counter()
        for image_id in image_ids:
            names = [box.name for box in self.usable_instances(image_id)]
            boxes.update(names)
            images.update(set(names))
        counts = {'images': images, 'boxes': boxes}
        return {what: {n: c[n] for n in self.classes} for what, c in counts.items()}

    def label_counts(self, image_ids: Sequence[str]) -> np.ndarray:
        """Those that are trained on: of ignored objects none."""
        column = {name: i for i, name in enumerate(self.classes)}
        counts = np.zeros((len(image_ids), len(column)), np.int32)
        for row, image_id in enumerate(image_ids):
            for box in self.usable_instances(image_id):
                counts[row, column[box.name]] += not box.ignore
        return counts

    def pool_pipeline(self, pipeline: Sequence[dict] | None) -> list[dict]:
        return _replace_loading(pipeline or [], with_empty=True)

    def score_pipeline(self, pipeline: Sequence[dict] | None) -> list[dict]:
        return _replace_loading(pipeline or [], with_empty=False)

    def config_problems(self, cfg: Config, uses_pool: bool) -> Iterator[str]:
        for part in ('val', 'test'):
            evaluators = cfg.get(f'{part}_evaluator') or []
            dataset = (cfg.get(f'{part}_dataloader') or {}).get('dataset') or {}
            for one in [evaluators] if isinstance(evaluators, dict) else evaluators:
                if type_name(one) != 'CocoMetric':
                    continue
                keys = [t.get('meta_keys') or () for t in dataset.get('pipeline') or []]
                if one.get('ann_file') is not None:
                    yield from self.ann_file_problems(part, one['ann_file'])
                elif not any('instances' in names for names in keys):
                    what = 'CocoMetric without ann_file takes boxes from the samples'
                    yield f'{part}_evaluator: {what}: {add_instances(part)}.'

    def ann_file_problems(self, part: str, ann_file: str) -> Iterator[str]:
        """Messages on the ``ann_file`` that CocoMetric has for 'val' or 'test'."""
        yield (
            f'{part}_evaluator.ann_file={ann_file!r}: images of {type(self).__name__} '
            f'have other ids. Set it to None and {add_instances(part)}.'
        )


def add_instances(part: str) -> str:
    """Advice that gives evaluators of 'val' or 'test' boxes from the samples."""
    where = f'{part}_dataloader.dataset.pipeline'
    return f"add 'instances' to meta_keys of PackDetInputs in {where}"


def _replace_loading(pipeline: Sequence, with_empty: bool) -> list:
    result = []
    for transform in pipeline:
        if not isinstance(transform, dict):  # one of several pipelines
            inner = _replace_loading(transform, with_empty)
            # TestTimeAug combines lists, and an empty one with none.
            result += [inner] if inner or not transform else []
        elif type_name(transform) != 'LoadAnnotations':
            transform = copy.deepcopy(transform)
            keys = transform.get('meta_keys') or ()
            if 'instances' in keys:
                # Some versions of PackDetInputs insist on every key.
                transform['meta_keys'] = [key for key in keys if key != 'instances']
            if inner := transform.get('transforms'):
                transform['transforms'] = _replace_loading(inner, with_empty)
            result.append(transform)
        elif with_empty:
            scope = 'mmdet.' if str(transform['type']).startswith('mmdet.') else ''
            flags = {key: transform[key] for key in FLAGS if key in transform}
            result.append({'type': f'{scope}LoadEmptyAnnotations', **flags})
    return result
