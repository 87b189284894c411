"""What the image sources of classification have in common."""

import collections
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

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


def spread_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """(H, W) or (H, W, 1) to (H, W, channels) with equal channels."""
    image = image[..., None] if image.ndim == 2 else image
    return image if image.shape[2] == channels else np.repeat(image, channels, axis=2)
