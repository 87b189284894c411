"""Who labels the selected images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tjls_mm.errors import InputError, raise_first
from tjls_mm.registry import ANNOTATORS
from tjls_mm.stage_folder import StageFolder


class Annotator(ABC):
    """Gives selected images their labels, now or later.

    The selection is on disk before anyone is asked, and the same images are asked for
    again until there is an answer.
    """

    @abstractmethod
    def annotate(
        self, source, image_ids: Sequence[str], folder: StageFolder
    ) -> Sequence[str] | None:
        """Ask for labels.

        Args:
            source: Image source of the trial, which must be able to open the labels
                of what is returned.
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
