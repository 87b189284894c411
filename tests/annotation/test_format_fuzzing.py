"""Whatever is delivered: an answer, a problem or an InputError, and no file changes."""

import io
import json
import os
import zipfile

import pytest
import yaml
from deliveries import CLASSES, IMAGES, NAMES, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tjls_mm.annotation import (
    ClassFolders,
    ClassTable,
    CocoJson,
    Cvat,
    LabelStudio,
    LabelStudioChoices,
    PascalVoc,
    Yolo,
)
from tjls_mm.annotation.image_names import stem
from tjls_mm.errors import InputError

# More of them: FUZZ_EXAMPLES=1000 python -m pytest tests/annotation -k fuzzing
QUICK = settings(
    max_examples=int(os.environ.get('FUZZ_EXAMPLES', 20)),
    deadline=None,
    derandomize='FUZZ_EXAMPLES' not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LOOSE = {'bad_boxes': 'clip', 'rotated': 'envelope', 'shapes': 'envelope'}
SAID = {**LOOSE, 'no_boxes': 'nothing', 'duplicates': 'drop'}

names = st.sampled_from([*NAMES, *(image.image_id for image in IMAGES), 'x.jpg', '..'])
classes = st.sampled_from([*CLASSES, 'hat', 'no_objects', ''])
rubbish = st.none() | st.booleans() | st.text(max_size=5) | st.integers() | st.floats()
tiny = rubbish | st.lists(rubbish, max_size=2) | st.fixed_dictionaries({'a': rubbish})
sides = st.floats(-20, 220) | st.integers(-3, 300) | st.just(10**400) | rubbish


def objects(**fields):
    """Objects with the fields of a format, each now and then missing or rubbish."""
    return st.fixed_dictionaries({}, optional={k: v | tiny for k, v in fields.items()})


def lists(one):
    return st.lists(one, max_size=3) | tiny


def label_studio(draw):
    keys = ('rectanglelabels', 'polygonlabels', 'labels', 'choices')
    value = objects(
        **{key: lists(classes) for key in keys},
        **dict.fromkeys(('x', 'y', 'width', 'height', 'rotation'), sides),
        points=lists(lists(sides)),
    )
    kinds = st.sampled_from([*keys, 'rectangle', 'relation', 'brushlabels'])
    size = {'original_width': st.sampled_from([200, 120, 640])}
    result = objects(type=kinds, value=value, image_rotation=st.just(0), **size)
    annotation = objects(
        result=lists(result), was_cancelled=st.booleans(), updated_at=st.text()
    )
    data = objects(image=names, image_id=names)
    task = objects(data=data, annotations=lists(annotation), drafts=tiny, id=rubbish)
    return json.dumps(draw(lists(task)))


def coco(draw):
    ids = st.integers(0, 2)
    image = objects(
        id=ids,
        file_name=names,
        width=st.sampled_from([200, 120]),
        height=st.sampled_from([200, 120]),
    )
    annotation = objects(
        image_id=ids,
        category_id=ids,
        bbox=lists(sides),
        segmentation=tiny,
        attributes=objects(rotation=sides),
        iscrowd=ids,
    )
    content = objects(
        images=lists(image),
        annotations=lists(annotation),
        categories=lists(objects(id=ids, name=classes)),
        info=objects(contributor=st.just('Label Studio')),
    )
    return json.dumps(draw(content))


def _xml(text) -> str:
    kept = ''.join(c for c in str(text) if c.isprintable())
    return kept.translate(
        {ord(k): f'&#{ord(k)};' for k in '<&"' + ''.join(map(chr, range(32)))}
    )


def cvat(draw):
    tags = st.sampled_from(['box', 'polygon', 'tag', 'mask', 'x'])
    keys = ('xtl', 'ytl', 'xbr', 'ybr', 'rotation')
    pairs = st.lists(st.tuples(sides, sides), max_size=4)
    shape = st.tuples(
        tags,
        objects(label=classes, **dict.fromkeys(keys, sides)),
        pairs.map(lambda found: ';'.join(f'{x},{y}' for x, y in found)),
    )
    size = objects(name=names, width=st.just(200), height=st.just(120))
    parts = []
    for fields, shapes in draw(
        st.lists(st.tuples(size, st.lists(shape, max_size=3)), max_size=3)
    ):
        parts.append(f'<image {_attributes(fields)}>')
        for tag, known, points in shapes:
            parts.append(f'<{tag} {_attributes(known)} points="{_xml(points)}"/>')
        parts.append('</image>')
    return f'<annotations>{"".join(parts)}</annotations>'


def _attributes(fields: dict) -> str:
    return ' '.join(f'{key}="{_xml(value)}"' for key, value in fields.items())


def voc(draw):
    keys = ('xmin', 'ymin', 'xmax', 'ymax')
    box = objects(**dict.fromkeys(keys, sides))
    shape = objects(name=classes, difficult=st.integers(0, 1), bndbox=box, polygon=tiny)
    size = objects(width=st.just(200), height=st.just(120))
    document = objects(filename=names, size=size, owner=objects(name=classes))
    content = draw(document | st.just({}))
    objects_ = ''.join(_tree('object', one) for one in draw(st.lists(shape)))
    fields = content if isinstance(content, dict) else {}
    inner = ''.join(_tree(key, value) for key, value in fields.items())
    return f'<annotation>{inner}{objects_}</annotation>'


def _tree(tag: str, value) -> str:
    if isinstance(value, dict):
        known = {k: v for k, v in value.items() if k.isalpha()}
        return f'<{tag}>{"".join(_tree(k, v) for k, v in known.items())}</{tag}>'
    return f'<{tag}>{_xml(value)}</{tag}>'


def yolo(draw):
    numbers = st.floats(-0.5, 1.5) | st.integers(-1, 3) | rubbish
    line = st.lists(numbers, max_size=10)
    lines = draw(st.lists(line, max_size=3))
    return '\n'.join(' '.join(str(one) for one in line) for line in lines)


def table(draw):
    rows = draw(st.lists(st.lists(names | classes | rubbish, max_size=4), max_size=4))
    head = draw(st.sampled_from(['image,class', 'class;file', 'image', '"', '']))
    return '\n'.join([head, *(','.join(map(str, row)) for row in rows)])


class_list = st.sampled_from(
    [yaml.safe_dump({'names': list(CLASSES)}), 'names: [', 'names: {0: helmet, 1: x}']
)

FORMATS = {
    'label_studio': (label_studio, 'a.json', [LabelStudio(), LabelStudio(**LOOSE)]),
    'choices': (label_studio, 'a.json', [LabelStudioChoices('latest')]),
    'coco': (coco, 'a.json', [CocoJson(), CocoJson(**SAID)]),
    'cvat': (cvat, 'a.xml', [Cvat(), Cvat(**SAID)]),
    'voc': (voc, f'{stem(NAMES[0])}.xml', [PascalVoc(), PascalVoc(1, **SAID)]),
    'yolo': (yolo, f'{stem(NAMES[0])}.txt', [Yolo(), Yolo(**SAID)]),
    'table': (table, 'a.csv', [ClassTable()]),
}
EVERY = [form for *_, forms in FORMATS.values() for form in forms] + [ClassFolders()]


def state(folder) -> dict:
    paths = sorted(folder.rglob('*'))
    return {p: (p.lstat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in paths}


def take(form, path) -> None:
    """Read a delivery; ``deliveries.read`` checks that all images are accounted for."""
    before = state(path.parent)
    try:
        delivery = read(form, path)
    except InputError:
        delivery = None
    assert state(path.parent) == before
    for image in IMAGES if delivery else ():
        answer = delivery.answers.get(image.image_id, ())
        if isinstance(answer, str):
            assert answer in CLASSES
            continue
        for box in answer:
            x1, y1, x2, y2 = box.bbox
            assert 0 <= x1 and x1 + 1 <= x2 <= image.width
            assert 0 <= y1 and y1 + 1 <= y2 <= image.height
            assert box.name in CLASSES
    for problem in delivery.problems + delivery.warnings if delivery else ():
        assert len(str(problem)) < 1500 and '\n' not in problem.what


@pytest.mark.parametrize('name', FORMATS)
def test_files_with_the_fields_of_a_format(tmp_path, name):
    draw_text, file_name, forms = FORMATS[name]
    folder = tmp_path / 'delivery'
    folder.mkdir()

    @QUICK
    @given(st.composite(draw_text)(), class_list)
    def check(text, listed):
        text = text.encode('utf-8', 'surrogatepass')
        (folder / file_name).write_bytes(text)
        if name == 'yolo':
            (folder / 'data.yaml').write_text(listed)
        for form in forms:
            take(form, folder)

    check()


def test_bytes_of_any_kind(tmp_path):
    folder = tmp_path / 'delivery'
    folder.mkdir()
    suffixes = ('json', 'xml', 'txt', 'csv', 'yaml', 'zip', 'jpg')
    begins = st.sampled_from(
        [b'', b'[', b'{"images":', b'<annotations>', b'PK\x03\x04']
    )

    @QUICK
    @given(begins, st.binary(max_size=60))
    def check(begin, data):
        for suffix in suffixes:
            (folder / f'data.{suffix}').write_bytes(begin + data)
        for form in EVERY:
            take(form, folder)
        take(EVERY[0], folder / 'data.zip')

    check()


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_zips_with_names_of_any_kind(tmp_path):
    part = st.sampled_from(['..', 'a', '.', '', 'C:', 'helmet', *NAMES, 'a.json', '\\'])
    paths = st.lists(part, min_size=1, max_size=3).map('/'.join)
    folder = tmp_path / 'delivery'
    folder.mkdir()

    @QUICK
    @given(st.lists(paths, max_size=4), st.integers(0, 0xFFFF), st.binary(max_size=3))
    def check(found, mode, damage):
        data = io.BytesIO()
        with zipfile.ZipFile(data, 'w') as file:
            for path in found:
                entry = zipfile.ZipInfo(path)
                entry.external_attr = mode << 16
                file.writestr(entry, b'[]')
        content = bytearray(data.getvalue())
        content[10 : 10 + len(damage)] = damage
        (folder / 'in.zip').write_bytes(bytes(content))
        for form in (LabelStudio(), ClassFolders(), Yolo()):
            take(form, folder / 'in.zip')
        assert [path.name for path in folder.iterdir()] == ['in.zip']

    check()
