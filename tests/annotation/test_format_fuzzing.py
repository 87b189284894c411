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

names = st.sampled_from([*NAMES, *(image.image_id for image in IMAGES)] * 3 + ['..'])
classes = st.sampled_from([*CLASSES * 5, 'hat', 'no_objects', ''])
rubbish = st.none() | st.booleans() | st.text(max_size=5) | st.integers() | st.floats()
tiny = rubbish | st.lists(rubbish, max_size=2) | st.fixed_dictionaries({'a': rubbish})
low, high = st.floats(-0.5, 50), st.floats(55, 120)
wild = st.floats(-20, 1e4) | st.just(10**400) | rubbish


@st.composite
def side(draw, good):
    """A coordinate, now and then anything."""
    return draw(wild if draw(st.integers(0, 30)) == 1 else good)


degrees = side(st.sampled_from([0] * 6 + [90, 30, 360]))


@st.composite
def objects(draw, **fields):
    """Objects with the fields of a format, now and then missing or rubbish."""
    found = {}
    for key, good in fields.items():
        chance = draw(st.integers(0, 40))
        if chance:
            found[key] = draw(tiny if chance == 1 else good)
    return found


@st.composite
def lists(draw, one, most=3):
    """Short lists, now and then something else."""
    chance = draw(st.integers(0, 40))
    return draw(tiny if chance == 1 else st.lists(one, max_size=most))


def mostly(good, *others):
    """The first of some values in most draws."""
    return st.sampled_from([good] * 12 + [*others])


def label_studio(draw, key):
    points = st.lists(st.lists(side(low), min_size=2, max_size=2), min_size=3)
    value = objects(
        **{key: st.lists(classes, min_size=1, max_size=1), 'points': points},
        **{name: side(low) for name in ('x', 'y', 'width', 'height')},
        rotation=degrees,
    )
    kinds = mostly(key, 'polygonlabels', 'rectangle', 'relation', 'brushlabels')
    result = objects(type=kinds, value=value, image_rotation=mostly(0, 90))
    annotation = objects(
        result=lists(result, 2), was_cancelled=mostly(False, True), updated_at=st.text()
    )
    data = objects(image=names, image_id=names)
    task = objects(data=data, annotations=lists(annotation, 2), drafts=tiny, id=rubbish)
    return json.dumps(draw(lists(task)))


def rectangles(draw):
    return label_studio(draw, 'rectanglelabels')


def choices(draw):
    return label_studio(draw, 'choices')


def coco(draw):
    row = draw(st.permutations(range(3)))
    images = [
        objects(
            id=st.just(number),
            file_name=st.just(image.file_name),
            width=mostly(image.width, 640),
            height=mostly(image.height, 640),
        )
        for number, image in zip(row, IMAGES, strict=True)
    ]
    box = st.tuples(side(low), side(low), side(high), side(high)).map(list)
    annotation = objects(
        image_id=mostly(0, 1, 2, 3),
        category_id=mostly(0, 1, 2),
        bbox=box,
        segmentation=tiny,
        attributes=objects(rotation=degrees),
        iscrowd=mostly(0, 1),
    )
    content = objects(
        images=st.tuples(*images).map(list),
        annotations=lists(annotation, 4),
        categories=st.just([{'id': 0, 'name': 'helmet'}, {'id': 1, 'name': 'hat'}]),
        info=objects(contributor=st.just('Label Studio')),
    )
    return json.dumps(draw(content))


def _xml(text) -> str:
    kept = ''.join(c for c in str(text) if c.isprintable())
    return kept.translate(
        {ord(k): f'&#{ord(k)};' for k in '<&"' + ''.join(map(chr, range(32)))}
    )


def cvat(draw):
    tags = mostly('box', 'polygon', 'tag', 'mask', 'x')
    pairs = st.lists(st.tuples(side(low), side(low)), min_size=3, max_size=4)
    ends = {'xtl': side(low), 'ytl': side(low), 'xbr': side(high), 'ybr': side(high)}
    shape = st.tuples(
        tags,
        objects(label=classes, rotation=degrees, **ends),
        pairs.map(lambda found: ';'.join(f'{x},{y}' for x, y in found)),
    )
    parts = []
    for image in draw(st.lists(st.sampled_from(IMAGES), max_size=3)):
        size = {'width': image.width, 'height': image.height}
        known = {key: mostly(value, 640) for key, value in size.items()}
        fields = draw(objects(name=st.just(image.file_name), **known))
        parts.append(f'<image {_attributes(fields)}>')
        for tag, known, points in draw(st.lists(shape, max_size=3)):
            parts.append(f'<{tag} {_attributes(known)} points="{_xml(points)}"/>')
        parts.append('</image>')
    return f'<annotations>{"".join(parts)}</annotations>'


def _attributes(fields: dict) -> str:
    return ' '.join(f'{key}="{_xml(value)}"' for key, value in fields.items())


def voc(draw):
    ends = {'xmin': side(low), 'ymin': side(low), 'xmax': side(high)}
    box = objects(**ends, ymax=side(high))
    shape = objects(name=classes, difficult=st.integers(0, 1), bndbox=box)
    size = objects(width=mostly(200, 640, 0), height=mostly(120, 0))
    owner = objects(name=mostly('x', 'Label Studio'))
    fields = draw(objects(filename=mostly(NAMES[0], NAMES[1]), size=size, owner=owner))
    inner = ''.join(_tree(key, value) for key, value in fields.items())
    inner += ''.join(_tree('object', one) for one in draw(st.lists(shape, max_size=3)))
    return f'<annotation>{inner}</annotation>'


def _tree(tag: str, value) -> str:
    if isinstance(value, dict):
        known = {k: v for k, v in value.items() if k.isalpha()}
        return f'<{tag}>{"".join(_tree(k, v) for k, v in known.items())}</{tag}>'
    return f'<{tag}>{_xml(value)}</{tag}>'


def yolo(draw):
    share = side(st.floats(0.2, 0.6))
    points = st.lists(share, min_size=4, max_size=8)
    numbers = st.tuples(mostly(0, 1, 7, 'x'), share, share, share, share)
    line = numbers | numbers | numbers | st.tuples(st.just(0), points)
    lines = draw(st.lists(line, max_size=3))
    flat = [[*one[:1], *(one[1] if len(one) == 2 else one[1:])] for one in lines]
    return '\n'.join(' '.join(map(str, one)) for one in flat)


def table(draw):
    head = draw(mostly('image,class', 'class;file', 'image', '"', ''))
    row = st.tuples(names, mostly('helmet', 'hat', '', '"')) | st.tuples(names, rubbish)
    rows = draw(st.lists(row, max_size=4))
    return '\n'.join([head, *(','.join(map(str, one)) for one in rows)])


class_list = mostly(
    yaml.safe_dump({'names': list(CLASSES)}), 'names: [', 'names: {0: helmet, 1: x}'
)

FORMATS = {
    'label_studio': (rectangles, 'a.json', [LabelStudio(), LabelStudio(**LOOSE)]),
    'choices': (choices, 'a.json', [LabelStudioChoices('latest')]),
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
