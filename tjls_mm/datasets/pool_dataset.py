"""Images without annotations."""

import os.path as osp

from mmengine.dataset import BaseDataset

from tjls_mm.image_ids import image_path, read_image_ids
from tjls_mm.registry import DATASETS


@DATASETS.register_module()
class PoolDataset(BaseDataset):
    """Images of a list file; no annotation is opened, none need exist.

    Args:
        ann_file: List of image_ids, one per line.
        data_root: Folder of the images.
        path_template: Where an image lies below ``data_root``, from the fields
            ``{image_id}``, ``{parent}`` and ``{name}`` (the id up to and after
            its last slash).
        metainfo: Classes, for evaluators and visualizers.
        pipeline: Transforms; they must not load annotations.
        **kwargs: Of MMEngine's BaseDataset.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        path_template: str = '{image_id}',
        **kwargs,
    ) -> None:
        self.path_template = path_template
        # The images lie below data_root, the list belongs to a stage.
        # Serialising saves memory for worker processes and costs a second.
        kwargs.setdefault('serialize_data', False)
        super().__init__(ann_file=osp.abspath(ann_file), data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per image: its path, its id, and that it is not labelled."""
        return [
            {
                'img_path': image_path(self.data_root, self.path_template, image_id),
                'img_id': image_id,
                'image_id': image_id,
                'is_labelled': False,
            }
            for image_id in read_image_ids(self.ann_file)
        ]
