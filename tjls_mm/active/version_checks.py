"""Checks of packages, compiled operators and the device."""

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec

import torch
from packaging.requirements import Requirement
from rich.filesize import decimal

from tjls_mm.active.examination import Examination, Finding, fact, warning

PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')
SETS = ('onedl', 'openmmlab')
"""Extras of this package: the sets that it is tested on."""


def check_versions(exam: Examination) -> Iterator[Finding]:
    """Packages, compiled operators and the device."""
    installed = {}
    for dist in metadata.distributions():
        installed.setdefault(_plain(dist.metadata['Name']), dist.version)
    ours = {name: [name] for name in PACKAGES}
    ours['mmdet'].append('onedl-mmdetection')
    for name in ('mmengine', 'mmcv', 'mmpretrain'):
        ours[name].append(f'onedl-{name}')
    ours['mmcv'].append('mmcv-lite')
    found = {k: [n for n in names if n in installed] for k, names in ours.items()}
    for name, names in found.items():
        if len(names) > 1:
            yield warning(
                f'{" and ".join(names)} are both installed, and one has written over '
                'the other: make a new environment with one of the two sets.'
            )
        elif not names and name != 'mmpretrain':
            yield warning(f'{name} is not installed as a package.')
    shown = [f'{n} {installed[n]}' for names in found.values() for n in names]
    yield fact(f'Python {platform.python_version()}, {", ".join(shown)}.')
    yield from _tested_sets(installed)
    # A stand-in of tjls_mm.compat comes from no file.
    operators = find_spec('mmcv._ext')
    how = 'has' if operators and operators.origin else 'comes without'
    yield fact(f'mmcv {how} compiled operators.')
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        yield fact(f'GPU: {gpu.name}, {decimal(gpu.total_memory)}.')
    else:
        yield fact(f'No GPU; {torch.get_num_threads()} threads of the CPU.')


def _tested_sets(installed: dict[str, str]) -> Iterator[Finding]:
    try:
        lines = metadata.requires('tjls_mm') or ()
    except metadata.PackageNotFoundError:  # run from its folder
        return
    differing = {}
    for extra in SETS:
        needed = [Requirement(line) for line in lines]
        needed = [r for r in needed if r.marker and r.marker.evaluate({'extra': extra})]
        differing[extra] = [
            f'{r.name} {installed.get(_plain(r.name), "(none)")} for {r.specifier}'
            for r in needed
            # A build says more behind a plus, as in 2.1.2+cu121.
            if installed.get(_plain(r.name), '0').split('+')[0] not in r.specifier
        ]
    extra, lacks = min(differing.items(), key=lambda item: len(item[1]))
    if lacks:
        yield warning(
            f'The set is none of the two that are tested; nearest is {extra!r}, and '
            f'here is {", ".join(lacks)}.'
        )


def _plain(name: str | None) -> str:
    return re.sub('[-_.]+', '-', str(name)).lower()
