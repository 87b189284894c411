"""What a ranking is given: images, a list of labelled ones, a query strategy."""

import ast
import inspect
import json
import os
import os.path as osp
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tjls_mm.datasets.image_checks import image_problem
from tjls_mm.errors import InputError
from tjls_mm.files import read_json, write_text
from tjls_mm.image_ids import read_image_ids
from tjls_mm.outputs import Needs
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.progress import progress
from tjls_mm.registry import QUERIES

DEFAULT_QUERIES = {
    'label counts': dict(type='tjls_mm.Auto'),
    'detector': dict(type='tjls_mm.ClaSP'),
    'classifier': dict(type='tjls_mm.Auto'),
    'features': dict(type='tjls_mm.MaxHerding', features=PRETRAINED_FEATURE),
}
"""Strategy by what is known: boxes and counts of labelled objects, boxes alone, class
probabilities, pretrained features alone."""

SHOWN = 100
"""Unreadable images that a message names."""


def parse_settings(text: str, option: str) -> dict:
    """Settings of a part from the command line, nothing of which is run.

    Args:
        text: A name, ``Entropy``; a name with arguments, ``Entropy(over='sum')``; or
            a dict, ``dict(type='Entropy', over='sum')``, also in braces.
        option: For messages.

    Raises:
        InputError: If it is none of that.

    >>> parse_settings("Entropy(over='sum')", '--query')
    {'type': 'Entropy', 'over': 'sum'}
    """
    try:
        settings = _read(ast.parse(text.strip(), mode='eval').body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        settings = None
    if not isinstance(settings, dict) or not isinstance(settings.get('type'), str):
        raise InputError(
            f"{option}: expected a name or its settings, Entropy, \"Entropy(over='sum')"
            f"\" or \"dict(type='Entropy', over='sum')\", found {text!r}."
        )
    return settings


LITERALS = ('None', 'True', 'False')


def _read(node: ast.AST) -> object:
    name = ast.unparse(node)
    if all(part.isidentifier() for part in name.split('.')) and name not in LITERALS:
        return {'type': name}
    if isinstance(node, ast.Call):
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError('arguments need names')
        settings = {} if ast.unparse(node.func) == 'dict' else _read(node.func)
        if not isinstance(settings, dict):
            raise ValueError('a call of what has no name')
        return settings | {k.arg: _read(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict):
        keys = map(ast.literal_eval, node.keys)
        return dict(zip(keys, map(_read, node.values), strict=True))
    if isinstance(node, ast.List):
        return [_read(value) for value in node.elts]
    return ast.literal_eval(node)


def choose_query(text: str | None, has_model: bool, is_classifier: bool, counts: bool):
    """Config of the query strategy: what was asked for, or the default.

    Args:
        text: See ``parse_settings``, or None.
        has_model: Whether there is a learner; else there are pretrained features only,
            which a strategy that takes ``features`` is given.
        is_classifier: Whether it is a classifier.
        counts: Whether it is known what labelled images show.
    """
    if text is None:
        kind = 'classifier' if is_classifier else 'label counts' if counts else None
        return dict(DEFAULT_QUERIES[(kind or 'detector') if has_model else 'features'])
    config = parse_settings(text, '--query')
    cls = QUERIES.get(config['type'])
    if not has_model and cls and 'features' in inspect.signature(cls).parameters:
        config.setdefault('features', PRETRAINED_FEATURE)
    return config


def check_needs(config: Mapping, needs: Needs, has_model: bool, counts: bool) -> None:
    """Refuse a strategy that needs what there is not; see ``choose_query``."""
    name = config['type']
    if 'label_count' in needs.labelled and not counts:
        raise InputError(
            f'--query {name} needs to know what the labelled images show: name them '
            'with --labelled LIST (an empty file if there are none yet) and their '
            'labels with --annotations FILE. Without: '
            f'--query {DEFAULT_QUERIES["detector"]["type"].split(".")[1]} for a '
            f'detector, {DEFAULT_QUERIES["classifier"]["type"].split(".")[1]} for a '
            'classifier.'
        )
    asked = needs.without(PRETRAINED_FEATURE)
    of_learner = [*asked.pool, *asked.gathered]
    if of_learner and not has_model:
        raise InputError(
            f'--query {name} needs {of_learner} of a detector or classifier: name '
            'CONFIG and CHECKPOINT, or leave --query out.'
        )


def image_facts(root: str, image_ids: Sequence[str]) -> dict[str, list[int]]:
    """image_id to [bytes, time of change], zeros where a file cannot be looked at."""
    facts = {}
    for image_id in image_ids:
        try:
            found = os.stat(osp.join(root, image_id))
            facts[image_id] = [found.st_size, found.st_mtime_ns]
        except OSError:
            facts[image_id] = [0, 0]
    return facts


def read_problems(path: Path, facts: Mapping[str, list[int]]) -> dict[str, str | None]:
    """What an earlier check wrote of images that are still the same."""
    known = (read_json(path) if path.exists() else {}).get('images', {})
    kept = ((i, known[i]) for i, f in facts.items() if known.get(i, [])[:2] == f)
    return {image_id: entry[2] for image_id, entry in kept}


def check_images(
    path: Path, root: str, facts: Mapping[str, list[int]], skip: bool
) -> list[str]:
    """Decode images that were not decoded before; the unreadable ones.

    Args:
        path: File in which it is noted which are.
        root: Folder of the images.
        facts: Of ``image_facts``.
        skip: Whether there may be unreadable ones.

    Raises:
        InputError: If there are and may not be; it names them.
    """
    problems = read_problems(path, facts)
    new = [image_id for image_id in facts if image_id not in problems]
    if new:
        paths = [osp.join(root, image_id) for image_id in new]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(image_problem, paths)
            shown = progress(found, 'Checking images', len(new))
            problems.update(zip(new, shown, strict=True))
        entries = {i: [*facts[i], problems[i]] for i in facts}
        write_text(path, json.dumps({'images': entries}) + '\n')
    bad = {i: problems[i] for i in facts if problems[i]}
    if bad and not skip:
        lines = [f'  {image_id} {problem}' for image_id, problem in bad.items()]
        more = [f'  and {len(bad) - SHOWN} more, see {path}'] * (len(bad) > SHOWN)
        raise InputError(
            f'{len(bad)} of {len(facts)} images of {root} cannot be used:\n'
            + '\n'.join([*lines[:SHOWN], *more])
            + '\nPut whole files in their place, or leave them out with '
            '--skip-unreadable.'
        )
    return [*bad]


def read_labelled(path: str, root: str, image_ids: Sequence[str]) -> list[str]:
    """Sorted image_ids of a list of image_ids, or of paths of the same images.

    Raises:
        InputError: If a line is no image of the folder; it names the first.
    """
    known, found, unknown = set(image_ids), set(), []
    for line in read_image_ids(path):
        below = osp.relpath(osp.abspath(line), osp.abspath(root))
        image_id = next((i for i in (osp.normpath(line), below) if i in known), None)
        found.add(image_id)
        unknown += [line] * (image_id is None)
    if unknown:
        raise InputError(
            f'{path}: {len(unknown)} of its lines are no images of {root}, '
            f'{unknown[0]!r} the first: expected paths below that folder such as '
            f'{image_ids[0]!r}.'
        )
    return sorted(found)
