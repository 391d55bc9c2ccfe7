from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.live.devices import SourceError
from personalive.live.source_spec import SourceKind, parse_source


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", SourceKind.CAMERA),
        ("/dev/video2", SourceKind.CAMERA),
        ("Integrated Camera: HD", SourceKind.CAMERA),
        ("FaceTime HD", SourceKind.CAMERA),
        ("missing.mp4", SourceKind.CLIP),
        ("folder/missing", SourceKind.CLIP),
        ("rtsp://camera/stream", SourceKind.STREAM),
        ("RTSPS://camera/stream", SourceKind.STREAM),
        ("http://camera/video.mjpg", SourceKind.STREAM),
        ("whep:https://server/whep", SourceKind.WHEP),
    ],
)
def test_kinds(text: str, kind: SourceKind) -> None:
    assert parse_source(text).kind is kind


def test_what_exists_is_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk").write_bytes(b"")
    assert parse_source("talk").kind is SourceKind.CLIP
    assert parse_source("talks").kind is SourceKind.CAMERA


@pytest.mark.parametrize("text", ["ftp://server/clip", "file:///etc/passwd", "whep:server", "", "  "])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(SourceError):
        parse_source(text)


@given(
    st.text(st.characters(categories=["L", "N"]), min_size=3),
    st.sampled_from(["rtsp", "https", "whep:https"]),
)
def test_messages_hide_passwords(password: str, scheme: str) -> None:
    spec = parse_source(f"{scheme}://user-name:{password}@camera-host/live")
    assert "user-name" not in spec.name
    assert spec.name.endswith("://camera-host/live")
    assert password in spec.value
