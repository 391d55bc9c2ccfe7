from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile
from personalive.pipelines.diffusion.checkpoints.file_diagnosis import diagnose_file

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n".encode()
PAGE = "<html><head><title>Sign in</title></head><body>Log in first</body></html>"
NAMES = pytest.mark.parametrize(
    "name", ["denoising_unet.pth", "diffusion_pytorch_model.safetensors", "a.bin"]
)

WRONG = {
    POINTER: "is a Git LFS pointer, not the file that it points to: run git lfs pull",
    POINTER.replace(b"\n", b"\r\n"): "is a Git LFS pointer",
    b"/annex/objects/SHA256E-s123456--00.pth\n": "is a git-annex pointer",
    PAGE.encode(): "is a web page, as sites send that want a log-in or have no such file. Fetch it again.",
    b"\n  <!DOCTYPE html>\n" + PAGE.encode(): "is a web page",
    b"\xef\xbb\xbf<!-- saved from url --><!doctype HTML><p>": "is a web page",
    PAGE.encode("utf-16"): "is a web page",
    b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x"><html xmlns="y"/>': "is a web page",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "is an error message in XML (AccessDenied)",
    b"<Error><Code>\x1b[2J</Code></Error>": "is an error message in XML, as stores send",
    b'{"error": "Invalid username or password."}': 'is JSON, not weights, and begins with \'{"error": ',
    b"Entry not found": "is a text, not weights, and begins with 'Entry not found'. Fetch it again.",
    "Accès refusé\n\n".encode() * 900: "is a text, not weights, and begins with 'Accès refusé Accès",
    b"": "is empty. Fetch it again.",
    bytes(8192): "begins with nothing but zeros, as a download does that has not come to its end.",
    gzip.compress(b"weights"): "is a gzip archive: unpack it, and give what is in it.",
    b"7z\xbc\xaf\x27\x1c\0\4": "is a 7z archive",
}


@NAMES
@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    said = diagnose_file(path)
    assert said is not None
    assert said.startswith(f"{path} {WRONG[content]}")
    assert said.isprintable()
    with pytest.raises(WeightsError) as caught:
        CheckpointFile.open(path)
    assert str(caught.value) == said


def sound(path: Path) -> Path:
    weights = {"a": torch.rand(300), "b": torch.zeros(2, 2)}
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=path.suffix != ".bin")
    return path


@NAMES
def test_sound_files_may_do(tmp_path: Path, name: str) -> None:
    assert diagnose_file(sound(tmp_path / name)) is None


def test_a_config_is_a_text_but_no_page(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"act_fn": "silu"}))
    assert diagnose_file(path) is None
    path.write_bytes(POINTER)
    assert "is a Git LFS pointer" in str(diagnose_file(path))


@pytest.mark.parametrize("kept", [0.9, 0.5])
@NAMES
def test_a_file_that_is_cut_short_is_said_to_be(tmp_path: Path, name: str, kept: float) -> None:
    path = sound(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(WeightsError) as caught:
        CheckpointFile.open(path)
    said = str(caught.value)
    assert said.startswith(f"{path} ")
    assert said.endswith("Fetch it again.")
    if path.suffix == ".safetensors":
        assert f"is cut short: {int(len(content) * kept):,} bytes of {len(content):,} are there." in said
    if path.suffix == ".pth":
        assert "is cut short: " in said


def test_a_file_of_the_other_kind_is_told_its_name(tmp_path: Path) -> None:
    path = tmp_path / "denoising_unet.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    assert diagnose_file(path) == (
        f"{path} is no safetensors file but one of torch.save: name it denoising_unet.pth (.bin for a library's)."
    )
    path = tmp_path / "denoising_unet.pth"
    path.write_bytes(save({"a": torch.zeros(1)}))
    assert diagnose_file(path) == f"{path} is a safetensors file: name it denoising_unet.safetensors."


def test_archives_around_weights_are_to_be_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "inner.pth")
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "inner.pth", "inner.pth")
    with pytest.raises(WeightsError, match=r"is a zip archive that holds 'inner\.pth': unpack it"):
        CheckpointFile.open(path)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("inner.pth"), io.BytesIO())
    with pytest.raises(WeightsError, match="is a tar archive: unpack it"):
        CheckpointFile.open(path)
