#!/usr/bin/env python
"""Write list files of a long-tailed pool, for the image source ImageLists.

Of class c of C, in the order of the folders' names, the pool gets the first
n_c = MOST * IMBALANCE^(-c / (C - 1)) images, rounded down, in the order of file names:
the first class has IMBALANCE times the images of the last one. Test images stay as they
are. Nothing is drawn: the same folders give the same files.

    python tools/make_long_tail.py data/cifar10_jpeg --imbalance 100

writes long_tail_100_pool.txt and long_tail_100_test.txt, lines of "path label", into
the data root.

Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tjls_mm import compat  # noqa: F401  before anything of OpenMMLab
from tjls_mm.errors import InputError
from tjls_mm.files import write_text


def long_tail_counts(most: int, n_classes: int, imbalance: float) -> list[int]:
    """Images of each class, most frequent first.

    Args:
        most: Images of the first class.
        n_classes: At least 2.
        imbalance: Images of the first class to those of the last, at least 1.

    Raises:
        InputError: If the last class would be empty or a number is out of its range.

    >>> long_tail_counts(5000, 10, 100)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    if n_classes < 2 or not imbalance >= 1 or most < imbalance:
        raise InputError(
            f'A long tail needs 2 or more classes, an imbalance of 1 or more and as '
            f'many images of the first class: got {n_classes} classes, an imbalance of '
            f'{imbalance:g} and {most} images.'
        )
    powers = (imbalance ** (-c / (n_classes - 1)) for c in range(n_classes))
    # What is whole stays whole, whatever the power was rounded to.
    return [int(most * power + 1e-6) for power in powers]


def cut_classes(
    image_ids: Sequence[str], labels: Sequence[int], counts: Sequence[int]
) -> list[int]:
    """Positions of the first ``counts[c]`` images of every class c, ascending.

    Raises:
        InputError: If a class has fewer images.
    """
    left = list(counts)
    kept = []
    for position, label in enumerate(labels):
        if left[label]:
            left[label] -= 1
            kept.append(position)
    if any(left):
        short = next(c for c, lack in enumerate(left) if lack)
        raise InputError(
            f'Class {short} (of {image_ids[labels.index(short)]!r}) has '
            f'{counts[short] - left[short]} images, expected {counts[short]} or more: '
            'set --most to fewer images of the first class.'
        )
    return kept


def make_long_tail(
    data_root: Path,
    pool_dirs: Sequence[str],
    test_dirs: Sequence[str],
    imbalance: float,
    most: int | None = None,
    name: str | None = None,
) -> dict:
    """Write both list files; the ``data_source`` that reads them is returned."""
    from tjls_mm.datasets import ImageFolders

    source = ImageFolders(str(data_root), pool_dirs, test_dirs)
    name = name or f'long_tail_{imbalance:g}'
    files = {}
    for split in ('pool', 'test'):
        image_ids = source.list_images(split)
        labels = [source.label(image_id) for image_id in image_ids]
        rows = range(len(image_ids))
        if split == 'pool':
            first = most or labels.count(0)
            counts = long_tail_counts(first, len(source.classes), imbalance)
            rows = cut_classes(image_ids, labels, counts)
            for class_name, count in zip(source.classes, counts, strict=True):
                print(f'{class_name:20} {count:6}')
        files[split] = f'{name}_{split}.txt'
        lines = (f'{image_ids[row]} {labels[row]}\n' for row in rows)
        write_text(data_root / files[split], ''.join(lines))
    return dict(
        type='tjls_mm.ImageLists',
        data_root=str(data_root),
        pool_files=[files['pool']],
        test_files=[files['test']],
        classes=list(source.classes),
    )


def main(argv: Sequence[str] | None = None) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add('data_root', type=Path, help='folder that holds <pool dir>/<class>/<image>')
    add('--pool-dirs', nargs='+', default=['train'], metavar='DIR')
    add('--test-dirs', nargs='+', default=['test'], metavar='DIR')
    add('--imbalance', type=float, default=100, help='first class to last (100)')
    add('--most', type=int, help='images of the first class (all of them)')
    add('--name', help='of the files (long_tail_IMBALANCE)')
    args = parser.parse_args(argv)
    try:
        source = make_long_tail(**vars(args))
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    print(f'data_source = {source}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
