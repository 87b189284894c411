"""The interface between the stage loop and data sets on disk."""

import collections
import copy
import inspect
import os
import os.path as osp
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from PIL.Image import Image

from tjls_mm.datasets.image_checks import unusable_images
from tjls_mm.errors import InputError
from tjls_mm.image_ids import image_path


class ImageSource(ABC):
    """What a data set is on disk: its image_ids, images, labels and annotation files.

    A source is built again from its settings wherever a data set needs it: every
    argument of its constructor is kept as an attribute of that name.

    Attributes:
        data_root: Folder of the data set.
        classes: Class names in order.
        channels: Of an image as models see it.
        image_set: Type of its data sets, and their argument that says whether
            annotations are opened.
    """

    data_root: str
    classes: tuple[str, ...]
    channels = 3
    image_set: tuple[str, str]

    def settings(self) -> dict:
        """Config that builds this source again, classes included."""
        names = inspect.signature(type(self)).parameters
        arguments = {name: getattr(self, name) for name in names}
        return {'type': f'tjls_mm.{type(self).__name__}', **arguments}

    @abstractmethod
    def list_images(self, split: str) -> list[str]:
        """Sorted image_ids of 'pool' (labelled and pool together) or of 'test'.

        Labels that lie beside them are not passed on.

        Raises:
            InputError: If files are missing or an id occurs twice.
        """

    @abstractmethod
    def open_image(self, image_id: str) -> Image:
        """An image to look at."""

    def image_path(self, image_id: str) -> str:
        """Path of an image."""
        return image_path(self.data_root, '{image_id}', image_id)

    def image_files(self, image_ids: Iterable[str]) -> dict[str, str]:
        """image_id to path; empty where images have no files of their own."""
        return {image_id: self.image_path(image_id) for image_id in image_ids}

    def image_problems(self, split: str, image_ids: Iterable[str]) -> Iterator[str]:
        """Decode images once, with a progress bar; a message names unusable ones."""
        where = f'the {split} set ({self.data_root})'
        yield from unusable_images(self.image_files(image_ids), where)

    @abstractmethod
    def annotation_problems(self, image_ids: Iterable[str], what: str) -> Iterator[str]:
        """Open the annotations of images that are trained on or evaluated.

        Yields:
            A message on each annotation that is missing or wrong; ``what`` says in it
            whether images are 'labelled', 'test' or 'selected'.
        """

    @abstractmethod
    def count_labels(self, image_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """What was labelled, per class.

        Returns:
            ``images``: class to images that show it. A task with several objects
            per image adds a count of its own, such as ``boxes``.
        """

    def write_annotation_lists(  # noqa: B027  most have none
        self, folder: Path, image_ids: Mapping[str, Sequence[str]]
    ) -> None:
        """Write 'labelled' and 'pool' as data sets of mmdet or mmpretrain list them."""

    def labelled_dataset(self, list_file: str) -> dict:
        """Config of the data set that opens the annotations of a list's images."""
        return self._dataset(list_file, True)

    def pool_dataset(self, list_file: str) -> dict:
        """Config of the data set that lists images and opens no annotation."""
        return self._dataset(list_file, False)

    def _dataset(self, list_file: str, is_labelled: bool) -> dict:
        kind, flag = self.image_set
        source = self.settings()
        return dict(type=kind, ann_file=list_file, source=source, **{flag: is_labelled})

    def pool_pipeline(self, pipeline: Sequence[dict] | None) -> list[dict]:
        """A training pipeline for images without annotations, as a copy."""
        return copy.deepcopy(list(pipeline or []))

    def score_pipeline(self, pipeline: Sequence[dict] | None) -> list[dict]:
        """A test pipeline for images without annotations, as a copy."""
        return copy.deepcopy(list(pipeline or []))

    def config_problems(self, cfg: Config, uses_pool: bool) -> Iterator[str]:
        """Messages on parts of a stage's derived config that do not fit the images.

        With ``uses_pool`` training reads pool images.
        """
        yield from ()

    def _check_root(self, advice: str = 'Unpack the data there.') -> None:
        if not osp.isdir(self.data_root):
            raise InputError(
                f'The data root {self.data_root} does not exist. {advice} Another '
                'place: --cfg-options data_source.data_root=PATH'
            )

    def _sorted_ids(self, image_ids: list[str], setting: str) -> list[str]:
        """Sorted image_ids of what a setting names; an id in two of these raises."""
        twice = [i for i, count in collections.Counter(image_ids).items() if count > 1]
        if twice:
            raise InputError(
                f'{twice[0]!r} is in more than one of data_source.{setting} '
                f'{getattr(self, setting)} ({len(twice)} such ids): they overlap. Name '
                'each image in one only.'
            )
        return sorted(image_ids)


def check_names(setting: str, value) -> list[str]:
    """The names that a setting of ``data_source`` lists.

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


def check_image_id(image_id: str, where: str) -> str:
    """The image_id, found in a place, that a list file can hold.

    Raises:
        InputError: If it has characters that cannot be printed, or blanks around it.
    """
    if not image_id.isprintable() or image_id != image_id.strip():
        raise InputError(
            f'{image_id!r} in {where}: expected a file name of printable characters '
            'in UTF-8 without blanks around it. Rename it.'
        )
    return image_id


def time_of_change(path: str, missing: str) -> int:
    """When a file changed last: until then it need not be read again.

    Raises:
        InputError: With the message ``missing``, if there is no such file.
    """
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        raise InputError(missing) from None
