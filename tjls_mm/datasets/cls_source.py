"""What the image sources of classification have in common."""

import collections
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from mmengine.config import Config
from PIL import Image

from tjls_mm.datasets.image_source import ImageSource
from tjls_mm.errors import InputError
from tjls_mm.registry import type_name


class ClsImageSource(ImageSource):
    """Images with one class each.

    Args:
        channels: 3, grey images with three equal ones; or 1, coloured ones made grey.
        max_pool: Images that are labelled or pool, at most: of more, so many that are
            evenly spaced in the order of their ids. All by default.
        max_test: The same of the images to evaluate on.
    """

    task = 'classification'
    image_set = 'tjls_mm.ClsImageSet', 'with_label'

    def __init__(
        self, channels: int, max_pool: int | None = None, max_test: int | None = None
    ) -> None:
        if channels not in (1, 3):
            raise InputError(f'data_source.channels must be 1 or 3, got {channels!r}.')
        self.channels = channels
        self.max_pool, self.max_test = max_pool, max_test
        for name, most in (('max_pool', max_pool), ('max_test', max_test)):
            if most is not None and (type(most) is not int or most < 1):
                raise InputError(
                    f'data_source.{name} must be a number of images, 1 or more, or '
                    f'None for all of them, got {most!r}.'
                )

    @abstractmethod
    def label(self, image_id: str) -> int:
        """Class of an image, in [0, K)."""

    def known_label(self, image_id: str) -> int:
        """Class that people gave an image, in [0, K), else that of ``label``."""
        answer = self.answers.get(image_id)
        if answer is None:
            return self.label(image_id)
        if answer not in self.classes:
            raise InputError(
                f'The answer to {image_id} is {answer!r}: expected one of '
                f'{list(self.classes)}. Correct data_source.classes.'
            )
        return self.classes.index(answer)

    @abstractmethod
    def load_image(self, image_id: str) -> np.ndarray:
        """Pixels of an image, (H, W, channels), uint8, RGB where there are three."""

    @abstractmethod
    def entry(self, image_id: str) -> dict:
        """``img_path`` of an image file, or ``img`` where images lie in one file."""

    def config_problems(self, cfg: Config, uses_pool: bool) -> Iterator[str]:
        """Preprocessors must fit, and all data sets decode images in one way."""
        own = cfg.model.get('data_preprocessor')
        preprocessor = own or cfg.get('data_preprocessor') or {}
        kind = type_name({'type': 'ClsDataPreprocessor', **preprocessor})
        if kind == 'ClsDataPreprocessor' and uses_pool:
            yield (
                "set data_preprocessor.type='tjls_mm.JointClsDataPreprocessor': "
                "mmpretrain's takes a batch for labelled if its first image is."
            )
        mean = preprocessor.get('mean')
        if mean is not None and len(mean) not in (1, self.channels):
            yield (
                f'data_preprocessor.mean has {len(mean)} values for images of '
                f'{self.channels} channels: change it and std, or data_source.channels.'
            )
        parts = {}
        for name in ('train', 'val', 'test', 'score'):
            dataset = (cfg.get(f'{name}_dataloader') or {}).get('dataset') or {}
            for part in ('.labelled', '.pool') if name == 'train' else ('',):
                if found := dataset.get(part[1:]) if part else dataset:
                    parts[f'{name}_dataloader.dataset{part}'] = {
                        'decode_once': bool(found.get('decode_once')),
                        'scale': tuple(found.get('scale') or ()) or None,
                    }
        (first, expected), *others = parts.items()
        for place, settings in others:
            if settings != expected:
                yield (
                    f'{place} has {settings}, {first} has {expected}: set them alike, '
                    'or the discriminator tells images by their decoding.'
                )

    def _thinned(self, split: str, image_ids: Sequence[str]) -> list[str]:
        """``max_pool`` or ``max_test`` of sorted ids; no label is asked for."""
        most = self.max_pool if split == 'pool' else self.max_test
        if most is None or most >= len(image_ids):
            return list(image_ids)
        return [image_ids[i * len(image_ids) // most] for i in range(most)]

    def open_image(self, image_id: str) -> Image.Image:
        return Image.fromarray(self.load_image(image_id).squeeze())

    def annotation_problems(self, image_ids: Iterable[str], what: str) -> Iterator[str]:
        for image_id in image_ids:
            try:
                self.known_label(image_id)
            except InputError as error:
                yield str(error)

    def count_labels(self, image_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        counts = collections.Counter(map(self.known_label, image_ids))
        return {'images': {name: counts[i] for i, name in enumerate(self.classes)}}

    def label_counts(self, image_ids: Sequence[str]) -> np.ndarray:
        labels = [self.known_label(image_id) for image_id in image_ids]
        return np.eye(len(self.classes), dtype=np.int32)[labels]


def spread_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """(H, W) or (H, W, 1) to (H, W, channels) with equal channels."""
    image = image[..., None] if image.ndim == 2 else image
    return image if image.shape[2] == channels else np.repeat(image, channels, axis=2)
