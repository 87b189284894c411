"""The floors of the house: an import points downwards only."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / 'tjls_mm'
FLOORS = [
    {'models', 'datasets', 'annotation', 'query', 'outputs'},
    {'engine', 'report'},
    {'active'},
]
"""Rooms from below; what lies beside the rooms is the ground floor."""

WITHIN = {
    ('query', 'outputs'),  # strategies read outputs
    ('datasets', 'annotation'),  # image sources read answers of people
    ('outputs', 'models'),  # readers know learners
}
"""Arrows between rooms of one floor that are allowed, from and to."""

PURE = ('query', 'annotation')
"""Rooms that know no Runner and no communication between processes."""


def floor(room: str) -> int:
    return next((i for i, rooms in enumerate(FLOORS, 1) if room in rooms), 0)


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ''


def imports(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too, by their dotted names."""
    found = set()
    package = '.'.join(path.relative_to(ROOT).with_suffix('').parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                above = package.split('.')[: len(package.split('.')) - node.level + 1]
                base = '.'.join([*above, base]).rstrip('.')
            found |= {base, *(f'{base}.{alias.name}' for alias in node.names)}
    return found


FILES = sorted(PACKAGE.rglob('*.py'))


def test_the_rooms_are_known():
    rooms = {room_of(path) for path in FILES} - {''}
    assert rooms == set.union(*FLOORS)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_arrow_points_upwards(path):
    here = room_of(path)
    for name in imports(path):
        parts = name.split('.')
        there = parts[1] if parts[0] == 'tjls_mm' and len(parts) > 1 else None
        if there is None or not (PACKAGE / there).is_dir() or there == here:
            continue
        allowed = floor(there) < floor(here) or (here, there) in WITHIN
        assert allowed, f'{path.relative_to(ROOT)} imports {name}'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_strategies_and_annotators_know_no_runner_and_no_processes(path):
    if room_of(path) in PURE:
        far = ('mmengine.runner', 'mmengine.dist', 'torch.distributed')
        assert not [n for n in imports(path) if n.startswith(far)], path


COLLECTIVES = {
    'on_main_process',
    'on_every_process',
    'barrier',
    'broadcast',
    'broadcast_object_list',
    'all_gather',
    'all_gather_object',
    'all_reduce',
    'reduce_mean',
}


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_constructor_communicates(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == '__init__':
            called = {
                getattr(call.func, 'attr', getattr(call.func, 'id', None))
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
            }
            assert not called & COLLECTIVES, f'{path}:{node.lineno}'


def test_names_of_files_are_spelt_in_one_place():
    names = set()
    tree = ast.parse((PACKAGE / 'stage_folder.py').read_text(encoding='utf-8'))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == '_file':
            names.add(node.args[0].value)
    assert 'model.pth' in names and 'al_state.json' in names
    for path in FILES:
        if path.name == 'stage_folder.py':
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Constant) and node.value in names - {'outputs'}:
                raise AssertionError(f'{path}:{node.lineno} spells {node.value!r}')
