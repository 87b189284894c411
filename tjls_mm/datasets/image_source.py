"""The interface between the stage loop and data sets on disk."""

import collections
import copy
import functools
import inspect
import os
import os.path as osp
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
from mmengine.config import Config
from PIL.Image import Image

from tjls_mm.annotation.boxes import Answer
from tjls_mm.annotation.store import read_answers
from tjls_mm.datasets.image_checks import image_problem
from tjls_mm.errors import InputError
from tjls_mm.image_ids import image_path
from tjls_mm.progress import progress


class ImageSource(ABC):
    """What a data set is on disk: its image_ids, images, labels and annotation files.

    Data sets build it again from its settings: every argument of the constructor is
    kept as an attribute of that name.

    Attributes:
        answers: What people said of images, by image_id; it counts in place of the
            data set's own labels.
    """

    answers: Mapping[str, Answer] = MappingProxyType({})

    data_root: str
    classes: tuple[str, ...]  # in order
    task: str  # 'detection' or 'classification'
    channels = 3  # of an image as models see it
    # Type of its data sets, and their argument for opening annotations.
    image_set: tuple[str, str]

    def settings(self) -> dict:
        """Config that builds this source again, classes included."""
        names = inspect.signature(type(self)).parameters
        arguments = {name: getattr(self, name) for name in names}
        return {'type': f'tjls_mm.{type(self).__name__}', **arguments}

    def use_answers(self, files: Iterable[str | Path]) -> None:
        """Take labels from files of ``tjls_mm.annotation.write_answers`` first.

        Raises:
            InputError: If a file is missing or something else.
        """
        self.answers = {}
        for path in map(str, files):
            missing = f'{path} does not exist: it holds labels of images. Restore it.'
            self.answers |= _read_answers(path, time_of_change(path, missing))

    @abstractmethod
    def list_images(self, split: str) -> list[str]:
        """Sorted image_ids of 'pool' (labelled and pool together) or 'test', no labels.

        Raises:
            InputError: If files are missing or an id occurs twice.
        """

    @abstractmethod
    def open_image(self, image_id: str) -> Image:
        """An image to look at."""

    def image_path(self, image_id: str) -> str:
        return image_path(self.data_root, '{image_id}', image_id)

    def image_files(self, image_ids: Iterable[str]) -> dict[str, str]:
        """image_id to path; empty where images have no files of their own."""
        return {image_id: self.image_path(image_id) for image_id in image_ids}

    def image_problems(self, split: str, image_ids: Iterable[str]) -> Iterator[str]:
        """Decode images once, with a progress bar; a message names unusable ones."""
        paths = list(self.image_files(image_ids).values())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(image_problem, paths)
            results = progress(results, 'Checking images', len(paths), bool(paths))
            pairs = zip(paths, results, strict=True)
            bad = [f'  {path} {problem}' for path, problem in pairs if problem]
        if bad:
            shown = '\n'.join(bad[:5])
            shown += f'\n  and {len(bad) - 5} more' if len(bad) > 5 else ''
            yield (
                f'{len(bad)} of {len(paths)} images of the {split} set '
                f'({self.data_root}) cannot be used:\n{shown}\nPut whole files in '
                'their place and run the same command again. Only a trial that has not '
                'begun can do without them: remove them and their entries in lists.'
            )

    @abstractmethod
    def annotation_problems(self, image_ids: Iterable[str], what: str) -> Iterator[str]:
        """Messages on annotations that are missing or wrong.

        ``what`` is said of the images: 'labelled', 'test' or 'selected'.
        """

    @abstractmethod
    def count_labels(self, image_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """``images``: class to labelled images that show it; a task may add counts."""

    @abstractmethod
    def label_counts(self, image_ids: Sequence[str]) -> np.ndarray:
        """Annotated objects of every class, (N, K) int32, of labelled images."""

    def write_annotation_lists(  # noqa: B027  most have none
        self, folder: Path, image_ids: Mapping[str, Sequence[str]]
    ) -> None:
        """Write 'labelled' and 'pool' as data sets of mmdet or mmpretrain list them."""

    def labelled_dataset(self, list_file: str) -> dict:
        """Config of the data set that opens the annotations of a list's images."""
        kind, flag = self.image_set
        source = self.settings()
        return {'type': kind, 'ann_file': list_file, 'source': source, flag: True}

    def pool_dataset(self, list_file: str) -> dict:
        """Config of the data set that lists images and opens no annotation."""
        return {**self.labelled_dataset(list_file), self.image_set[1]: False}

    def pool_pipeline(self, pipeline: Sequence[dict] | None) -> list[dict]:
        """A training pipeline for images without annotations, as a copy."""
        return copy.deepcopy(list(pipeline or []))

    def score_pipeline(self, pipeline: Sequence[dict] | None) -> list[dict]:
        """A test pipeline for images without annotations, as a copy."""
        return copy.deepcopy(list(pipeline or []))

    def config_problems(self, cfg: Config, uses_pool: bool) -> Iterator[str]:
        """Messages on what does not fit the images in a stage's derived config."""
        yield from ()

    def work_dir_problems(self, work_dir: str) -> Iterator[str]:
        """Messages if images that are written there would become images of this."""
        yield from ()

    def _check_root(self, advice: str = 'Unpack the data there.') -> None:
        if not osp.isdir(self.data_root):
            raise InputError(
                f'The data root {self.data_root} does not exist. {advice} Another '
                'place: --cfg-options data_source.data_root=PATH'
            )

    def _sorted_ids(self, image_ids: list[str], setting: str) -> list[str]:
        twice = [i for i, count in collections.Counter(image_ids).items() if count > 1]
        if twice:
            raise InputError(
                f'{twice[0]!r} ({len(twice)} such ids) is in more than one of '
                f'data_source.{setting}, {getattr(self, setting)}: they overlap.'
            )
        return sorted(image_ids)


def check_names(setting: str, value) -> list[str]:
    """The names in a setting; InputError if it is a string, empty or has one twice."""
    if isinstance(value, str):
        raise InputError(f'data_source.{setting} must be a list, e.g. [{value!r}].')
    names = list(value)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f'data_source.{setting} must name at least one and each once, got {names}.'
        )
    return names


def check_image_id(image_id: str, where: str) -> str:
    """The image_id, or InputError on what a line of a list file cannot hold."""
    if not image_id.isprintable() or image_id != image_id.strip():
        raise InputError(
            f'{image_id!r} in {where}: expected printable characters in UTF-8 without '
            'blanks around them. Rename the file.'
        )
    return image_id


def time_of_change(path: str, missing: str) -> int:
    """When a file changed last, for caches of its content; or InputError(missing)."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        raise InputError(missing) from None


# Every data set of every stage reads the answers of all earlier ones.
@functools.lru_cache(maxsize=256)
def _read_answers(path: str, changed: int) -> Mapping[str, Answer]:
    return read_answers(path).answers
