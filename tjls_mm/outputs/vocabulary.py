"""Every output by name: its shape, type, range and meaning.

``N`` images, ``K`` classes without background, ``F`` features, ``M`` boxes of all
images together, ``T`` stochastic passes. Row i belongs to ``image_ids[i]``; row m of
what is per box belongs to box m.

A branch of the learner may add names of its own, (N,) or (N, D), floats.
"""

from dataclasses import dataclass

from tjls_mm.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One name.

    Attributes:
        shape: Letters as above.
        dtype: NumPy's name.
        range: Of the values, with their unit.
        meaning: What is stored.
    """

    shape: tuple[str, ...]
    dtype: str
    range: str
    meaning: str


VOCABULARY = {
    'logit': Entry(
        ('N',),
        'float32',
        'any number',
        "The discriminator's logit of being labelled; its sigmoid loses digits near "
        '0 and 1.',
    ),
    'probability': Entry(
        ('N', 'K'),
        'float32',
        '[0, 1], a row sums to 1',
        'Class probabilities of a classifier: its own softmax.',
    ),
    'feature': Entry(
        ('N', 'F'),
        'float32',
        'any number, not normalised',
        'What the class layer of a classifier sees, after global pooling and '
        'bottleneck; of a detector the mean of each level over its locations, levels '
        'side by side.',
    ),
    'boxes': Entry(
        ('M',),
        'Boxes',
        'see its fields',
        'Detections after suppression, bit-equal to what the detector predicts, '
        'highest score first within an image; an image may have none. A prior gives a '
        'box for each class above the threshold, all with the same class '
        'probabilities.',
    ),
    'box_feature': Entry(
        ('M', 'F'),
        'float16',
        'any number, not normalised',
        'Mean of a feature map over the area of a box. Levels of SSD differ in width '
        'and what their channels mean, so that all boxes take the finest one.',
    ),
    'pass_probability': Entry(
        ('N', 'T', 'K'),
        'float32',
        '[0, 1], a row of K sums to 1',
        'Class probabilities of a classifier in each of T passes with dropout on the '
        'features.',
    ),
    'predictive_entropy': Entry(
        ('N',),
        'float32',
        '[0, ln C] nats, C the classes with a background that there may be',
        'Entropy of the mean class probabilities of T passes; of a detector for each '
        'prior, and their mean.',
    ),
    'mutual_information': Entry(
        ('N',),
        'float32',
        '[0, ln C] nats',
        'predictive_entropy less the mean entropy of a single pass (BALD); of a '
        'detector for each prior, and their mean.',
    ),
}

BOX_FIELDS = {
    'xyxy': Entry(
        ('M', '4'), 'float32', 'pixels', 'Corners in the original image, from 0.'
    ),
    'score': Entry(('M',), 'float32', '[0, 1]', 'Confidence in the label.'),
    'label': Entry(('M',), 'int32', '0 to K - 1', 'Class.'),
    'probability': Entry(
        ('M', 'K'),
        'float32',
        '[0, 1], a row sums to at most 1',
        'Probabilities of all classes at the prior of the box, without background.',
    ),
}
"""Fields of ``boxes``."""

PASS_NAMES = ('pass_probability', 'predictive_entropy', 'mutual_information')
"""Names that stochastic passes make."""


@dataclass(frozen=True)
class Needs:
    """What a query strategy asks for.

    Attributes:
        pool: Names of outputs of every pool image; empty if none.
        labelled: Names of outputs of every labelled image.
        passes: Stochastic passes, where a name of ``PASS_NAMES`` is asked for.

    Raises:
        InputError: If a name cannot be one, or names and passes do not fit.
    """

    pool: tuple[str, ...] = ()
    labelled: tuple[str, ...] = ()
    passes: int = 0

    def __post_init__(self) -> None:
        for part in ('pool', 'labelled'):
            names = getattr(self, part)
            if isinstance(names, str):
                raise InputError(f'needs.{part} is a string, expected ({names!r},).')
            object.__setattr__(self, part, tuple(names))
        names = (*self.pool, *self.labelled)
        for name in names:
            if not str(name).isidentifier():
                raise InputError(f'{name!r} is no name of an output: expected a word.')
        stochastic = sorted(set(names) & set(PASS_NAMES))
        if bool(stochastic) != (self.passes > 0):
            raise InputError(
                f'{stochastic or list(names)} with passes={self.passes}: expected at '
                f'least 1 stochastic pass for {", ".join(PASS_NAMES)}, and 0 for '
                'other outputs.'
            )
