"""Checks of images and annotations; labels of the pool are never opened."""

import contextlib
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from tjls_mm.active.examination import Examination, Finding, fact, problem, warning
from tjls_mm.datasets.image_source import ImageSource
from tjls_mm.files import file_hash
from tjls_mm.randomness import generator
from tjls_mm.report.nearest import HASHED, hash_pairs, thumbnail

DECODED = 200
"""Images of the pool and of the test set that are decoded, each."""

COMPARED = 1000
"""The same, that are compared by thumbnails."""


def sample_ids(
    image_ids: Sequence[str], count: int, seed: int, purpose: str
) -> list[str]:
    """So many ids at most, drawn for a purpose of the doctor, sorted."""
    if count >= len(image_ids):
        return sorted(image_ids)
    rng = generator(seed, 'doctor', purpose)
    rows = rng.choice(len(image_ids), count, replace=False)
    return sorted(image_ids[row] for row in rows)


def check_images(exam: Examination) -> Iterator[Finding]:
    """Files that are missing or empty, of all; that do not decode, of a sample."""
    source, n_decoded, n_images = exam.source, 0, 0
    for split, image_ids in (('pool', exam.image_ids), ('test', exam.test_ids)):
        files = source.image_files(image_ids)
        gone = [image_id for image_id, path in files.items() if not _has_content(path)]
        count = len(image_ids) if exam.all_images else DECODED
        drawn = sample_ids(image_ids, count, exam.seed, f'decode {split}')
        # A bar for what takes minutes only.
        quiet = contextlib.redirect_stdout(io.StringIO())
        with contextlib.nullcontext() if exam.all_images else quiet:
            looked_at = sorted({*gone, *drawn})
            yield from map(problem, source.image_problems(split, looked_at))
        n_images += len(files)
        n_decoded += len(drawn) if files else 0
    if not n_images:
        yield fact('Images have no files of their own.')
        return
    rest = '' if n_decoded == n_images else '; --all-images decodes all'
    yield fact(f'{n_decoded:,} of {n_images:,} images were decoded{rest}.')


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False


def check_annotations(exam: Examination) -> Iterator[Finding]:
    """Annotations of the test images and of those labelled first."""
    source, initial = exam.source, exam.plan.initial
    parts = {'test': exam.test_ids, 'labelled': initial or []}
    broken = [
        problem(text)
        for what, image_ids in parts.items()
        for text in source.annotation_problems(image_ids, what)
    ]
    yield from broken
    if broken:
        return
    for what, image_ids in parts.items():
        if image_ids:
            yield from _describe_labels(source, what, image_ids)
    if initial is None:
        name = exam.plan.settings.initial['type']
        yield fact(f'{name} chooses what is labelled first, when the trial starts.')


def _describe_labels(
    source: ImageSource, what: str, image_ids: Sequence[str]
) -> Iterator[Finding]:
    counts = source.label_counts(image_ids)
    objects = 'boxes' if source.task == 'detection' else 'labels'
    text = f'{what}: {len(image_ids):,} images, {counts.sum():,} {objects}'
    empty = int((counts.sum(1) == 0).sum())
    if source.task == 'detection':
        text += f', {empty:,} images without boxes'
    yield fact(f'{text}.')
    if empty == len(image_ids):
        yield warning(f'No {what} image has a box: correct data_source or the lists.')
        return
    columns = np.flatnonzero(counts.sum(0) == 0)
    unseen = [source.classes[column] for column in columns]
    if unseen:
        why = {
            'test': 'nothing is measured of them',
            'labelled': 'nothing is learned of them at first',
        }[what]
        shown = ', '.join(unseen[:8]) + (', …' if len(unseen) > 8 else '')
        yield warning(
            f'{len(unseen)} of {len(source.classes)} classes are in no {what} image, '
            f'so {why}: {shown}.'
        )


def check_duplicates(exam: Examination) -> Iterator[Finding]:
    """Images that are there twice, above all in the pool and in the test set."""
    yield from _copies(exam)
    count = HASHED if exam.all_images else COMPARED
    parts = (('pool', exam.image_ids), ('test', exam.test_ids))
    drawn = [sample_ids(ids, count, exam.seed, f'near {name}') for name, ids in parts]
    image_ids, n_pool, small = [*drawn[0], *drawn[1]], len(drawn[0]), []
    for image_id in image_ids:
        try:
            small.append(thumbnail(exam.source.open_image(image_id)))
        except OSError as error:  # not in the sample that was decoded
            yield problem(f'{image_id} cannot be read as an image ({error}).')
    if len(small) < len(image_ids):
        return
    leaks, in_pool = {}, set()
    for row, close in hash_pairs(small):
        if row < n_pool:
            leaks.update((image_ids[i], image_ids[row]) for i in close if i >= n_pool)
            twins = close[close < n_pool]
            in_pool |= {*twins.tolist(), *[row] * len(twins)}
    if leaks:
        yield warning(
            f'{len(leaks):,} of {len(drawn[1]):,} test images look like pool images '
            f'(by a hash of thumbnails): {_pairs(leaks)}. Look at them; what is '
            'measured on copies of training images flatters.'
        )
    yield fact(
        f'{n_pool:,} pool and {len(drawn[1]):,} test images were compared by '
        f'thumbnails; {len(in_pool):,} of the pool look like another one there.'
    )


def _copies(exam: Examination) -> Iterator[Finding]:
    """Equal files: of those of one size only contents need be read."""
    pool, test = map(exam.source.image_files, (exam.image_ids, exam.test_ids))
    by_size, twins = defaultdict(list), defaultdict(list)
    for image_id, path in {**pool, **test}.items():
        by_size[os.path.getsize(path)].append((image_id, path))
    for group in by_size.values():
        for image_id, path in group if len(group) > 1 else []:
            twins[file_hash(path)].append(image_id)
    leaks, again = {}, {}
    for group in twins.values():
        of_pool = [image_id for image_id in group if image_id in pool]
        for image_id in group if of_pool else []:
            if image_id in test:
                leaks[image_id] = of_pool[0]
        again.update((image_id, of_pool[0]) for image_id in of_pool[1:])
    if leaks:
        yield warning(
            f'{len(leaks):,} test images are in the pool too, byte for byte: '
            f'{_pairs(leaks)}. Leave them out of one of both: what is measured on '
            'training images flatters.'
        )
    if again:
        yield warning(
            f'{len(again):,} pool images are copies of others, byte for byte: '
            f'{_pairs(again)}. Leave them out, or they are paid for again.'
        )
    if pool and not leaks and not again:
        yield fact('No image file of the pool is there twice, byte for byte.')


def _pairs(pairs: dict[str, str]) -> str:
    shown = [f'{a} = {b}' for a, b in list(pairs.items())[:3]]
    return ', '.join(shown) + (', …' if len(pairs) > 3 else '')
