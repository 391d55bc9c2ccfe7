from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from personalive.errors import PersonaLiveError
from personalive.face import model_bundle


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation whose data lies in `tmp_path`."""
    (tmp_path / "data").mkdir()
    model_bundle.read_model_bundle.cache_clear()
    monkeypatch.setattr(model_bundle, "files", lambda _package: tmp_path)
    yield tmp_path / "data" / "face_landmarker.task"
    model_bundle.read_model_bundle.cache_clear()


def shipped() -> bytes:
    return files("personalive.face").joinpath("data/face_landmarker.task").read_bytes()


def test_the_shipped_file_is_the_one_we_know() -> None:
    assert hashlib.sha256(model_bundle.read_model_bundle()).hexdigest() == model_bundle.MODEL_SHA256
    assert len(model_bundle.read_model_bundle()) == model_bundle.MODEL_BYTES


def test_one_changed_byte_is_refused(elsewhere: Path) -> None:
    altered = bytearray(shipped())
    altered[len(altered) // 2] ^= 1
    elsewhere.write_bytes(altered)
    with pytest.raises(PersonaLiveError, match=r"damaged or altered .*-m pip install --force-reinstall"):
        model_bundle.read_model_bundle()


def test_a_truncated_file_names_both_sizes(elsewhere: Path) -> None:
    elsewhere.write_bytes(shipped()[:1000])
    with pytest.raises(PersonaLiveError, match=r"1,000 bytes, 3,758,596 expected"):
        model_bundle.read_model_bundle()


def test_a_missing_file_says_how_to_mend_it(elsewhere: Path) -> None:
    assert not elsewhere.exists()
    with pytest.raises(PersonaLiveError, match=r"missing .*-m pip install --force-reinstall"):
        model_bundle.read_model_bundle()


def test_members_of_the_bundle_can_be_read() -> None:
    assert len(model_bundle.read_bundle_member("geometry_pipeline_metadata_landmarks.binarypb")) > 1000
