from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from personalive.batch import storage
from personalive.batch.storage import FileVersion
from personalive.errors import InputError, MediaError, RemoteStorageError


@pytest.mark.parametrize(
    ("text", "base", "place"),
    [
        ("a.mp4", "/jobs", "/jobs/a.mp4"),
        (" sub/../a.mp4 ", "/jobs", "/jobs/a.mp4"),
        ("/abs/a.mp4", "/jobs", "/abs/a.mp4"),
        ("file:///abs/a.mp4", "s3://bucket/x", "/abs/a.mp4"),
        ("a.mp4", "s3://bucket/x", "s3://bucket/x/a.mp4"),
        ("./sub/a.mp4", "s3://bucket/x/", "s3://bucket/x/sub/a.mp4"),
        ("gs://other/a.mp4/", "/jobs", "gs://other/a.mp4"),
        ("C:a.mp4", "/jobs", "/jobs/C:a.mp4"),
    ],
)
def test_paths_and_urls_are_told_apart(text: str, base: str, place: str) -> None:
    assert storage.resolve_uri(text, base) == place


def test_a_relative_path_stays_within_a_store() -> None:
    with pytest.raises(InputError, match="is outside of s3://bucket/x"):
        storage.resolve_uri("../a.mp4", "s3://bucket/x")


def test_names_and_parents() -> None:
    assert storage.join("/", "a") == "/a"
    assert storage.join("s3://b/", "c", "d.mp4") == "s3://b/c/d.mp4"
    assert storage.parent_uri("s3://b/c/d.mp4") == "s3://b/c"
    assert (storage.parent_uri("/a"), storage.file_name("/x/a.mp4")) == ("/", "a.mp4")


@pytest.fixture(params=["path", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, store: str) -> str:
    return str(tmp_path / "folder") if request.param == "path" else store


def test_what_is_written_is_there_and_is_seen_to_change(folder: str) -> None:
    place = storage.join(folder, "sub", "a.txt")
    assert storage.read_bytes(place) is None
    assert storage.read_version(place) is None
    assert not storage.is_folder(folder)
    storage.write_bytes(place, b"one")
    first = storage.read_version(place)
    assert first is not None
    assert first.size == 3
    assert storage.read_version(place) == first
    assert storage.read_bytes(place) == b"one"
    storage.write_bytes(place, b"other")
    assert storage.read_version(place) != first
    storage.write_bytes(storage.join(folder, "b.txt"), b"")
    assert storage.is_folder(folder)
    assert storage.list_files(folder) == ["b.txt"]
    assert storage.list_files(storage.join(folder, "sub")) == ["a.txt"]
    storage.remove(folder)
    storage.remove(folder) if storage.is_remote(folder) else None
    assert storage.read_bytes(place) is None


def test_files_come_and_go_whole(store: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(100_000))
    storage.upload(tmp_path / "big", f"{store}/big")
    storage.download(f"{store}/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()


def test_a_folder_of_pictures_has_a_stamp(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"abc")
    first = storage.read_version(str(tmp_path))
    assert first is not None
    assert first.size == 6
    os.utime(tmp_path / "2.png", ns=(1, 1))
    assert storage.read_version(str(tmp_path)) != first


@pytest.mark.parametrize("ask", [storage.list_files, lambda place: storage.download(place, Path("/nowhere"))])
@pytest.mark.parametrize("base", ["/no/such", "memory://no-such"])
def test_what_is_not_there_is_said(ask: Any, base: str) -> None:
    with pytest.raises(MediaError, match=f"{base}/a cannot be read"):
        ask(f"{base}/a")


def test_what_fsspec_does_not_know_is_said() -> None:
    with pytest.raises(InputError, match="not a URL that fsspec supports"):
        storage.read_bytes("nosuch://a/b")


class Broken:
    """A store that renames, and fails when told."""

    protocol = ("slow",)

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fail = False

    def makedirs(self, path: str, exist_ok: bool) -> None:
        pass

    def pipe_file(self, path: str, data: bytes) -> None:
        self.files[path] = data
        if self.fail:
            raise TimeoutError("gone away")

    def exists(self, path: str) -> bool:
        return path in self.files

    def rm_file(self, path: str) -> None:
        del self.files[path]

    def mv(self, one: str, other: str) -> None:
        self.files[other] = self.files.pop(one)


def test_a_store_that_can_only_rename_never_shows_half_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken()
    monkeypatch.setattr(storage, "_find_store", lambda place: (broken, "dir/a.txt"))
    storage.write_bytes("slow://dir/a.txt", b"one")
    assert broken.files == {"dir/a.txt": b"one"}
    broken.fail = True
    with pytest.raises(RemoteStorageError, match="did not answer: TimeoutError: gone away"):
        storage.write_bytes("slow://dir/a.txt", b"two")
    assert broken.files == {"dir/a.txt": b"one"}


def test_without_fsspec_paths_work_and_urls_say_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    storage.write_bytes(str(tmp_path / "a"), b"x")
    assert storage.read_version(str(tmp_path / "a")) is not None
    with pytest.raises(InputError, match=r"needs fsspec, which is not installed. Run: .*pip install"):
        storage.read_bytes("s3://a/b")


def test_stamps_compare() -> None:
    assert FileVersion(1, "a") == FileVersion(1, "a") != FileVersion(1, "b")
