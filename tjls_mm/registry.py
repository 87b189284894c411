"""Registries of tjls_mm, children of MMEngine's.

Types are written with their scope in configs, ``type='tjls_mm.DiscriminatorHead'``: the
scope makes MMEngine import this module, and ``locations`` make it import the
modules that register them. No ``custom_imports`` is needed for that.
"""

from mmengine.registry import Registry, root

from tjls_mm.errors import InputError


def _child(parent: Registry, room: str) -> Registry:
    return Registry(
        parent.name, parent=parent, scope='tjls_mm', locations=[f'tjls_mm.{room}']
    )


MODELS = _child(root.MODELS, 'models')
DATASETS = _child(root.DATASETS, 'datasets')
TRANSFORMS = _child(root.TRANSFORMS, 'datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'datasets')
HOOKS = _child(root.HOOKS, 'engine')
LOOPS = _child(root.LOOPS, 'engine')

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
    """Build a ``type``, with or without scope, of QUERIES or another of our own.

    ``Registry.build`` would look for a child of the default scope first and warn.

    Raises:
        InputError: If the type or an argument is unknown, or an argument is missing.
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


def type_name(cfg: dict) -> str:
    """Class name of a config's type, which may be a class or have a scope."""
    kind = cfg.get('type')
    return str(getattr(kind, '__name__', kind)).split('.')[-1]
