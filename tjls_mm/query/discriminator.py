"""Selection by the labelled-versus-pool discriminator."""

import numpy as np
from scipy.special import expit

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.registry import QUERIES

RULES = ('lowest', 'margin', 'uncertain')


@QUERIES.register_module()
class Discriminator(QueryStrategy):
    """Pick by P(labelled), which the discriminator gives each pool image.

    Args:
        rule: 'lowest': least like the labelled set first. 'margin': smallest
            |P - margin| first. 'uncertain': smallest |P - 0.5| first. All but
            'margin' rank by the logit, which has digits where P is near 0 or 1.
            Ties go by a seeded hash of the image_id.
        margin: Probability in (0, 1), of the rule 'margin'.

    Raises:
        InputError: If an argument is none of that.

    Source: TJLS, Eq. 5 ('lowest'); the published code of TJLS, after UncertainGCN
    ('margin' with 0.1).
    """

    needs = Needs(pool=('logit',))

    def __init__(self, rule: str = 'lowest', margin: float = 0.1) -> None:
        if rule not in RULES:
            raise InputError(f'rule must be one of {RULES}, got {rule!r}')
        if not 0 < margin < 1:
            raise InputError(f'margin must be in (0, 1), got {margin}')
        self.rule = rule
        self.margin = margin

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        # A margin is a difference: float32 would tie what is not equal.
        logit = pool['logit'].astype(np.float64)
        probability = expit(logit)
        distance = np.abs(probability - self.margin)
        key = {'lowest': logit, 'margin': distance, 'uncertain': np.abs(logit)}
        rows = pool.smallest(key[self.rule], budget, seed)
        return Selection(rows, {'p_labelled': probability})
