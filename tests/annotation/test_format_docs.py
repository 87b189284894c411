"""What the page on annotation formats shows runs as it stands there."""

import json
import re

import pytest
from conftest import ROOT
from PIL import Image

from tjls_mm.annotation import read_answers
from tjls_mm.annotation.reading import BoxRules
from tjls_mm.registry import ANNOTATION_FORMATS

PAGE = (ROOT / 'docs' / 'annotation_formats.md').read_text(encoding='utf-8')


def test_the_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data' / 'site1').mkdir(parents=True)
    Image.new('RGB', (20, 10)).save(tmp_path / 'data' / 'site1' / '004.jpg')
    (text,) = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    before, after = text.split('# Later')
    names = {}
    exec(before, names)
    (path,) = tmp_path.glob('to_annotate/*.json')
    (task,) = json.loads(path.read_text())
    assert re.search(r'000001_004_[0-9a-f]{8}\.jpg', task['data']['image'])
    task['annotations'] = [{'result': []}]
    (tmp_path / 'export.json').write_text(json.dumps([task]))
    exec(f'# Later{after}', names)
    assert '1 answered (1 with nothing there)' in capsys.readouterr().out
    assert read_answers('answers.json').answers == {'site1/004.jpg': ()}


@pytest.mark.parametrize('name', sorted(ANNOTATION_FORMATS.module_dict))
def test_every_format_has_a_row(name):
    assert f'| `{name}` |' in PAGE


def test_every_setting_has_a_row():
    for name in (*BoxRules.__dataclass_fields__, 'annotators', 'origin'):
        assert f'| `{name}`' in PAGE
