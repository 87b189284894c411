"""Query strategies put together of parts, of which each does one thing."""

from math import ceil

import numpy as np
from threadpoolctl import threadpool_limits

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.query.noise import draw_probability, log_power
from tjls_mm.query.parts import (
    QUERY_PARTS,
    Balance,
    Scores,
    Shortlist,
    check_numbers,
    joined_needs,
    labelled_counts,
)
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.randomness import generator
from tjls_mm.registry import QUERIES, build_own


def draw_control(n_images: int, share: float, budget: int, seed: int) -> np.ndarray:
    """Rows of the control: a share of the budget, uniformly, in drawn order."""
    size = round(share * budget)
    return generator(seed, 'control').choice(n_images, size, replace=False)


@QUERIES.register_module()
class Composition(QueryStrategy):
    """Score, balance of classes, noise, diversity and a share of random images.

    Of the images that are not in the control share, those of highest score are picked,
    by the balance of classes where there is one; a diversity picks among ``shortlist``
    times as many. A score of 0 is never preferred; equals go by a seeded hash of the
    image_id.

    Args:
        score: Part: 'BoxScore', 'ClassScore', 'OutputScore', 'ExpectedBoxes',
            'FlipScore', 'ProbeScore', 'Product', 'Sum'.
        balance: Part: 'ClassBalance', 'Strata'. None: the score of an image as it is.
        noise: beta, at least 0.1: images are drawn without replacement, proportional
            to score^beta (Gumbel top-k). None: no noise.
        diversity: Part: 'KCenter', 'KMeansPlusPlus', 'Herding' (of features of images);
            'SameClassBoxes', 'BoxHerding' (of objects).
        shortlist: Times the budget, what a diversity picks among; None: the pool.
        control: [0, 1], share of the budget that is drawn uniformly, first.
        cost: 'image', or 'boxes': scores are per base_cost + expected boxes.
        base_cost: Cost of an image without boxes, in boxes.

    Raises:
        InputError: If an argument is none of that, or parts do not fit together.

    The columns of its selection, those that it has: ``score`` (without noise),
    ``expected_boxes``, ``class`` (that decided a pick), ``control`` (drawn uniformly),
    ``draw_probability`` (in the draw that picked the image, or would have, if it were
    the first of its kind: p; after others were drawn p / (1 - the sum of theirs)).
    """

    def __init__(
        self,
        score: dict,
        balance: dict | None = None,
        noise: float | None = None,
        diversity: dict | None = None,
        shortlist: float | None = 4,
        control: float = 0.0,
        cost: str = 'image',
        base_cost: float = 1.0,
    ) -> None:
        if noise is not None and not noise >= 0.1:
            raise InputError(f'noise must be at least 0.1 or None, got {noise}')
        if shortlist is not None and not shortlist >= 1:
            raise InputError(f'shortlist must be at least 1 or None, got {shortlist}')
        if not 0 <= control <= 1:
            raise InputError(f'control must be in [0, 1], got {control}')
        if cost not in ('image', 'boxes'):
            raise InputError(f"cost must be 'image' or 'boxes', got {cost!r}")
        if not base_cost > 0:
            raise InputError(f'base_cost must be above 0, got {base_cost}')
        if noise and diversity and shortlist is None:
            raise InputError('noise needs a shortlist: without one nothing is drawn.')
        self.score = build_own(QUERY_PARTS, score)
        self.balance = build_own(QUERY_PARTS, balance) if balance else Balance()
        self.diversity = build_own(QUERY_PARTS, diversity) if diversity else None
        self.ranks = diversity is None or shortlist is not None
        self.noise = noise
        self.shortlist = shortlist
        self.control = control
        self.cost = cost
        self.base_cost = base_cost
        parts = (self.score, self.balance, self.diversity)
        self.needs = joined_needs(part for part in parts if part)

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        n_images = len(pool.image_ids)
        if not 1 <= budget <= n_images:
            raise ValueError(f'budget must be 1 to {n_images} (images), got {budget}')
        return self.pick(self.score(pool, labelled), pool, labelled, budget, seed)

    def pick(
        self, scores: Scores, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        """As ``select``, by what the score said of the pool."""
        n_images = len(pool.image_ids)
        check_numbers(scores.image, pool)
        cost = self._cost(scores)
        scores = scores.times(1 / cost)
        drawn = draw_control(n_images, self.control, budget, seed)
        have = self._have(scores, labelled, drawn)
        # In the order of seeded hashes the first of equals is the one to take.
        rest = pool.smallest(np.zeros(n_images), n_images, seed)
        rest = rest[~np.isin(rest, drawn)]
        picks = classes = np.zeros(0, np.int64)
        if left := budget - len(drawn):
            places, classes = self._rank(scores, have, rest, left, seed)
            picks = rest[places]
            if self.diversity:
                images = Shortlist(
                    pool, labelled, picks, drawn, classes, cost[picks], seed
                )
                # The same picks with any number of cores.
                with threadpool_limits(1):
                    chosen = self.diversity(images, left)
                picks, classes = picks[chosen], classes[chosen]
        columns = self._columns(scores, have, drawn, rest, picks, classes)
        note = getattr(self.score, 'note', '')
        return Selection(np.append(drawn, picks), columns, note)

    def _cost(self, scores: Scores) -> np.ndarray:
        if self.cost == 'image':
            return np.ones(len(scores.image))
        if scores.boxes is None:
            raise InputError("cost='boxes' needs a score that is made of boxes.")
        return self.base_cost + scores.boxes

    def _have(
        self, scores: Scores, labelled: Outputs, drawn: np.ndarray
    ) -> np.ndarray | None:
        """Objects of each class, labelled and expected of the control share."""
        if type(self.balance) is Balance:
            return None
        if scores.by_class is None:
            raise InputError(
                f'{type(self.score).__name__} has no scores of classes to balance: '
                "write balance=None, or score=dict(type='BoxScore', over='sum')."
            )
        have = scores.expected[drawn].sum(0)
        if 'label_count' in self.balance.needs.labelled:
            have += labelled_counts(labelled, len(have))
        return have

    def _rank(
        self,
        scores: Scores,
        have: np.ndarray | None,
        rest: np.ndarray,
        budget: int,
        seed: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places in ``rest`` of picks, or of what a diversity picks among; classes."""
        size = budget
        if not self.ranks:
            return np.arange(len(rest)), np.full(len(rest), -1)
        if self.diversity:
            size = min(ceil(self.shortlist * budget), len(rest))
        if self.noise:
            scores = self._noisy(scores, seed)
        rng = generator(seed, 'balance')
        return self.balance.rank(scores.rows(rest), have, size, rng)

    def _noisy(self, scores: Scores, seed: int) -> Scores:
        """Scores times e^(G / beta): the order of beta ln(score) + Gumbel noise G."""
        rng = generator(seed, 'noise')
        image = np.exp(rng.gumbel(size=len(scores.image)) / self.noise)
        if not self.balance.noise_by_class:
            return scores.times(image)
        classes = np.exp(rng.gumbel(size=scores.by_class.shape) / self.noise)
        return scores.times(image, classes)

    def _columns(
        self,
        scores: Scores,
        have: np.ndarray | None,
        drawn: np.ndarray,
        rest: np.ndarray,
        picks: np.ndarray,
        classes: np.ndarray,
    ) -> dict[str, np.ndarray]:
        n_images = len(scores.image)
        columns = {'score': self.balance.value(scores, have)}
        if scores.boxes is not None:
            columns['expected_boxes'] = scores.boxes
        if self.control:
            columns['control'] = np.isin(np.arange(n_images), drawn)
        if self.ranks and type(self.balance) is not Balance:
            columns['class'] = np.full(n_images, np.nan)
            columns['class'][picks] = np.where(classes < 0, np.nan, classes)
        if self.noise and self.balance.draws and not self.diversity:
            chances = np.full(n_images, 1 / n_images)
            chances[rest] = draw_probability(log_power(scores.image[rest], self.noise))
            for kind in set(classes[classes >= 0]):
                of_class = scores.by_class[rest, kind]
                of_kind = draw_probability(log_power(of_class, self.noise))
                chosen = np.isin(rest, picks[classes == kind])
                chances[rest[chosen]] = of_kind[chosen]
            columns['draw_probability'] = chances
        return columns
