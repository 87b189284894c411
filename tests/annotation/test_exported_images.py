"""Images for annotators, and the names that they come back under."""

import hashlib

import numpy as np
import pytest
from deliveries import CLASSES, FIRST, IMAGES, NAMES, deliver
from PIL import Image

from tjls_mm.annotation import ImageRecord, Yolo, export_images
from tjls_mm.annotation.image_names import ImageNames
from tjls_mm.errors import InputError


@pytest.mark.parametrize(
    'name',
    [
        NAMES[0],
        f'some/where\\{NAMES[0]}',
        NAMES[0].upper(),
        NAMES[0].replace('.jpg', ''),
        NAMES[0].replace('.jpg', '.png'),
        f'e79d934a-{NAMES[0]}',
        f'cda5fed7__{NAMES[0]}',
        f'{NAMES[0][:-4]}_jpg.rf.0123456789abcdef0123456789abcdef.jpg',
        f'/data/local-files/?d=a%20b%2F{NAMES[0]}',
    ],
)
def test_an_image_is_found_by_what_tools_make_of_its_name(name):
    assert ImageNames(IMAGES).find(name) is IMAGES[0]


@pytest.mark.parametrize('name', ['', '/', '..', 'http://[', '000004.jpg', '?d=', '\0'])
def test_others_are_not_found(name):
    assert ImageNames(IMAGES).find(name) is None


@pytest.mark.parametrize('name', ['a/b.jpg', '..', '', 'x\\y.jpg'])
def test_exported_names_have_no_folders(name):
    with pytest.raises(InputError, match='without folder'):
        ImageNames([ImageRecord('x', name, 1, 1)])


def test_exported_names_differ_in_more_than_case_and_suffix():
    with pytest.raises(InputError, match='differ'):
        ImageNames([ImageRecord('x', 'a.jpg', 1, 1), ImageRecord('y', 'A.png', 1, 1)])


def picture(path, size, orientation=1, mode='RGB'):
    """A grey image with a white left upper quarter, as its file lies."""
    image = Image.new(mode, size, 90 if mode == 'L' else (90, 90, 90))
    image.paste(255 if mode == 'L' else (255,) * 3, (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)
    return path


def test_same_base_names_and_odd_ones_get_names_of_their_own(tmp_path):
    ids = ['a/000004', 'b/000004', 'a/x y&c#1+é', 'Ω']
    path = picture(tmp_path / 'in.jpg', (8, 6))
    records = export_images(tmp_path / 'out', [(one, path) for one in ids])
    assert len({record.file_name for record in records}) == 4
    for record in records:
        assert record.file_name.isascii() and not set(' &#+%') & set(record.file_name)
        content = (tmp_path / 'out' / record.file_name).read_bytes()
        assert content == path.read_bytes()
        assert record.sha256 == hashlib.sha256(content).hexdigest()
    ImageNames(records)
    again = export_images(tmp_path / 'out', [(one, path) for one in ids])
    assert again == records
    # Of another stage, with the same rank.
    (other,) = export_images(tmp_path / 'later', [('b/000004', path)])
    assert other.file_name != records[0].file_name


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exported_images_are_upright(tmp_path, orientation):
    import mmcv

    path = picture(tmp_path / 'in.jpg', (40, 24), orientation)
    (record,) = export_images(tmp_path / 'out', [('a', path)])
    loaded = mmcv.imread(str(path))
    assert (record.height, record.width) == loaded.shape[:2]
    with Image.open(tmp_path / 'out' / record.file_name) as image:
        assert image.size == (record.width, record.height)
        assert image.getexif().get(0x0112, 1) == 1
        # The same picture as training sees, but for JPEG's losses.
        assert np.abs(np.asarray(image) - loaded.astype(float)).mean() < 4


def test_files_that_no_browser_shows_become_png(tmp_path):
    Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(tmp_path / 'deep.tif')
    picture(tmp_path / 'grey.ppm', (8, 6))
    paths = [('deep', tmp_path / 'deep.tif'), ('grey', tmp_path / 'grey.ppm')]
    records = export_images(tmp_path / 'out', paths)
    for record, white in zip(records, (40_000 // 256, 255), strict=True):
        with Image.open(tmp_path / 'out' / record.file_name) as image:
            assert image.format == 'PNG' and image.size == (8, 6)
            assert np.asarray(image.convert('L')).max() == white
    pixels = Image.new('L', (5, 4))
    (record,) = export_images(tmp_path / 'out', [('test/7', pixels)])
    assert (record.width, record.height) == (5, 4)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    bad = tmp_path / 'bad.jpg'
    bad.write_bytes(b'no image')
    with pytest.raises(InputError, match='bad.jpg cannot be exported'):
        export_images(tmp_path / 'out', [('a', bad)])
    assert not list((tmp_path / 'out').glob('*'))


def test_a_renamed_image_is_found_by_its_content(tmp_path):
    path = picture(tmp_path / 'in.jpg', (8, 6))
    (record,) = export_images(tmp_path / 'out', [(FIRST, path)])
    folder = tmp_path / 'delivery'
    deliver(folder / 'labels' / 'helm 1.txt', '0 0.5 0.5 1 1')
    deliver(folder / 'classes.txt', 'helmet')
    assert not Yolo().read(folder, [record], CLASSES).answers
    (folder / 'images').mkdir()
    (folder / 'images' / 'helm 1.jpg').write_bytes(path.read_bytes())
    answers = Yolo().read(folder, [record], CLASSES).answers
    assert answers[FIRST][0].bbox == (0, 0, 8, 6)
