"""The interface between the stage loop and data sets on disk."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from PIL.Image import Image


class ImageSource(ABC):
    """What a data set is on disk: its image_ids, images, labels and annotation files.

    Attributes:
        classes: Class names in order.
        channels: Of an image as models see it.
    """

    classes: tuple[str, ...]
    channels = 3

    def check_config(self, cfg: Config) -> None:  # noqa: B027  most need no check
        """Refuse a config of a stage whose parts do not fit the images.

        Raises:
            InputError: If so.
        """

    @abstractmethod
    def list_images(self, split: str) -> list[str]:
        """image_ids of a split; labels that lie beside them are not passed on.

        Args:
            split: 'pool' (labelled and pool together) or 'test'.

        Returns:
            Sorted ids.

        Raises:
            InputError: If files are missing or an id occurs twice.
        """

    @abstractmethod
    def open_image(self, image_id: str) -> Image:
        """An image to look at."""

    @abstractmethod
    def check_images(self, split: str, image_ids: Iterable[str]) -> None:
        """Decode images once.

        Raises:
            InputError: If one cannot be used; names it.
        """

    @abstractmethod
    def check_annotations(self, image_ids: Iterable[str], what: str) -> None:
        """Open the annotations of labelled or test images.

        Args:
            image_ids: Of the images.
            what: Names them in the message, e.g. 'test'.

        Raises:
            InputError: If one is missing or wrong; names it.
        """

    @abstractmethod
    def count_labels(self, image_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """What was labelled, per class.

        Args:
            image_ids: Of labelled images.

        Returns:
            ``images``: class to images that show it. A task with several objects
            per image adds a count of its own, such as ``boxes``.
        """

    @abstractmethod
    def write_annotation_lists(
        self, folder: Path, image_ids: Mapping[str, Sequence[str]]
    ) -> None:
        """Write lists for the data sets of mmdet or mmpretrain, where they have any.

        Args:
            folder: Of the stage.
            image_ids: 'labelled' and 'pool' to their ids.
        """

    @abstractmethod
    def labelled_dataset(self, list_file: str) -> dict:
        """Config of the data set that opens the annotations of a list's images."""

    @abstractmethod
    def pool_dataset(self, list_file: str) -> dict:
        """Config of the data set that lists images and opens no annotation."""
