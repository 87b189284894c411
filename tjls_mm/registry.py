"""Registries of tjls_mm, children of MMEngine's.

Configs write types with their scope, ``type='tjls_mm.DiscriminatorHead'``: it makes
MMEngine import this module, and ``locations`` those that register: no custom_imports.
"""

from mmengine.registry import Registry, root

from tjls_mm.errors import InputError


def _own(name: str, room: str, parent: Registry | None = None) -> Registry:
    return Registry(name, parent=parent, scope='tjls_mm', locations=[f'tjls_mm.{room}'])


def _child(parent: Registry, room: str) -> Registry:
    return _own(parent.name, room, parent)


MODELS = _child(root.MODELS, 'models')
DATASETS = _child(root.DATASETS, 'datasets')
TRANSFORMS = _child(root.TRANSFORMS, 'datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'datasets')
HOOKS = _child(root.HOOKS, 'engine')
LOOPS = _child(root.LOOPS, 'engine')

# What a family of learners can say about an image.
POOL_READERS = _own('pool reader', 'outputs.readers')
# Pool outputs in, ranked image_ids out.
QUERIES = _own('query strategy', 'query')
# What a data set is on disk: its image_ids, files and annotation lists.
IMAGE_SOURCES = _own('image source', 'datasets')
# Where the labels of selected images come from.
ANNOTATORS = _own('annotator', 'annotation')
# Files of annotation tools.
ANNOTATION_FORMATS = _own('annotation format', 'annotation')


def build_own(registry: Registry, cfg: dict):
    """Build a ``type``, with or without scope, of QUERIES or another of our own.

    ``Registry.build`` would look in the default scope first and warn. An unknown type
    and a wrong or missing argument are InputErrors.
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
            f'{registry.name} {name!r}: {error}. Correct its settings; a child config '
            'keeps the arguments of its base unless it says _delete_=True.'
        ) from None


def type_name(cfg: dict) -> str:
    """Class name of a config's type, which may be a class or have a scope."""
    kind = cfg.get('type')
    return str(getattr(kind, '__name__', kind)).split('.')[-1]
