from __future__ import annotations

from pathlib import Path

import pytest

from personalive.errors import MediaError
from personalive.jobs.fingerprint import _hash_path, differing_keys


def test_differences_are_named_whichever_side_lacks_them() -> None:
    assert differing_keys({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 4, "d": None, "e": 0}) == ["a", "c", "e"]


def test_a_folder_is_its_pictures_and_their_names(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"one")
    (tmp_path / "2.png").write_bytes(b"two")
    before = _hash_path(tmp_path)
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert _hash_path(tmp_path) == before
    (tmp_path / "2.png").rename(tmp_path / "0.png")
    assert _hash_path(tmp_path) != before


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be read"):
        _hash_path(tmp_path / "missing.mp4")
