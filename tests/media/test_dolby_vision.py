from __future__ import annotations

from pathlib import Path

import pytest

from personalive.errors import MediaError
from personalive.media import VideoReader
from personalive.media.dolby_vision import find_incompatible_profile

from .clips import level, write_clip


def record(profile: int, compatible: int) -> bytes:
    """A configuration record, as ETSI's and Dolby's papers have it: 24 bytes."""
    return bytes([1, 0, profile << 1, 1 << 3 | 0b101, compatible << 4]) + bytes(19)


def with_record(path: Path, box: bytes) -> None:
    """Add a box to the video's sample entry, and grow all around it. The index must come last."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"hvcC") - 4
    place = entry + int.from_bytes(data[entry : entry + 4], "big")
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1", b"hev1"):
        begin = data.rfind(name, 0, entry) - 4
        if begin >= 0:
            size = int.from_bytes(data[begin : begin + 4], "big") + len(box)
            data[begin : begin + 4] = size.to_bytes(4, "big")
    data[place:place] = box
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("profile", "compatible", "name", "refused"),
    [
        (5, 0, b"dvcC", True),
        (8, 1, b"dvvC", False),
        (8, 4, b"dvvC", False),
        (10, 0, b"dvvC", True),
        (7, 6, b"dvcC", False),
    ],
)
def test_mp4(tmp_path: Path, profile: int, compatible: int, name: bytes, refused: bool) -> None:
    path = write_clip(tmp_path / "a.mp4", [level(90)] * 3, codec="libx265")
    with_record(path, (32).to_bytes(4, "big") + name + record(profile, compatible))
    if refused:
        with pytest.raises(
            MediaError, match=f"a.mp4 is Dolby Vision profile {profile}, .*convert it to HDR10"
        ):
            VideoReader(path)
    else:
        with VideoReader(path) as reader:
            assert len(list(reader)) == 3


def test_matroska(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    # The header of a file, then a name and the binary element behind it.
    path.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(40) + b"dvcC\x41\xed\x98" + record(5, 0))
    assert find_incompatible_profile(path) == 5


def test_others(tmp_path: Path) -> None:
    for data in (b"", b"GIF89a", bytes(4000), b"\x00\x00\x00\x08ftyp\x00\x00\x00\x00moov"):
        path = tmp_path / "a"
        path.write_bytes(data)
        assert find_incompatible_profile(path) is None
