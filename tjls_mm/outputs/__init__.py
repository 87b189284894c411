"""Pool outputs: what a learner says about every image, as arrays on disk.

Only ``gather_outputs`` and the readers need torch.
"""

from .outputs import Boxes, ImageBoxes, Outputs, check_finite
from .vocabulary import VOCABULARY, Needs

__all__ = ['VOCABULARY', 'Boxes', 'ImageBoxes', 'Needs', 'Outputs', 'check_finite']
__all__ += ['gather_outputs']


def __getattr__(name: str):
    if name == 'gather_outputs':
        from .gather import gather_outputs

        return gather_outputs
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
