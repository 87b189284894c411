"""Label Studio's JSON: the one that tells 'nothing there' from 'skipped', 'not yet'."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from tjls_mm.annotation.boxes import Answer, ImageRecord
from tjls_mm.annotation.delivered_files import parse_json
from tjls_mm.annotation.formats import (
    IMAGES,
    AnnotationFormat,
    ClassificationFormat,
    DetectionFormat,
    check_export,
    suggested_boxes,
)
from tjls_mm.annotation.reading import (
    BoxSheet,
    ClassSheet,
    Reading,
    Sheet,
    check_choice,
    number,
    numbers,
    shown,
)
from tjls_mm.errors import InputError
from tjls_mm.files import write_json, write_text
from tjls_mm.registry import ANNOTATION_FORMATS

# What is said of a whole image, not of a place in it.
_TAGS = ('choices', 'textarea', 'rating', 'number', 'taxonomy', 'datetime', 'pairwise')
_EXPORT = "Export 'JSON' of the project."


class _LabelStudio(AnnotationFormat):
    """Tasks of Label Studio; its two forms differ in what a result is."""

    tells_empty = True
    tells_suggestions = True

    def _set(self, annotators: str, document_root: str | None) -> None:
        check_choice('annotators', annotators, ('error', 'latest'))
        self.annotators = annotators
        self.document_root = document_root

    def write(self, folder, images, suggestions, classes) -> list[Path]:
        check_export(images, classes, suggestions)
        folder = Path(folder)
        tasks = []
        for image in images:
            url = self._url(folder, image)
            task = {'data': {'image': url, 'image_id': image.image_id}}
            if results := self._results(image, suggestions):
                task['predictions'] = [{'model_version': 'model', 'result': results}]
            tasks.append(task)
        labels = '\n    '.join(f'<{self.label} value={quoteattr(c)}/>' for c in classes)
        config = (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <{self.control}>\n    {labels}\n  </{self.control.split()[0]}>\n'
            '</View>\n'
        )
        paths = [folder / 'label_studio_tasks.json', folder / 'label_studio_config.xml']
        write_json(paths[0], tasks)
        write_text(paths[1], config)
        return paths

    def _url(self, folder: Path, image: ImageRecord) -> str:
        root = Path(self.document_root or folder).absolute()
        path = folder.absolute() / IMAGES / image.file_name
        below = os.path.relpath(path, root).replace(os.sep, '/')
        if below.startswith('../'):
            raise InputError(
                f'document_root {root} does not hold {path}: expected a folder above '
                'the images, from which Label Studio serves files.'
            )
        return f'/data/local-files/?d={quote(below)}'

    @abstractmethod
    def _results(self, image: ImageRecord, suggestions: Mapping[str, Answer]) -> list:
        """Suggestions for an image as Label Studio's results."""

    @abstractmethod
    def _result(self, sheet: Sheet, entry: Mapping, place: str) -> None:
        """Note one result of an annotation."""

    def _read(self, reading: Reading) -> None:
        names = reading.files.with_suffix('.json')
        if not names:
            reading.problem(reading.files.path.name, 'holds no .json', _EXPORT)
        found: dict[str, list] = {}
        for file, content in reading.parsed(names, parse_json):
            for place, task in self._tasks(reading, file, content):
                image = _image_of(reading, file, place, task)
                if image is not None:
                    found.setdefault(image.image_id, []).append((file, place, task))
        for image_id, tasks in found.items():
            self._read_image(reading, reading.by_id[image_id], tasks)

    def _tasks(self, reading: Reading, file: str, content) -> Iterator[tuple]:
        if isinstance(content, dict) and 'data' in content:
            content = [content]
        if not isinstance(content, list):
            what = f'holds {shown(content)}, expected a list of tasks'
            reading.problem(file, what, _EXPORT)
            return
        for row, task in enumerate(content):
            place = f'entry {row + 1}'
            if not isinstance(task, dict) or not isinstance(task.get('data'), dict):
                what = "is no task with 'data' (JSON-MIN loses what is needed)"
                reading.problem(file, what, _EXPORT, place)
                continue
            if isinstance(task.get('id'), int):
                place = f'task {task["id"]}'
            yield place, task

    def _read_image(self, reading: Reading, image: ImageRecord, tasks: list) -> None:
        live, skipped, drafts = [], [], False
        for file, place, task in tasks:
            annotations = task.get('annotations') or []
            drafts = drafts or bool(task.get('drafts'))
            if not isinstance(annotations, list):
                annotations = [annotations]
            for annotation in annotations:
                whole = isinstance(annotation, dict)
                cancelled = whole and annotation.get('was_cancelled')
                where = (file, place, annotation if whole else {})
                (skipped if cancelled else live).append(where)
        if len(live) > 1 and self.annotators == 'latest':
            live = [max(live, key=lambda one: _time(one[2]))]
        file, place, annotation = (live or skipped or [(*tasks[0][:2], {})])[0]
        sheet = reading.sheet(image, file, place)
        if len(live) > 1:
            sheet.problem(
                f'the image has {len(live)} annotations',
                "Leave one in Label Studio; or annotators='latest' takes the last.",
            )
        elif live:
            self._read_annotation(sheet, annotation)
        else:
            sheet.set_aside('skipped' if skipped else 'unanswered')
            if drafts:
                sheet.warn('a draft was not submitted', 'Submit it in Label Studio.')

    def _read_annotation(self, sheet: Sheet, annotation: Mapping) -> None:
        results = annotation.get('result')
        if not isinstance(results, list):
            what = f"the annotation has 'result' {shown(results)}, expected a list"
            sheet.problem(what, _EXPORT)
            return
        # A region may have an entry for its shape and one for its class.
        named = {
            shown(one.get('id'))
            for one in results
            if isinstance(one, dict) and _type(one) in ('rectanglelabels', 'labels')
        }
        for row, entry in enumerate(results, 1):
            place = f'result {row}'
            if _type(entry) == 'relation':
                continue
            if not isinstance(entry, dict) or not isinstance(entry.get('value'), dict):
                sheet.problem('a result has no value', _EXPORT, place)
            elif _type(entry) != 'rectangle' or shown(entry.get('id')) not in named:
                self._result(sheet, entry, place)
        if isinstance(sheet, BoxSheet):
            # Relations are between regions.
            sheet.says_nothing = all(_type(one) == 'relation' for one in results)

    def instructions(self) -> str:
        return f"""\
1. Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
   LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT set to the absolute path of
   {self.document_root or 'this folder'}.
2. Create a project. In *Settings > Labeling Interface > Code* paste
   label_studio_config.xml.
3. In *Settings > Cloud Storage* add a source storage *Local files* with the absolute
   path of the folder images, and do not sync it: without it images are not shown.
4. *Import* label_studio_tasks.json. To see suggestions, choose their model version in
   *Settings > Annotation* (or *Machine Learning*).
5. Label and *Submit* every image, also those with nothing in them. *Skip* gives an
   image back to the pool.
6. *Export > JSON* (not JSON-MIN, COCO, VOC or YOLO, which lose answers).
"""


@ANNOTATION_FORMATS.register_module()
class LabelStudio(_LabelStudio, DetectionFormat):
    """Boxes in Label Studio's JSON.

    Args:
        annotators: Of an image that several have labelled: 'error', or 'latest' to
            take the annotation that was changed last.
        document_root: Folder that Label Studio serves, above the images; by default
            that of the written files.
        **rules: Of ``BoxRules``, without ``no_boxes``.
    """

    # What cannot be rotated needs no refusal.
    control = 'RectangleLabels name="label" toName="image" canRotate="false"'
    label = 'Label'

    def __init__(
        self, annotators: str = 'error', document_root: str | None = None, **rules
    ) -> None:
        super().__init__(**rules)
        self._set(annotators, document_root)

    def _results(self, image: ImageRecord, suggestions: Mapping[str, Answer]) -> list:
        results = []
        width, height = image.width, image.height
        for row, box in enumerate(suggested_boxes(image, suggestions)):
            x1, y1, x2, y2 = box.bbox
            value = {
                'x': 100 * x1 / width,
                'y': 100 * y1 / height,
                'width': 100 * (x2 - x1) / width,
                'height': 100 * (y2 - y1) / height,
                'rotation': 0,
                'rectanglelabels': [box.name],
            }
            entry = _entry(image, f'box{row}', 'rectanglelabels', value)
            if box.score is not None:
                entry['score'] = float(box.score)
            results.append(entry)
        return results

    def _result(self, sheet: BoxSheet, entry: Mapping, place: str) -> None:
        kind, value = _type(entry), entry['value']
        if kind in _TAGS:
            sheet.tag(kind)
            return
        if 'original_width' in entry or 'original_height' in entry:
            size = entry.get('original_width'), entry.get('original_height')
            sheet.check_size(*size, place)
        if number(entry.get('image_rotation') or 0) != 0:
            advice = 'Turn it back in the tool, and draw its boxes again.'
            sheet.problem('the image was turned in the tool', advice, place)
        elif kind == 'polygonlabels':
            name = _one_name(sheet, value, ('polygonlabels', 'labels'), place)
            if name is not None:
                sheet.polygon(name, _points(sheet, value.get('points')), place)
        elif kind in ('rectanglelabels', 'labels', 'rectangle') and 'width' in value:
            name = _one_name(sheet, value, ('rectanglelabels', 'labels'), place)
            if name is not None:
                _read_box(sheet, name, value, place)
        else:
            sheet.other_shape(kind)


def _type(entry) -> str:
    kind = entry.get('type') if isinstance(entry, dict) else None
    return kind[:30] if isinstance(kind, str) else 'result without type'


def _entry(image: ImageRecord, number: str, kind: str, value: dict) -> dict:
    return {
        'id': number,
        'type': kind,
        'from_name': 'label',
        'to_name': 'image',
        'original_width': image.width,
        'original_height': image.height,
        'image_rotation': 0,
        'value': value,
    }


def _one_name(sheet: Sheet, value: Mapping, keys: Sequence[str], place: str):
    names = next((value[key] for key in keys if key in value), None)
    names = names if isinstance(names, list) else []
    if len(names) != 1 or names[0] is None:
        what = f'a region has {len(names)} classes'
        sheet.problem(what, 'Give it one, or remove it.', place)
        return None
    return names[0]


def _read_box(sheet: BoxSheet, name, value: Mapping, place: str) -> None:
    shares = numbers([value.get(key) for key in ('x', 'y', 'width', 'height')])
    if shares is None:
        written = [value.get(key) for key in ('x', 'y', 'width', 'height')]
        sheet.box(name, written, place)
        return
    x, y, width, height = (share / 100 for share in shares)
    across, down = sheet.image.width, sheet.image.height
    sides = (x * across, y * down, (x + width) * across, (y + height) * down)
    # About the left upper corner, in pixels: per cent are no square.
    sheet.rotated_box(name, sides, value.get('rotation'), (0, 0), place)


def _points(sheet: Sheet, points) -> list:
    size = sheet.image.width, sheet.image.height
    found = []
    for point in points if isinstance(points, list) else []:
        pair = numbers(point) if isinstance(point, list) and len(point) == 2 else None
        pair = [share / 100 * side for share, side in zip(pair or (), size)]  # noqa: B905
        found.append(pair)
    return found


def _image_of(reading: Reading, file: str, place: str, task: Mapping):
    image_id = task['data'].get('image_id')
    if isinstance(image_id, str) and image_id in reading.by_id:
        return reading.by_id[image_id]
    # A task that somebody made of the images has no image_id.
    texts = [v for v in task['data'].values() if isinstance(v, str) and v]
    for text in texts:
        if (found := reading.names.find(text)) is not None:
            return found
    name = task['data'].get('image') or (texts[0] if texts else None)
    return reading.find(name, file, place)


def _time(annotation: Mapping) -> tuple:
    when = annotation.get('updated_at') or annotation.get('created_at')
    return str(when or ''), number(annotation.get('id')) or 0


@ANNOTATION_FORMATS.register_module()
class LabelStudioChoices(_LabelStudio, ClassificationFormat):
    """Classes of whole images in Label Studio's JSON.

    Args:
        annotators: As in ``LabelStudio``.
        document_root: As in ``LabelStudio``.
    """

    control = 'Choices name="label" toName="image" choice="single"'
    label = 'Choice'

    def __init__(
        self, annotators: str = 'error', document_root: str | None = None
    ) -> None:
        self._set(annotators, document_root)

    def _results(self, image: ImageRecord, suggestions: Mapping[str, Answer]) -> list:
        name = suggestions.get(image.image_id)
        if name is None:
            return []
        return [_entry(image, 'class', 'choices', {'choices': [name]})]

    def _result(self, sheet: ClassSheet, entry: Mapping, place: str) -> None:
        if entry.get('type') != 'choices':
            sheet.problem(
                f'a result is of type {shown(entry.get("type"))}, expected choices',
                'Remove it, or set another format.',
                place,
            )
            return
        names = entry['value'].get('choices')
        for name in names if isinstance(names, list) else [names]:
            sheet.choose(name, place)
