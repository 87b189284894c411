"""The picks of a ranking as files, for whoever labels them."""

import csv
import os.path as osp
import re
import shutil
from collections.abc import Mapping

from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path
from tjls_mm.stage_folder import RankingFolder

PICKED = re.compile(r'\d{4,}_')
"""What names of the picks begin with."""


def write_picked(folder: RankingFolder, paths: Mapping[str, str], link: bool) -> None:
    """Copy images, or link to them, under flat names that begin with their rank.

    What an annotator or somebody else puts beside that folder stays.

    Args:
        folder: Of the ranking.
        paths: image_id to path, first choice first.
        link: Whether to link.
    """
    width = max(4, len(str(len(paths))))
    names = {
        image_id: f'{rank:0{width}d}_{osp.basename(path)}'
        for rank, (image_id, path) in enumerate(paths.items(), 1)
    }
    target = folder.picked_images
    part = target.with_name(f'.{target.name}')
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for image_id, name in names.items():
            if link:
                (part / name).symlink_to(osp.abspath(paths[image_id]))
            else:
                shutil.copyfile(paths[image_id], part / name)
        if target.exists():
            shutil.rmtree(target)
        part.replace(target)
    except OSError as error:
        raise InputError(
            f'{target} cannot be written ({error.strerror}): make room or allow '
            'writing, and run the same command again.'
        ) from error
    names_file = atomic_path(folder.picked_names)
    with names_file as path, open(path, 'w', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['file', 'image_id'])
        writer.writerows([name, image_id] for image_id, name in names.items())
