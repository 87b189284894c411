"""Labelled and pool images behind one index."""

from collections.abc import Mapping

from tjls_mm.randomness import seeded_pipeline
from tjls_mm.registry import DATASETS


@DATASETS.register_module()
class JointDataset:
    """Labelled images first, pool images after them.

    Every sample carries its facts in its data sample's metainfo: ``image_id`` and
    ``is_labelled``. What random transforms draw depends on the seed in the index
    only, so a sample is the same whichever worker makes it.

    Args:
        labelled: Config of the labelled data set, of any OpenMMLab library.
        pool: Config of the pool data set, or None.

    Example:
        A batch of ``dict(type='tjls_mm.JointBatchSampler')`` asks for
        ``dataset[(7, 1234)]``: image 7, transforms seeded with 1234.
    """

    def __init__(self, labelled: dict, pool: dict | None = None) -> None:
        self.labelled = DATASETS.build(labelled)
        self.pool = None if pool is None else DATASETS.build(pool)
        self.full_init()

    def full_init(self) -> None:
        """Load the lists of both parts."""
        self.labelled.full_init()
        if self.pool is not None:
            self.pool.full_init()

    @property
    def metainfo(self) -> dict:
        """Of the labelled part."""
        return self.labelled.metainfo

    @property
    def n_labelled(self) -> int:
        """Number of labelled images."""
        return len(self.labelled)

    @property
    def n_pool(self) -> int:
        """Number of pool images."""
        return 0 if self.pool is None else len(self.pool)

    def __len__(self) -> int:
        return self.n_labelled + self.n_pool

    def get_data_info(self, index: int) -> dict:
        """Entry of an image in its part's list, with ``is_labelled``."""
        part, position = self._part(index)
        return {**part.get_data_info(position), 'is_labelled': part is self.labelled}

    def __getitem__(self, index: int | tuple[int, int]) -> Mapping:
        """One transformed sample.

        Args:
            index: Position, or (position, seed of the transforms).

        Returns:
            What the part's pipeline returns, ``image_id`` and ``is_labelled``
            added to the metainfo of its ``data_samples``. Of a part that keeps
            decoded images: these, and the seed under ``seeds``.

        Raises:
            RuntimeError: If the pipeline dropped the image.
        """
        if isinstance(index, int):
            return self._load(index)
        index, seed = index
        if getattr(self._part(index)[0], 'decode_once', False):
            return self._packed(index, seed)
        with seeded_pipeline(seed):
            return self._load(index)

    def _part(self, index: int) -> tuple:
        """The part that an image is in, and its position there."""
        if index < self.n_labelled:
            return self.labelled, index
        return self.pool, index - self.n_labelled

    def _packed(self, index: int, seed: int) -> Mapping:
        part, position = self._part(index)
        # The preprocessor augments by it: nothing is drawn here.
        return {**part.packed(position), 'seeds': seed}

    def _load(self, index: int) -> Mapping:
        info = self.get_data_info(index)
        image_id = info.get('image_id', info.get('img_id', info.get('img_path')))
        is_labelled = info['is_labelled']
        sample = self._part(index)[0].pipeline(info)
        if sample is None:
            raise RuntimeError(
                f'The training pipeline dropped image {image_id}. Labelled images '
                'are paid for and pool images are chosen by seed, so none is '
                'replaced: let the transforms keep every image (in detection, those '
                'without boxes too: FilterAnnotations(keep_empty=False)).'
            )
        facts = {'image_id': str(image_id), 'is_labelled': is_labelled}
        sample['data_samples'].set_metainfo(facts)
        return sample
