"""A table of images and their classes."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tjls_mm.annotation.delivered_files import Unusable, parse_text
from tjls_mm.annotation.formats import ClassificationFormat, check_export
from tjls_mm.annotation.reading import Reading
from tjls_mm.files import write_text
from tjls_mm.registry import ANNOTATION_FORMATS

_IMAGE = ('image', 'file', 'filename', 'file_name')
_CLASS = ('class', 'label')
_SAVE = 'Save the table as CSV (UTF-8) with the columns image and class.'


@ANNOTATION_FORMATS.register_module()
class ClassTable(ClassificationFormat):
    """A CSV file with the columns ``image`` and ``class``.

    Its third column, ``suggestion``, is what a model predicted. An image without
    class is not answered.
    """

    tells_suggestions = True

    def write(self, folder, images, suggestions, classes) -> list[Path]:
        check_export(images, classes, suggestions)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator='\n')
        writer.writerow(['image', 'class', 'suggestion'])
        for image in images:
            suggestion = suggestions.get(image.image_id, '')
            writer.writerow([image.file_name, '', suggestion])
        paths = [Path(folder) / 'labels.csv', Path(folder) / 'classes.txt']
        write_text(paths[0], table.getvalue())
        write_text(paths[1], ''.join(f'{name}\n' for name in classes))
        return paths

    def _read(self, reading: Reading) -> None:
        names = reading.files.with_suffix('.csv', '.tsv')
        if not names:
            reading.problem(reading.files.path.name, 'holds no .csv', _SAVE)
        for file, rows in reading.parsed(names, parse_text, _parse_table):
            for place, name, label in rows:
                image = reading.find(name, file, place)
                if image is not None:
                    sheet = reading.sheet(image, file, place)
                    if label:
                        sheet.choose(label)
                    else:
                        sheet.set_aside('unanswered')

    def instructions(self) -> str:
        return """\
1. Open labels.csv in a spreadsheet, beside the folder images.
2. Write the class of every image into the column class, as in classes.txt; leave it
   empty to give the image back to the pool.
3. Save as CSV in UTF-8.
"""


def _parse_table(text: str) -> list[tuple[str, str, str]]:
    """(place, image, class) of the rows, or Unusable."""
    header = text.lstrip().split('\n', 1)[0]
    # Spreadsheets of some countries write semicolons.
    delimiter = max(',;\t', key=header.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
        rows = [
            (f'line {reader.line_num}', [cell.strip() for cell in row])
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise Unusable(f'is no table ({error})', _SAVE) from None
    heads = [head.lower() for head in rows[0][1]] if rows else []
    columns = [_column(heads, names) for names in (_IMAGE, _CLASS)]
    if None in columns:
        found = ', '.join(heads)[:100]
        what = f'has columns {found!r}, expected image and class'
        raise Unusable(what, _SAVE)
    image, label = columns
    filled = ((place, row + [''] * len(heads)) for place, row in rows[1:])
    return [(place, row[image], row[label]) for place, row in filled]


def _column(heads: Sequence[str], names: Sequence[str]) -> int | None:
    return next((heads.index(name) for name in names if name in heads), None)
