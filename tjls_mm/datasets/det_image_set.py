"""The images of a list, with or without their boxes."""

import os.path as osp
from collections.abc import Sequence

from mmdet.datasets import BaseDetDataset
from mmengine.dataset import Compose

from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, build_own


@DATASETS.register_module()
class DetImageSet(BaseDetDataset):
    """mmdet's data set for image_ids of an image source; no image is left out.

    Transforms that mix in other images, such as mmdet's Mosaic, get them as in its
    MultiImageMixDataset: drawn from ``partners``, and loaded by the transforms in
    front of the first that mixes.

    Args:
        ann_file: List of image_ids, one per line.
        source: Config of the image source, e.g. of ``tjls_mm.VOCFiles``.
        with_annotations: False for a pool: no annotation is opened, none need exist.
        answer_files: Files of labels by people, see ``ImageSource.use_answers``.
        **kwargs: Of BaseDetDataset, without ``filter_cfg``.

    Attributes:
        partners: Positions of the images that others are mixed with; all by default.
    """

    partners: Sequence[int] | None = None

    def __init__(
        self,
        ann_file: str,
        source: dict,
        with_annotations: bool = True,
        answer_files: Sequence[str] = (),
        **kwargs,
    ) -> None:
        if kwargs.get('filter_cfg'):
            raise InputError('Remove filter_cfg: it would silently leave out images.')
        self.source = build_own(IMAGE_SOURCES, source)
        self.source.use_answers(answer_files)
        self.with_annotations = with_annotations
        kwargs.setdefault('metainfo', {'classes': self.source.classes})
        # Serialising saves memory for worker processes and costs a second.
        kwargs.setdefault('serialize_data', False)
        super().__init__(ann_file=osp.abspath(ann_file), **kwargs)
        if any(map(_mixes, self.pipeline.transforms)):
            self.pipeline = MixingPipeline(self, self.pipeline.transforms)

    @property
    def mixes(self) -> bool:
        """Whether an image may hold parts of its ``partners``."""
        return isinstance(self.pipeline, MixingPipeline)

    def load_data_list(self) -> list[dict]:
        label = {name: i for i, name in enumerate(self.source.classes)}
        entries = []
        for image_id in read_image_ids(self.ann_file):
            entry = {
                'img_path': self.source.image_path(image_id),
                'img_id': self.source.img_id(image_id),
                'image_id': image_id,
                'is_labelled': self.with_annotations,
            }
            if self.with_annotations:
                entry['width'], entry['height'] = self.source.image_size(image_id)
                entry['instances'] = instances = []
                for box in self.source.usable_instances(image_id):
                    known = {'bbox': list(box.bbox), 'bbox_label': label[box.name]}
                    instances.append({**known, 'ignore_flag': int(box.ignore)})
            entries.append(entry)
        return entries


class MixingPipeline(Compose):
    """A pipeline with transforms that mix in images of the same data set."""

    def __init__(self, dataset: DetImageSet, transforms: Sequence) -> None:
        super().__init__(transforms)
        self.dataset = dataset
        first = next(i for i, one in enumerate(transforms) if _mixes(one))
        self.load = Compose(transforms[:first])

    def __call__(self, data: dict) -> dict | None:
        for transform in self.transforms:
            if _mixes(transform):
                data['mix_results'] = self._draw(transform)
            data = transform(data)
            if data is None:
                return None
            data.pop('mix_results', None)
        return data

    def _draw(self, transform) -> list[dict]:
        partners = self.dataset.partners
        if partners is None:
            partners = range(len(self.dataset))
        found = transform.get_indexes(partners)
        found = found if isinstance(found, Sequence) else [found]
        rows = [int(partners[i]) for i in found]
        return [self.load(self.dataset.get_data_info(row)) for row in rows]


def _mixes(transform) -> bool:
    return hasattr(transform, 'get_indexes')
