"""The images of a list, with or without their classes."""

import functools
import os.path as osp
from collections.abc import Sequence

import mmcv
import numpy as np
import torch
from mmpretrain.datasets import CustomDataset
from mmpretrain.structures import DataSample

from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.progress import progress
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, build_own


@DATASETS.register_module()
class ClsImageSet(CustomDataset):
    """mmpretrain's CustomDataset for image_ids of an image source.

    Args:
        ann_file: List of image_ids, one per line.
        source: Config of the image source, e.g. of ``tjls_mm.ImageFolders``.
        with_label: False for a pool: no label is asked for.
        answer_files: Files of labels by people, see ``ImageSource.use_answers``.
        decode_once: Keep decoded images in memory and hand them out packed, RGB (or
            grey), (C, H, W), uint8. ``pipeline`` stays empty then; images are
            augmented in batches by ``tjls_mm.JointClsDataPreprocessor``.
        scale: (width, height) in pixels of decoded images; None if all have one size.
        **kwargs: Of CustomDataset.
    """

    def __init__(
        self,
        ann_file: str,
        source: dict,
        with_label: bool = True,
        decode_once: bool = False,
        scale: Sequence[int] | None = None,
        answer_files: Sequence[str] = (),
        **kwargs,
    ) -> None:
        if decode_once and (kwargs.get('pipeline') or kwargs.get('serialize_data')):
            raise InputError(
                'decode_once=True hands out decoded images: remove pipeline (augment '
                'with data_preprocessor.augmentation) and serialize_data, or unset it.'
            )
        self.source = build_own(IMAGE_SOURCES, source)
        self.source.use_answers(answer_files)
        self.decode_once = decode_once
        self.scale = scale and tuple(scale)
        kwargs.setdefault('metainfo', {'classes': self.source.classes})
        # Serialising saves memory for worker processes and costs a second.
        kwargs.setdefault('serialize_data', False)
        path, root = osp.abspath(ann_file), self.source.data_root
        super().__init__(data_root=root, ann_file=path, with_label=with_label, **kwargs)

    def load_data_list(self) -> list[dict]:
        entries = []
        for image_id in read_image_ids(self.ann_file):
            entry = {'img_id': image_id, 'image_id': image_id}
            entry['is_labelled'] = self.with_label
            if self.with_label:
                entry['gt_label'] = self.source.known_label(image_id)
            if not self.decode_once:
                entry.update(self.source.entry(image_id))
            entries.append(entry)
        return entries

    def full_init(self) -> None:
        done = self._fully_initialized
        super().full_init()
        if done or not self.decode_once:
            return
        self._decoded = _decoded_images(repr(self.source.settings()), self.scale)
        ids = [entry['image_id'] for entry in self.data_list]
        new = [i for i in ids if i not in self._decoded]
        for image_id in progress(new, 'Decoding images', len(new), len(new) > 5000):
            self._decoded[image_id] = self._decode(image_id)
        shapes = {self._decoded[image_id].shape for image_id in ids}
        if len(shapes) > 1:
            sizes = sorted(shape[1:] for shape in shapes)
            raise InputError(
                f'Images of {self.ann_file} differ in size ({sizes[0]} to {sizes[-1]} '
                'pixels): with decode_once=True set scale=(width, height) beside it.'
            )

    def _decode(self, image_id: str) -> np.ndarray:
        image = self.source.load_image(image_id)
        if self.scale:
            height, width, channels = image.shape
            shrinks = self.scale[0] < width or self.scale[1] < height
            # Bilinear interpolation skips pixels where it shrinks.
            how = 'area' if shrinks else 'bilinear'
            image = mmcv.imresize(image, self.scale, interpolation=how)
            image = image.reshape(*image.shape[:2], channels)
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def packed(self, index: int) -> dict:
        """``inputs``, (C, H, W), uint8, pixels shared, and ``data_samples``."""
        entry = self.data_list[index]
        facts = {key: entry[key] for key in ('image_id', 'img_id', 'is_labelled')}
        sample = DataSample(metainfo={**facts, 'sample_idx': index})
        if self.with_label:
            sample.set_gt_label(entry['gt_label'])
        image = torch.from_numpy(self._decoded[entry['image_id']])
        return {'inputs': image, 'data_samples': sample}

    def prepare_data(self, idx: int) -> dict:
        return self.packed(idx) if self.decode_once else super().prepare_data(idx)


class _Decoded(dict):
    """image_id to pixels, (C, H, W), uint8."""

    def __deepcopy__(self, memo) -> '_Decoded':
        # MMEngine copies a data set to take a subset of it.
        return self


# Labelled, pool and score data sets of all stages decode an image once.
@functools.lru_cache(maxsize=4)
def _decoded_images(source: str, scale: tuple | None) -> _Decoded:
    return _Decoded()
