"""What tools rely on: files are complete or not there."""

import pytest

from tjls_mm.files import atomic_path, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / 'a.txt', 'old')
    with pytest.raises(RuntimeError, match='disk'):
        with atomic_path(tmp_path / 'a.txt') as path:
            path.write_text('half')
            raise RuntimeError('disk')
    assert (tmp_path / 'a.txt').read_text() == 'old'
    assert [p.name for p in tmp_path.iterdir()] == ['a.txt']
