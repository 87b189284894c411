"""The interface between the stage loop and query strategies."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tjls_mm.outputs.outputs import Outputs
from tjls_mm.outputs.vocabulary import Needs


@dataclass(frozen=True)
class Selection:
    """What a strategy chose, and why.

    Attributes:
        rows: Of the pool, first choice first, (budget,), int.
        columns: Name to a score of every pool image, (N,), for ``selection.csv``;
            NaN where an image has none.
        note: What else is to be said of it, in words.
    """

    rows: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    note: str = ''


class QueryStrategy(ABC):
    """Choose which pool images to label next.

    A strategy is pure: it sees outputs by name and a seed, no files, no model, no
    annotations. Rows of all arrays are in the order of the sorted image_ids.

    Attributes:
        needs: Outputs that it wants (see ``tjls_mm.outputs.VOCABULARY``); a
            constructor may set it.
    """

    needs = Needs()

    @abstractmethod
    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> np.ndarray | Selection:
        """Rank and pick.

        Args:
            pool: Outputs of the N pool images, those of ``needs.pool`` at least.
            labelled: Outputs of the labelled images; none if it needs none of them.
            budget: How many rows to return, 1 to N.
            seed: Decides what is random and orders equals.

        Returns:
            Rows of the pool, first choice first, or a ``Selection``.
        """
