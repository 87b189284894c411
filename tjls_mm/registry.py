"""Registries of tjls_mm, children of MMEngine's.

Types are written with their scope in configs, ``type='tjls_mm.DiscriminatorHead'``: the
scope makes MMEngine import this module, and ``locations`` make it import the
modules that register them. No ``custom_imports`` is needed for that.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from tjls_mm.errors import InputError

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, scope='tjls_mm', locations=['tjls_mm.models']
)
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='tjls_mm',
    locations=['tjls_mm.datasets'],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='tjls_mm',
    locations=['tjls_mm.datasets'],
)
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=MMENGINE_DATA_SAMPLERS,
    scope='tjls_mm',
    locations=['tjls_mm.datasets'],
)
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope='tjls_mm', locations=['tjls_mm.engine']
)
LOOPS = Registry(
    'loop', parent=MMENGINE_LOOPS, scope='tjls_mm', locations=['tjls_mm.engine']
)

POOL_READERS = Registry(
    'pool reader', scope='tjls_mm', locations=['tjls_mm.outputs.readers']
)
"""What a family of learners can say about an image."""

QUERIES = Registry('query strategy', scope='tjls_mm', locations=['tjls_mm.query'])
"""Query strategies: pool outputs in, ranked image_ids out."""

IMAGE_SOURCES = Registry(
    'image source', scope='tjls_mm', locations=['tjls_mm.datasets']
)
"""What a data set is on disk: its image_ids, files and annotation lists."""

ANNOTATORS = Registry('annotator', scope='tjls_mm', locations=['tjls_mm.annotation'])
"""Where the labels of selected images come from."""


def build_own(registry: Registry, cfg: dict):
    """Build from a registry that no other OpenMMLab library has a child of.

    ``Registry.build`` would look for a child of the default scope first and warn.

    Args:
        registry: QUERIES, IMAGE_SOURCES or ANNOTATORS.
        cfg: Config with ``type``, with or without the scope.

    Raises:
        InputError: If the type is not registered, or an argument is missing or
            unknown.
    """
    arguments = dict(cfg)
    name = arguments.pop('type', None)
    cls = name and registry.get(name)
    if cls is None:
        known = ', '.join(sorted(registry.module_dict))
        raise InputError(f'{registry.name} {name!r} is unknown. Known: {known}.')
    try:
        return cls(**arguments)
    except TypeError as error:
        raise InputError(
            f'{registry.name} {name!r}: {error}. Correct its settings; a child '
            'config that changes the type keeps the arguments of its base unless '
            'it says _delete_=True.'
        ) from None
