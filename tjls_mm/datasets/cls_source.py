"""What the image sources of classification have in common."""

import collections
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from tjls_mm.active.stage_config import has_discriminator
from tjls_mm.datasets.image_source import ImageSource
from tjls_mm.errors import InputError


class ClsImageSource(ImageSource):
    """Images with one class each.

    A source is built again from its settings wherever a data set needs it.

    Args:
        channels: 3, or 1 for grey images. With 3, grey images get three equal
            channels; with 1, coloured ones become grey.

    Raises:
        InputError: If ``channels`` is neither.
    """

    def __init__(self, channels: int) -> None:
        if channels not in (1, 3):
            raise InputError(f'data_source.channels must be 1 or 3, got {channels!r}.')
        self.channels = channels

    @abstractmethod
    def settings(self) -> dict:
        """Config that builds this source again, classes included."""

    @abstractmethod
    def label(self, image_id: str) -> int:
        """Class of an image, in [0, K)."""

    @abstractmethod
    def load_image(self, image_id: str) -> np.ndarray:
        """Pixels of an image.

        Returns:
            (H, W, channels), uint8, RGB where there are three.
        """

    @abstractmethod
    def entry(self, image_id: str) -> dict:
        """``img_path`` of an image file, or ``img`` where images lie in one file."""

    def check_config(self, cfg: Config) -> None:
        """Refuse a config whose parts do not fit these images, or each other.

        Raises:
            InputError: If the preprocessor cannot take unlabelled images or this many
                channels, or data sets would decode images in different ways.
        """
        own = cfg.model.get('data_preprocessor')
        preprocessor = own or cfg.get('data_preprocessor') or {}
        kind = str(preprocessor.get('type', 'ClsDataPreprocessor')).split('.')[-1]
        if kind == 'ClsDataPreprocessor' and has_discriminator(cfg):
            raise InputError(
                'mmpretrain takes a batch for labelled if its first image is: set '
                "data_preprocessor.type='tjls_mm.JointClsDataPreprocessor'."
            )
        mean = preprocessor.get('mean')
        if mean is not None and len(mean) not in (1, self.channels):
            raise InputError(
                f'data_preprocessor.mean has {len(mean)} values for images of '
                f'{self.channels} channels: give mean and std as many, or change '
                'data_source.channels.'
            )
        parts = cfg.train_dataloader.dataset
        datasets = {
            'train_dataloader.dataset.labelled': parts.labelled,
            'train_dataloader.dataset.pool': parts.pool,
            'val_dataloader.dataset': cfg.val_dataloader.dataset,
            'score_dataloader.dataset': cfg.score_dataloader.dataset,
        }
        first, *others = (
            (
                name,
                {
                    'decode_once': bool(part.get('decode_once')),
                    'scale': tuple(part.get('scale') or ()) or None,
                },
            )
            for name, part in datasets.items()
            if part is not None
        )
        for name, settings in others:
            if settings != first[1]:
                raise InputError(
                    f'{name} has {settings}, {first[0]} has {first[1]}: images must '
                    'be decoded alike, or the discriminator tells them by it and '
                    'figures are those of other images.'
                )

    def open_image(self, image_id: str) -> Image.Image:
        """An image to look at."""
        return Image.fromarray(self.load_image(image_id).squeeze())

    def check_annotations(self, image_ids: Iterable[str], what: str) -> None:
        """See ``ImageSource``; ``label`` raises."""
        for image_id in image_ids:
            self.label(image_id)

    def count_labels(self, image_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """Images per class."""
        counts = collections.Counter(map(self.label, image_ids))
        return {'images': {name: counts[i] for i, name in enumerate(self.classes)}}

    def write_annotation_lists(
        self, folder: Path, image_ids: Mapping[str, Sequence[str]]
    ) -> None:
        """Nothing, unless mmpretrain has a data set that reads lists of the kind."""

    def labelled_dataset(self, list_file: str) -> dict:
        """Config of the data set that gives the images of a list their labels."""
        return self._dataset(list_file, with_label=True)

    def pool_dataset(self, list_file: str) -> dict:
        """Config of the data set that never asks for a label."""
        return self._dataset(list_file, with_label=False)

    def _dataset(self, list_file: str, with_label: bool) -> dict:
        return {
            'type': 'tjls_mm.ClsImageSet',
            'ann_file': list_file,
            'source': self.settings(),
            'with_label': with_label,
        }


def check_names(setting: str, value) -> list[str]:
    """A list of different names as given in a config.

    Args:
        setting: Of ``data_source``.
        value: What it was set to.

    Raises:
        InputError: If it is a string, empty, or names something twice.
    """
    if isinstance(value, str):
        raise InputError(f'data_source.{setting} must be a list, e.g. [{value!r}].')
    names = list(value)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f'data_source.{setting} must name at least one and each once, got {names}.'
        )
    return names


def spread_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """(H, W) or (H, W, 1) to (H, W, channels) with equal channels."""
    image = image[..., None] if image.ndim == 2 else image
    return image if image.shape[2] == channels else np.repeat(image, channels, axis=2)
