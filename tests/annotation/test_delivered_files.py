"""Files from strangers do no harm."""

import os
import zipfile

import pytest
from deliveries import CLASSES, FIRST, IMAGES, NAMES, deliver, read, told, warned

from tjls_mm.annotation import ClassTable, Cvat, LabelStudio, PascalVoc
from tjls_mm.annotation import delivered_files as module
from tjls_mm.annotation.delivered_files import DeliveredFiles, Unusable
from tjls_mm.errors import InputError

BOMB = '<!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">{}]><annotations>&{};</annotations>'
ENTITIES = ''.join(
    f'<!ENTITY {name} "{10 * f"&{before};"}">'
    for before, name in zip('abcdefgh', 'bcdefghi', strict=True)
)


def table(name=NAMES[0]) -> str:
    return f'image,class\n{name},helmet\n'


@pytest.mark.parametrize(
    'text',
    [
        BOMB.format(ENTITIES, 'i'),
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;'
        '</annotation>',
        '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:1/x.dtd"><annotation/>',
    ],
)
@pytest.mark.parametrize('form', [Cvat(), PascalVoc()])
def test_entities_are_refused(tmp_path, form, text):
    delivery = read(form, deliver(tmp_path / 'a.xml', text))
    assert 'DOCTYPE' in told(delivery) and 'root:' not in told(delivery)


@pytest.mark.parametrize(
    'name',
    ['../evil.csv', '/evil.csv', 'a/../../evil.csv', '..\\evil.csv', 'C:\\evil.csv'],
)
def test_zips_that_lead_out_of_themselves(tmp_path, name):
    with zipfile.ZipFile(tmp_path / 'in.zip', 'w') as file:
        file.writestr(name, table())
        file.writestr('labels.csv', table(NAMES[1]))
    delivery = read(ClassTable(), tmp_path / 'in.zip')
    assert FIRST not in delivery.answers and len(delivery.answers) == 1
    assert 'leads out' in warned(delivery)
    assert sorted(os.listdir(tmp_path)) == ['in.zip']
    assert not (tmp_path.parent / 'evil.csv').exists()


def test_links_are_not_followed(tmp_path):
    secret = deliver(tmp_path / 'secret.csv', table())
    deliver(tmp_path / 'elsewhere' / 'x.csv', table())
    folder = tmp_path / 'delivery'
    deliver(folder / 'labels.csv', table(NAMES[1]))
    (folder / 'link.csv').symlink_to(secret)
    (folder / 'linked').symlink_to(tmp_path / 'elsewhere')
    os.mkfifo(folder / 'pipe.csv')
    delivery = read(ClassTable(), folder)
    assert len(delivery.answers) == 1 and FIRST not in delivery.answers
    assert len(delivery.warnings) == 3
    entry = zipfile.ZipInfo('link.csv')
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / 'links.zip', 'w') as file:
        file.writestr(entry, str(secret))
    assert 'link' in warned(read(ClassTable(), tmp_path / 'links.zip'))


def test_files_that_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(module.DeliveredFiles.read, '__defaults__', (1000,))
    with zipfile.ZipFile(tmp_path / 'bomb.zip', 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('labels.csv', table() + ' ' * 100_000)
    delivery = read(ClassTable(), tmp_path / 'bomb.zip')
    assert 'has more than' in told(delivery) and not delivery.answers
    monkeypatch.setattr(module, 'MAX_FILES', 2)
    for name in 'abc':
        deliver(tmp_path / 'many' / f'{name}.csv', table())
    with pytest.raises(InputError, match='holds 3 files'):
        read(ClassTable(), tmp_path / 'many')


def test_damaged_zips(tmp_path):
    path = tmp_path / 'in.zip'
    path.write_bytes(b'PK')
    with pytest.raises(InputError, match='as a zip'):
        DeliveredFiles(path)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('labels.csv', table() * 50)
    data = bytearray(path.read_bytes())
    data[45:60] = b'\xff' * 15
    path.write_bytes(data)
    assert 'cannot be read' in told(read(ClassTable(), path))


def test_nothing_was_delivered(tmp_path):
    with pytest.raises(InputError, match='does not exist'):
        LabelStudio().read(tmp_path / 'none.json', IMAGES, CLASSES)
    (tmp_path / 'empty').mkdir()
    for form in (LabelStudio(), Cvat(), PascalVoc(), ClassTable()):
        assert 'holds no' in told(read(form, tmp_path / 'empty'))
    with pytest.raises(InputError, match='JSON'):
        with DeliveredFiles(deliver(tmp_path / 'a.json', '[NaN]')) as files:
            module.parse_json(files.read('a.json'))


def test_brackets_without_end_and_huge_numbers():
    digits = b'[1' + b'0' * 5000 + b']'
    for text in (b'[' * 200_000, digits, b'\xff\xfe\x00\xd8', b'\xff'):
        with pytest.raises(Unusable):
            module.parse_json(text)
    deep = '<a>' * 20_000
    with pytest.raises(Unusable):
        module.parse_xml(deep.encode())
    with pytest.raises(Unusable):
        module.parse_xml(b'<?xml version="1.0" encoding="x-none"?><a/>')


def test_hidden_files_of_a_mac_are_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / 'in.zip', 'w') as file:
        file.writestr('__MACOSX/._labels.csv', b'\x00\xff')
        file.writestr('.DS_Store', b'\x00')
        file.writestr('labels.csv', table())
    delivery = read(ClassTable(), tmp_path / 'in.zip')
    assert FIRST in delivery.answers
    assert not delivery.problems and not delivery.warnings
