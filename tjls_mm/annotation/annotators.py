"""Who labels the selected images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence

from tjls_mm.annotation.boxes import Answer
from tjls_mm.errors import InputError, raise_first
from tjls_mm.registry import ANNOTATORS
from tjls_mm.stage_folder import StageFolder


class Annotator(ABC):
    """Gives selected images their labels, now or later.

    The selection is on disk before anyone is asked, and the same images are asked for
    again until there is an answer.

    Attributes:
        suggest_above: Score in [0, 1] from which predictions help whoever labels, and
            are gathered with what is asked of the pool; None if they do not.
        predictions: What the model of the stage says of images, from a score on, by
            image_id: boxes or a class; none where it was not asked. Set by the stage.
        accept_partial: Whether to take what there is of an answer; set for one run.
    """

    suggest_above: float | None = None
    predictions: Callable[[Sequence[str], float], Mapping[str, Answer]] = staticmethod(
        lambda image_ids, above: {}
    )
    accept_partial = False

    def problems(self, source) -> Iterator[str]:
        """Messages on what does not fit the image source, before a trial begins."""
        yield from ()

    def first_images(self, problem: str) -> str:
        """A message on first labelled images that lack a label."""
        return problem

    @abstractmethod
    def annotate(
        self, source, image_ids: Sequence[str], folder: StageFolder
    ) -> Sequence[str] | None:
        """Ask for labels.

        Args:
            source: Image source of the trial. The labels of what is returned are
                those in ``folder.annotations``, if ``write_answers`` has written it,
                else the source's own.
            image_ids: Selected images, first choice first.
            folder: Of the stage.

        Returns:
            The images that were answered, 'nothing in it' being an answer; fewer than
            asked for go back to the pool. None or none of them: not yet, the trial
            waits.

        Raises:
            InputError: If an answer cannot be used.
        """

    def what_to_do(self, folder: StageFolder) -> str:
        """One sentence for who waits."""
        return f'Label the images of {folder.selected}, then run the command again.'


@ANNOTATORS.register_module()
class Oracle(Annotator):
    """Labels exist on disk already and are opened once an image is selected."""

    def annotate(
        self, source, image_ids: Sequence[str], folder: StageFolder
    ) -> Sequence[str]:
        """All images, whose annotations are checked.

        Raises:
            InputError: If an annotation is missing or bad; names file and stage.
        """
        try:
            raise_first(source.annotation_problems(image_ids, 'selected'))
        except InputError as error:
            raise InputError(
                f'{folder.path.name}: a selected image cannot be labelled: {error} '
                'Then run the same command again; nothing is lost.'
            ) from None
        return list(image_ids)
