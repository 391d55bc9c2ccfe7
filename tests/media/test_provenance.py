from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from personalive.errors import InputError, MediaError, OutputExistsError
from personalive.media import (
    COMPOSITE_SYNTHETIC,
    TRAINED_ALGORITHMIC_MEDIA,
    Provenance,
    open_writer,
    read_image,
    read_provenance,
    save_image,
)

from .clips import PROVENANCE, frame_count, leftovers, level, patches, write_clip

ODD = Provenance(
    'personalive 1.0 <&> ünïcode "quoted" 人',
    "a&b",
    digital_source_type=COMPOSITE_SYNTHETIC,
    extra={"seed": "7", "Model_Revision": "a<b"},
)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg", "a.webp", "a.PNG"])
@pytest.mark.parametrize("provenance", [PROVENANCE, ODD])
def test_saved_pictures_carry_the_mark(tmp_path: Path, name: str, provenance: Provenance) -> None:
    save_image(tmp_path / name, patches(), provenance)
    values = read_provenance(tmp_path / name)
    assert values is not None
    assert provenance.metadata().items() <= values.items()
    assert np.abs(read_image(tmp_path / name).astype(int) - patches()).mean() < 8


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm", "a.gif"])
def test_odd_text_survives(tmp_path: Path, name: str) -> None:
    with open_writer(tmp_path / name, width=64, height=48, fps=25, provenance=ODD) as writer:
        writer.write(level(1))
    values = read_provenance(tmp_path / name)
    assert values is not None
    assert ODD.metadata().items() <= values.items()
    assert values["model_revision"] == "a<b"


def test_other_software_finds_the_mark(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", patches(), PROVENANCE)
    with PIL.Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.info["Comment"] == PROVENANCE.comment
        assert "Iptc4xmpExt:DigitalSourceType" in picture.info["XML:com.adobe.xmp"]
    save_image(tmp_path / "a.jpg", patches(), PROVENANCE)
    with PIL.Image.open(tmp_path / "a.jpg") as picture:
        assert picture.info["comment"] == PROVENANCE.comment.encode()
        assert TRAINED_ALGORITHMIC_MEDIA in picture.info["xmp"].decode()


def test_the_gif_stays_valid(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    with open_writer(path, width=64, height=48, fps=25, provenance=PROVENANCE) as writer:
        for value in range(5):
            writer.write(level(value * 40))
    data = path.read_bytes()
    assert b"\x21\xfe" + bytes([len(PROVENANCE.comment)]) + PROVENANCE.comment.encode() + b"\0" in data
    assert b"XMP DataXMP<?xpacket" in data
    assert data.endswith(b"\x00\x3b")
    with PIL.Image.open(path) as picture:
        assert frame_count(picture) == 5


def test_unmarked_files(tmp_path: Path) -> None:
    PIL.Image.fromarray(patches()).save(tmp_path / "a.png")
    PIL.Image.fromarray(patches()).save(tmp_path / "a.gif")
    write_clip(tmp_path / "a.mp4", [level(1)])
    (tmp_path / "empty").mkdir()
    for name in ("a.png", "a.gif", "a.mp4", "empty"):
        assert read_provenance(tmp_path / name) is None


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    for name in ("a.mp4", "missing.gif"):
        with pytest.raises(MediaError):
            read_provenance(tmp_path / name)


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
        '<x xmlns:pl="urn:personalive:provenance:1:"><pl:synthetic>true</pl:synthetic><pl:c>&b;</pl:c></x>'
    )
    PIL.Image.fromarray(patches()).save(tmp_path / "a.jpg", xmp=bomb.encode())
    assert read_provenance(tmp_path / "a.jpg") is None


def test_save_image_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_image(path, patches(), PROVENANCE)
    with pytest.raises(OutputExistsError):
        save_image(path, level(1), PROVENANCE)
    save_image(path, level(1), PROVENANCE, overwrite=True)
    assert read_image(path).mean() == 1
    with pytest.raises(InputError, match=r"\.webp"):
        save_image(tmp_path / "a.bmp", patches(), PROVENANCE)
    with pytest.raises(MediaError, match="does not exist"):
        save_image(tmp_path / "missing" / "a.png", patches(), PROVENANCE)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("key", ["", "a b", "<x>", "1a", "ü"])
def test_extra_keys_must_be_plain(key: str) -> None:
    with pytest.raises(InputError):
        Provenance("s", "p", extra={key: "x"})


def test_package_imports_of_ours_only_the_layers_below_it() -> None:
    script = (
        "import sys, personalive.media;"
        "print([m for m in sys.modules if m.startswith('personalive.') and not m.startswith("
        "('personalive.media', 'personalive.closing', 'personalive.errors', 'personalive.file_'))])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
