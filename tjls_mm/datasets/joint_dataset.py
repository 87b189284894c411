"""Labelled and pool images behind one index."""

import contextlib
from collections.abc import Mapping

from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.randomness import seeded_pipeline
from tjls_mm.registry import DATASETS


@DATASETS.register_module()
class JointDataset:
    """Labelled images first, pool images after them.

    A sample's metainfo carries its ``image_id``, ``is_labelled`` and ``is_held_out``.
    ``dataset[(7, 1234)]`` is image 7, its random transforms seeded with 1234: the same
    whichever worker makes it.

    Args:
        labelled: Config of the labelled data set, of any OpenMMLab library.
        pool: Config of the pool data set, or None.
        held_out: List file of labelled images that train the task and nothing else.
    """

    def __init__(
        self, labelled: dict, pool: dict | None = None, held_out: str | None = None
    ) -> None:
        self.labelled = DATASETS.build(labelled)
        self.pool = None if pool is None else DATASETS.build(pool)
        self.full_init()
        self.metainfo = self.labelled.metainfo
        self.n_labelled = len(self.labelled)
        self.n_pool = 0 if self.pool is None else len(self.pool)
        self.held_out = frozenset(read_image_ids(held_out) if held_out else ())
        if self.held_out:
            infos = map(self.labelled.get_data_info, range(self.n_labelled))
            ids = list(map(_image_id, infos))
            if unknown := sorted(self.held_out - set(ids))[:3]:
                expected = 'expected labelled image_ids'
                raise InputError(f'{held_out}: {expected}, found {unknown}.')
            # Mixed into others they would train what they are held out of.
            rows = [i for i, one in enumerate(ids) if one not in self.held_out]
            self.labelled.partners = rows or None

    def full_init(self) -> None:
        self.labelled.full_init()
        if self.pool is not None:
            self.pool.full_init()

    def __len__(self) -> int:
        return self.n_labelled + self.n_pool

    def get_data_info(self, index: int) -> dict:
        """Entry of an image in its part's list, with its facts."""
        part, position = self._part(index)
        info = part.get_data_info(position)
        return {**info, **self._facts(part, _image_id(info))}

    def __getitem__(self, index: int | tuple[int, int]) -> Mapping:
        """What the pipeline returns for a position, or (position, seed of transforms).

        Of a part that keeps decoded images: these, and the seed under ``seeds``.

        Raises:
            RuntimeError: If the pipeline dropped the image.
        """
        index, seed = index if isinstance(index, tuple) else (index, None)
        part, position = self._part(index)
        if getattr(part, 'decode_once', False):
            sample = part.packed(position)
            image_id = sample['data_samples'].image_id
            if seed is not None:
                # The preprocessor augments by it: nothing is drawn here.
                sample['seeds'] = seed
        else:
            info = self.get_data_info(index)
            image_id = info['image_id']
            with contextlib.nullcontext() if seed is None else seeded_pipeline(seed):
                sample = part.pipeline(info)
        if sample is None:
            raise RuntimeError(
                f'The training pipeline dropped image {image_id}: let it keep all of '
                'them, also without boxes (FilterAnnotations(keep_empty=False)).'
            )
        sample['data_samples'].set_metainfo(self._facts(part, image_id))
        return sample

    def _part(self, index: int) -> tuple:
        """The part that an image is in, and its position there."""
        if index < self.n_labelled:
            return self.labelled, index
        return self.pool, index - self.n_labelled

    def _facts(self, part, image_id: str) -> dict:
        facts = {'image_id': image_id, 'is_labelled': part is self.labelled}
        return {**facts, 'is_held_out': image_id in self.held_out}


def _image_id(info: Mapping) -> str:
    """Of an entry; data sets of the libraries have names of their own for it."""
    return str(info.get('image_id', info.get('img_id', info.get('img_path'))))
