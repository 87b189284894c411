"""What models said of images, kept on disk for the next time."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tjls_mm.files import (
    file_hash,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
)
from tjls_mm.image_ids import write_image_ids
from tjls_mm.outputs import Outputs, gather_outputs
from tjls_mm.outputs.outputs import INDEX_FILE, Boxes, ImageBoxes
from tjls_mm.outputs.vocabulary import BOX_NAMES, PASS_NAMES

SHARD = 256
"""Images that a kill costs at most; what was scored before is not scored again."""

Facts = Mapping[str, Sequence[int]]
"""image_id to (bytes, time of change) of its file."""


class ScoreCache:
    """Outputs of one model, in a folder.

    Outputs of images are found again whatever other images they were computed with.
    An image of another size or time of change is another image.

    Args:
        folder: Of the outputs of all models.
        made_of: All that outputs depend on beside the images, for JSON.
    """

    def __init__(self, folder: Path, made_of: Mapping) -> None:
        self.made_of = made_of
        self.folder = folder / _digest(made_of)

    def lacks(
        self, images: Facts, names: Sequence[str], draw: Sequence[int] = ()
    ) -> list[str]:
        """Those of ``names`` that are not there for all images; see ``find``."""
        there = {n for _, found in self._stores(images, names, draw) for n in found}
        return [name for name in names if name not in there]

    def find(
        self, images: Facts, names: Sequence[str], draw: Sequence[int] = ()
    ) -> dict:
        """Outputs by name, those of ``names`` that are there for all images.

        Args:
            images: Sorted.
            names: Of outputs.
            draw: Number of stochastic passes and their seed, where there are any.

        Raises:
            InputError: If a file is damaged.
        """
        found: dict = {}
        for store, wanted in self._stores(images, names, draw):
            whole = Outputs.open(store, store.with_suffix('.json'))
            outputs = take_images(whole, list(images))
            found.update({name: outputs[name] for name in wanted})
            if 'box_feature' in wanted:  # its rows are those of these boxes
                found['boxes'] = outputs['boxes']
        return {name: found[name] for name in names if name in found}

    def _stores(
        self, images: Facts, names: Sequence[str], draw: Sequence[int]
    ) -> Iterator[tuple[Path, list[str]]]:
        """Folders of whole outputs, each with names that the ones before lack."""
        left = [*names]
        for index_file in sorted(self.folder.glob('*/' + INDEX_FILE)):
            store, index = index_file.parent, read_json(index_file)
            listed = store.with_suffix('.json')
            if not listed.exists() or index.get('list_sha256') != file_hash(listed):
                continue
            content, has = read_json(listed), {*index.get('names', ())}
            if content.get('draw') != [*draw]:
                has -= {*PASS_NAMES}
            known = content.get('images', {})
            wanted = [name for name in left if name in has]
            if wanted and all(known.get(i) == [*f] for i, f in images.items()):
                yield store, wanted
                left = [name for name in left if name not in wanted]

    def gather(
        self,
        images: Facts,
        names: Sequence[str],
        model,
        make_dataset: Callable[[str], object],
        draw: Sequence[int] = (),
        **options,
    ) -> None:
        """Compute outputs of images; what a kill left is finished.

        Args:
            images, names, draw: See ``find``.
            model: With its weights.
            make_dataset: From a list file to the data set of its images.
            **options: Of ``gather_outputs``.
        """
        passes, seed = draw or (0, 0)
        content = {'draw': [*draw], 'images': {i: [*f] for i, f in images.items()}}
        store = self.folder / _digest({**content, 'names': [*names]})
        listed, ids = store.with_suffix('.json'), store.with_suffix('.txt')
        remove_leftovers(self.folder)
        write_json(self.folder / 'made_of.json', self.made_of)
        write_text(listed, json.dumps(content) + '\n')
        write_image_ids(ids, images)
        gather_outputs(
            model,
            make_dataset(str(ids.absolute())),
            store,
            names,
            list_file=listed,
            passes=passes,
            seed=seed,
            shards=-(-len(images) // SHARD),
            **options,
        )


@dataclass
class Scorer:
    """A model, its outputs on disk, and how images reach it."""

    cache: ScoreCache
    build: Callable
    make_dataset: Callable[[str], object]
    options: Mapping
    draw: tuple[int, int] | tuple = ()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def model(self):
        """Built where something is missing on disk."""
        return self.build()

    def lacks(self, part: str, images: Facts) -> list[str]:
        """Outputs of 'pool' or 'labelled' images that are not on disk."""
        return self.cache.lacks(images, self.names[part], self.draw) if images else []

    def outputs(self, part: str, images: Facts) -> dict:
        """By name, computed where they are not on disk."""
        if lacking := self.lacks(part, images):
            self.cache.gather(
                images,
                lacking,
                self.model,
                self.make_dataset,
                self.draw if {*lacking} & {*PASS_NAMES} else (),
                description=f'Scoring {part}',
                **self.options,
            )
        return self.cache.find(images, self.names[part], self.draw)


def take_images(outputs: Outputs, image_ids: Sequence[str]) -> Outputs:
    """Outputs of some of their images, of sorted ids; KeyError if one is not there."""
    if outputs.image_ids == [*image_ids]:
        return outputs
    row_of = {image_id: row for row, image_id in enumerate(outputs.image_ids)}
    rows = np.array([row_of[image_id] for image_id in image_ids], np.int64)
    others = {*BOX_NAMES, 'box_feature'}
    arrays = {name: a[rows] for name, a in outputs.items() if name not in others}
    for name in filter(outputs.__contains__, BOX_NAMES):
        boxes = outputs[name]
        kept = np.zeros(len(boxes), bool)
        kept[rows] = True
        of_boxes = np.repeat(kept, boxes.count)
        fields = (getattr(boxes, field) for field in ImageBoxes._fields)
        arrays[name] = Boxes(
            np.append(0, np.cumsum(boxes.count[rows])),
            *(None if field is None else field[of_boxes] for field in fields),
        )
    if 'box_feature' in outputs:
        arrays['box_feature'] = arrays['boxes'].feature
    return Outputs.from_arrays(image_ids, arrays)


def _digest(content) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
