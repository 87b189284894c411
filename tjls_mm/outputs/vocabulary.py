"""Every output by name: its shape, type, range and meaning.

``N`` images (row i: ``image_ids[i]``), ``K`` classes without background, ``C`` with the
one that there may be, ``F`` features, ``M`` boxes of all images, ``T`` stochastic
passes. A branch of the learner may add names of its own, (N,) or (N, D), floats.
"""

from dataclasses import dataclass, replace

from tjls_mm.errors import InputError

VOCABULARY = {
    'logit': '(N,) float32, any number: of being labelled, by the discriminator; its '
    'sigmoid loses digits near 0 and 1',
    'probability': "(N, K) float32, [0, 1], a row sums to 1: a classifier's softmax",
    'feature': '(N, F) float32, any number, not normalised: what the class layer of a '
    'classifier sees, after global pooling and bottleneck; of a detector the mean of '
    'each level that its head is given over the image without padding, levels side by '
    'side',
    'boxes': 'Boxes, see BOX_FIELDS: detections after suppression, bit-equal to what '
    'the detector predicts, highest score first within an image, which may have none; '
    'many heads give a box for each class of a prior above the threshold, of equal '
    'probabilities: Boxes.one_per_prior()',
    'flip_boxes': 'Boxes of the mirrored image, in pixels of the image as it is; to '
    'compare with boxes; one more forward pass',
    'box_feature': '(M, F) float16, any number, not normalised: mean of a feature map '
    'over the area of a box of boxes, of the level that suits its size; of the finest '
    'where levels differ in width',
    'pass_probability': '(N, T, K) float32, [0, 1], a row of K sums to 1: class '
    'probabilities of a classifier in T passes with dropout on the features',
    'predictive_entropy': '(N,) float32, [0, ln C] nats: entropy of the mean class '
    'probabilities of T passes; of a detector for each prior, and their mean; [0, K ln '
    '2] where a head has a sigmoid per class, summed over classes',
    'mutual_information': '(N,) float32, range as above, nats: predictive_entropy less '
    'the mean entropy of a single pass (BALD); of a detector as above',
    'pretrained_feature': '(N, F) float32, any number, not normalised: average of the '
    'last map of the backbone of method.features, the same at every stage; no learner '
    'provides it',
    'label_count': '(N, K) int32, from 0, of labelled images only: annotated boxes of '
    'each class; of a classifier 1 for the class of the image; read from the answers '
    'of the annotator, no learner provides it',
}

PRETRAINED_FEATURE = 'pretrained_feature'
"""Name of what ``method.features`` provides."""

LABELLED_NAMES = ('label_count',)
"""Names of what annotations say: of labelled images, never of the pool."""

BOX_NAMES = ('boxes', 'flip_boxes')
"""Names of outputs that are ``Boxes``."""

BOX_FIELDS = {
    'xyxy': '(M, 4) float32, pixels: corners in the original image, from 0',
    'score': '(M,) float32, [0, 1]: confidence in the label; of some heads a '
    'probability times centerness, objectness or overlap',
    'label': '(M,) int32, 0 to K - 1: class',
    'probability': '(M, K) float32, [0, 1], a row of a softmax sums to at most 1, of '
    'sigmoids to at most K: of all classes at the prior of the box, without '
    'background, centerness, objectness or overlap',
    'prior': '(M,) int32, from 0: where in the image a box comes from, as the number '
    'of a location and anchor (levels one after another), of a region proposal or of a '
    'query; equal numbers in boxes and flip_boxes mean nothing',
}

PASS_NAMES = ('pass_probability', 'predictive_entropy', 'mutual_information')
"""Names that stochastic passes make."""


@dataclass(frozen=True)
class Needs:
    """What a query strategy asks for; InputError if it cannot be.

    Attributes:
        pool, labelled: Names of outputs of every such image, identifiers.
        passes: Stochastic passes, at least 1 if a name is of ``PASS_NAMES``, else 0.
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
        for name in set(self.pool) & set(LABELLED_NAMES):
            raise InputError(
                f'needs.pool has {name!r}, which is known of labelled images only: '
                'write it in needs.labelled.'
            )
        names = [*self.pool, *self.labelled]
        for name in names:
            if not str(name).isidentifier():
                raise InputError(f'{name!r} is no name of an output: expected a word.')
        stochastic = sorted(set(names) & set(PASS_NAMES))
        if bool(stochastic) != (self.passes > 0):
            raise InputError(
                f'{stochastic or names} with passes={self.passes}: expected at least 1 '
                f'stochastic pass for {", ".join(PASS_NAMES)}, and 0 for others.'
            )

    def without(self, name: str) -> 'Needs':
        """The same, but for one name."""
        pool, labelled = (
            tuple(n for n in names if n != name) for names in (self.pool, self.labelled)
        )
        return replace(self, pool=pool, labelled=labelled)

    @property
    def gathered(self) -> tuple[str, ...]:
        """Names of labelled images that the learner is asked for."""
        return tuple(name for name in self.labelled if name not in LABELLED_NAMES)
