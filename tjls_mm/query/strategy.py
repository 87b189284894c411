"""The interface between the stage loop and query strategies."""

from abc import ABC, abstractmethod
from collections.abc import Mapping


class QueryStrategy(ABC):
    """Choose which pool images to label next.

    A strategy is pure: it sees outputs keyed by image_id and a seed, no files, no
    model, no annotations.

    Attributes:
        needs: Names of the outputs it wants of every pool image (see
            ``JointLearner.pool_outputs``; at present ``logit``); empty if none,
            then the pool is not scored.
    """

    needs: tuple[str, ...] = ()

    @abstractmethod
    def select(
        self, pool: Mapping[str, Mapping[str, float]], budget: int, seed: int
    ) -> list[str]:
        """Rank and pick.

        Args:
            pool: image_id to its outputs by name.
            budget: How many ids to return.
            seed: Decides what is random and orders equals.

        Returns:
            image_ids, first choice first.
        """
