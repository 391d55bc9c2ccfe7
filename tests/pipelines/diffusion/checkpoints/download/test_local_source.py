from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from personalive.errors import DiskFullError, DownloadError, InputError, MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.convert import convert
from personalive.pipelines.diffusion.checkpoints.download import local_source, staging
from personalive.pipelines.diffusion.checkpoints.download.downloader import download_weights
from personalive.pipelines.diffusion.checkpoints.download.local_source import copy_from_directory
from personalive.pipelines.diffusion.checkpoints.loader import prepare_networks
from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights
from tests.pipelines.diffusion.checkpoints.download.hub_server import (
    HubServer,
    Watcher,
    assert_complete,
    files,
)
from tests.pipelines.diffusion.checkpoints.sets import split_up, stored

REQUIRED = [file for file in layout.FILES if not file.optional and not file.fallback]


@pytest.fixture
def source(hub: HubServer, tmp_path: Path) -> Path:
    """A checkout with the weights in it, written by hand, the base UNet too."""
    source = tmp_path / "checkout"
    for file in layout.FILES:
        name = (file.folder / file.names[-1]).as_posix()
        path = source / "pretrained_weights" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(hub.content(name))
    return source


def no_links(source: Path, target: Path) -> None:
    raise OSError(18, "Invalid cross-device link", str(source))


@pytest.mark.parametrize("inner", ["", "pretrained_weights"])
def test_a_set_is_linked_where_that_can_be(hub: HubServer, source: Path, root: Path, inner: str) -> None:
    outcome = copy_from_directory(source / inner, root)
    assert_complete(root, hub, base=True)
    assert set(outcome.fetched) == files(root)
    assert len(outcome.fetched) == len(REQUIRED) + 2
    assert all((root / name).samefile(source / "pretrained_weights" / name) for name in outcome.fetched)
    assert hub.requests == []
    again = copy_from_directory(source, root)
    assert (again.fetched, again.kept) == ((), outcome.fetched)


def test_and_copied_where_not(
    hub: HubServer, source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    watcher = Watcher()
    outcome = copy_from_directory(source, root, tiny=True, progress=watcher)
    assert_complete(root, hub, tiny=True, base=True)
    last = watcher.steps[-1]
    assert last.all_done == last.all_size == outcome.size
    assert {step.stage for step in watcher.steps} == {"checking", "copying"}
    assert watcher.notes[0] == layout.LICENCES
    assert "14 files" in watcher.notes[1]


def test_links_in_the_source_are_followed(hub: HubServer, source: Path, root: Path) -> None:
    """The hub library's cache is made of them."""
    path = source / "pretrained_weights" / "personalive" / "pose_guider.pth"
    path.rename(source / "blob")
    path.symlink_to("../../blob")
    copy_from_directory(source, root)
    assert_complete(root, hub, base=True)
    assert not (root / "personalive" / "pose_guider.pth").is_symlink()


def test_what_is_missing_is_named_and_nothing_is_copied(source: Path, root: Path) -> None:
    (source / "pretrained_weights" / "personalive" / "pose_guider.pth").unlink()
    (source / "pretrained_weights" / "taesd" / "config.json").unlink()
    words = r"missing: personalive/pose_guider.safetensors or pose_guider.pth\."
    with pytest.raises(MissingWeightsError, match=words):
        copy_from_directory(source, root)
    with pytest.raises(InputError, match=r"pose_guider.pth, taesd/config.json"):
        copy_from_directory(source, root, tiny=True)
    with pytest.raises(InputError, match="is not a folder"):
        copy_from_directory(source / "nowhere", root)
    assert not root.exists()


def test_the_sizes_come_along(source: Path, root: Path) -> None:
    (source / "pretrained_weights" / layout.MODEL_CONFIG).write_text("{}")
    copy_from_directory(source, root)
    assert (root / layout.MODEL_CONFIG).read_text() == "{}"


def test_a_file_that_would_hide_the_copy_is_refused(source: Path, root: Path) -> None:
    rival = root / "personalive" / "pose_guider.safetensors"
    rival.parent.mkdir(parents=True)
    rival.touch()
    with pytest.raises(
        InputError, match=r"pose_guider.safetensors would be used instead of .*pose_guider.pth"
    ):
        copy_from_directory(source, root)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["small", "converted"])
def test_a_set_of_fewer_files_is_taken_when_it_can_be_loaded(tmp_path: Path, root: Path, kind: str) -> None:
    source = write_random_weights(tmp_path / "small")
    if kind == "converted":
        source = convert(source, tmp_path / "converted")
    outcome = copy_from_directory(source, root, tiny=True)
    assert files(root) == set(outcome.fetched) == files(source)
    prepare_networks(root)
    (source / "personalive" / "motion_encoder.pth").unlink(missing_ok=True)
    (source / "personalive" / "motion_encoder.safetensors").unlink(missing_ok=True)
    with pytest.raises(MissingWeightsError, match=r"missing: .*motion_encoder.safetensors or "):
        copy_from_directory(source, root)


def test_without_the_loaders_libraries_every_file_is_needed(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_random_weights(tmp_path / "small")
    monkeypatch.setitem(sys.modules, "personalive.pipelines.diffusion.checkpoints.loader", None)
    with pytest.raises(MissingWeightsError, match=r"missing: sd-image-variations-diffusers/unet/"):
        copy_from_directory(source, root)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["personalive/temporal_module.pth", layout.MODEL_CONFIG])
def test_a_file_that_the_source_does_without_is_refused_in_the_target(
    source: Path, tmp_path: Path, root: Path, name: str
) -> None:
    if name != layout.MODEL_CONFIG:
        source = convert(write_random_weights(tmp_path / "small"), tmp_path / "converted")
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(b"old")
    with pytest.raises(InputError, match=rf"{name} would be used with .*: move it away first"):
        copy_from_directory(source, root)


def test_older_files_are_replaced(hub: HubServer, source: Path, root: Path) -> None:
    old = root / "personalive" / "pose_guider.pth"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    copy_from_directory(source, root)
    assert_complete(root, hub, base=True)


def test_a_copied_set_is_checked_by_the_next_download(hub: HubServer, source: Path, root: Path) -> None:
    path = source / "pretrained_weights" / "personalive" / "pose_guider.pth"
    path.write_bytes(path.read_bytes()[:-100])
    copy_from_directory(source, root)
    assert download_weights(root).fetched == ("personalive/pose_guider.pth",)
    assert_complete(root, hub, base=True)
    assert path.stat().st_size == len(hub.content("personalive/pose_guider.pth")) - 100


def test_an_interrupted_copy_leaves_no_half_file(
    hub: HubServer, source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(local_source, "_CHUNK_BYTES", 1000)

    class Impatient(Watcher):
        def step(self, step: object) -> None:
            super().step(step)  # type: ignore[arg-type]
            if self.steps[-1].done == 5000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_from_directory(source, root, progress=Impatient())
    assert files(root) == set()
    copy_from_directory(source, root)
    assert_complete(root, hub, base=True)


def test_too_little_space_on_another_disk(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "free_space", lambda path: 1_000_000)
    monkeypatch.setattr(os, "link", no_links)
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == source.stat().st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir=elsewhere) as target:
        with pytest.raises(DiskFullError, match="its disk lacks"):
            copy_from_directory(source, Path(target))
        assert files(Path(target)) == set()


def test_a_target_that_cannot_be_made(source: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be written"):
        copy_from_directory(source, source / "pretrained_weights" / "personalive" / "pose_guider.pth")


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n".encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("personalive/pose_guider.pth", POINTER, "is a Git LFS pointer"),
        ("sd-image-variations-diffusers/unet/diffusion_pytorch_model.bin", b"<html>", "is a web page"),
        ("sd-vae-ft-mse/config.json", b"<!doctype html>", "is a web page"),
        ("sd-vae-ft-mse/diffusion_pytorch_model.bin", b"", "is empty"),
        ("personalive/motion_encoder.pth", b"PK\x03\x04" + bytes(range(256)), "is cut short: 260 bytes"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_no_file_of_weights_is_named_before_anything_is_taken(
    source: Path, root: Path, name: str, content: bytes, said: str, whole: bool
) -> None:
    path = source / "pretrained_weights" / name
    path.write_bytes(content)
    if not whole:  # that it is incomplete too is the smaller trouble
        (source / "pretrained_weights" / "personalive" / "reference_unet.pth").unlink()
    with pytest.raises(WeightsError, match=f"{path} {said}"):
        copy_from_directory(source, root)
    assert not root.exists()


def test_a_known_file_must_have_its_hash(source: Path, root: Path) -> None:
    path = source / "pretrained_weights" / "sd-vae-ft-mse" / "diffusion_pytorch_model.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(
        WeightsError, match=f"{path} is damaged: it is as large as the published file, but its hash"
    ):
        copy_from_directory(source, root)
    assert not root.exists()
    path.write_bytes(content[:-1])  # somebody's own, in half precision, say
    watcher = Watcher()
    copy_from_directory(source, root, progress=watcher)
    assert f"{path} is not the published file (by its size), and is taken as it is" in watcher.notes


@pytest.mark.slow
def test_weights_in_several_files_come_with_all_of_them(tmp_path: Path, root: Path) -> None:
    source = write_random_weights(tmp_path / "small")
    path = source / "personalive" / "denoising_unet.pth"
    index = split_up(path.with_suffix(".safetensors"), stored(path))
    path.unlink()
    copy_from_directory(source, root, tiny=True)
    assert {"personalive/" + index.name, "personalive/denoising_unet-00003-of-00003.safetensors"} <= files(
        root
    )
    prepare_networks(root)
    (source / "personalive" / "denoising_unet-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        MissingWeightsError, match=r"00002-of-00003\.safetensors is not there, but its index names it"
    ):
        copy_from_directory(source, tmp_path / "other", tiny=True)


def test_a_set_that_lacks_nothing_but_the_base_says_what_else_is_wrong(tmp_path: Path, root: Path) -> None:
    source = write_random_weights(tmp_path / "small")
    (source / layout.MODEL_CONFIG).unlink()
    with pytest.raises(WeightsError, match=r"has shape .* not "):
        copy_from_directory(source, root)
