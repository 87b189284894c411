"""Where the labels of selected images come from."""

from collections.abc import Sequence

from tjls_mm.errors import InputError
from tjls_mm.registry import ANNOTATORS


@ANNOTATORS.register_module()
class Oracle:
    """Labels exist on disk already and are opened once an image is selected."""

    def label(self, source, image_ids: Sequence[str], stage: int) -> None:
        """Make sure that the selected images can be trained on.

        Args:
            source: The image source of the trial.
            image_ids: Selected images.
            stage: After which they were selected.

        Raises:
            InputError: If an annotation is missing or bad; names file and stage.
        """
        try:
            source.check_annotations(image_ids, 'selected')
        except InputError as error:
            raise InputError(
                f'After stage {stage}, a selected image cannot be labelled: {error} '
                'Mend the file and run the same command again; nothing is lost.'
            ) from None
