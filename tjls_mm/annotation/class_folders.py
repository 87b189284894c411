"""A folder for each class, into which somebody moves or copies images."""

from pathlib import Path, PurePosixPath

from tjls_mm.annotation.formats import IMAGES, ClassificationFormat, check_export
from tjls_mm.annotation.reading import IMAGE_SUFFIXES, Reading
from tjls_mm.errors import InputError
from tjls_mm.registry import ANNOTATION_FORMATS

CLASSES, SKIPPED = 'classes', '_skipped'


@ANNOTATION_FORMATS.register_module()
class ClassFolders(ClassificationFormat):
    """Folders below ``classes``, one per class, and ``_skipped``.

    An image in none of them is not answered. Suggestions have no place.
    """

    tells_suggestions = True

    def write(self, folder, images, suggestions, classes) -> list[Path]:
        check_export(images, classes, suggestions)
        lower = [name.casefold() for name in classes]
        for name in classes:
            taken = name in (IMAGES, CLASSES, SKIPPED) or name.startswith('.')
            if taken or set('/\\:') & set(name) or lower.count(name.casefold()) > 1:
                raise InputError(
                    f'Class {name!r} cannot be a folder of its own on every system: '
                    'use the format ClassTable.'
                )
        paths = [Path(folder) / CLASSES / name for name in (*classes, SKIPPED)]
        for path in paths:
            path.mkdir(parents=True, exist_ok=True)
        return paths

    def _read(self, reading: Reading) -> None:
        unknown: dict[str, list[str]] = {}
        for file in reading.files.with_suffix(*IMAGE_SUFFIXES):
            path = PurePosixPath(file.replace('\\', '/'))
            image = reading.find(path.name, file)
            if image is None:
                continue
            name = path.parent.name
            sheet = reading.sheet(image, file)
            if name in reading.classes:
                sheet.choose(name)
            elif name == SKIPPED:
                sheet.set_aside('skipped')
            elif name in ('', IMAGES, CLASSES):
                sheet.set_aside('unanswered')
            else:
                sheet.set_aside('refused')
                unknown.setdefault(str(path.parent), []).append(path.name)
        for folder, names in unknown.items():
            what = f'is no class and holds {len(names)} images'
            reading.problem(folder, what, reading.nearest(PurePosixPath(folder).name))

    def instructions(self) -> str:
        return f"""\
1. Move or copy every file of the folder images into its folder of {CLASSES}, or into
   {SKIPPED} to give it back to the pool. Keep the names of files.
2. Deliver the folder {CLASSES}, as it is or as a zip.
"""
