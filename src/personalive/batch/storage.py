"""Files on this machine or in a store: checked, read, and written atomically.

A *URI* here is an absolute path of this machine, with "/" between its parts on Windows too, or the URL of a store
that fsspec supports, such as s3://bucket/clips/one.mp4. Paths do not need fsspec.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalive.errors import InputError, MediaError, RemoteStorageError
from personalive.installation import install_command
from personalive.media.output import OutputFile, translate_write_errors
from personalive.media.user_paths import (
    check_is_file,
    check_name,
    describe_special_file,
    translate_read_errors,
)
from personalive.paths import expand_user

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DRIVE = re.compile(r"/[A-Za-z]:/")
# In these stores an upload appears in one step, while a rename is a copy and is not atomic.
_ATOMIC_UPLOAD_SCHEMES = {
    "s3",
    "s3a",
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "az",
    "adl",
    "oci",
    "oss",
    "r2",
    "memory",
}


@dataclass(frozen=True, slots=True)
class FileVersion:
    """The version of a file: its size in bytes, and a version tag that its store keeps."""

    size: int
    version: str


def is_remote(uri: str) -> bool:
    """Return whether the URI is in a store, not on this machine's file system."""
    return _SCHEME.match(uri) is not None


def resolve_uri(text: str, base: str) -> str:
    """Return the URI that a user means by a path or a URL, relative to the URI `base`.

    Raises `InputError` for a relative one outside of `base`, and for one that is not a valid name on any system.
    """
    text = text.strip()
    if "\0" in text:
        check_name(Path(text))
    if text.startswith("file://"):
        text = text.removeprefix("file://").removeprefix("localhost")
        if _DRIVE.match(text):  # Windows: file:///C:/clips
            text = text[1:]
    if is_remote(text):
        return text.rstrip("/")
    path = expand_user(Path(text))
    check_name(path)
    if path.is_absolute():
        return path.as_posix()
    if not is_remote(base):
        return Path(os.path.normpath(Path(base) / path)).as_posix()
    if ".." in path.parts:
        raise InputError(f"{text} is outside of {base}: give its whole URL.")
    return join(base, path.as_posix())


def join(uri: str, *names: str) -> str:
    """Return the URI of `names` below `uri`."""
    return "/".join([uri.rstrip("/") if uri != "/" else "", *names])


def file_name(uri: str) -> str:
    """Return the last part of a URI."""
    return uri.rstrip("/").rpartition("/")[2]


def parent_uri(uri: str) -> str:
    """Return the URI of the folder that holds it."""
    parent = uri.rstrip("/").rpartition("/")[0]
    return parent if parent else "/"


def read_version(uri: str) -> FileVersion | None:
    """Return the current version of a file, or of a local folder of files; None where there is none.

    Raises `RemoteStorageError` where the store does not answer.
    """
    if not is_remote(uri):
        return _read_local_version(Path(uri))
    with _open_store(uri) as (store, path):
        try:
            facts = store.info(path)
        except FileNotFoundError:
            return None
        if facts.get("type") == "directory":
            raise InputError(f"{uri} is a folder: name a file in it.")
        names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "created")
        version = next((str(facts[name]) for name in names if facts.get(name)), "")
        return FileVersion(int(facts.get("size") or 0), version)


def _read_local_version(path: Path) -> FileVersion | None:
    with translate_read_errors(path), contextlib.suppress(FileNotFoundError):
        facts = path.stat()
        if not path.is_dir():
            check_is_file(path)
            return FileVersion(facts.st_size, str(facts.st_mtime_ns))
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        listed = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        digest = hashlib.sha256(repr(listed).encode()).hexdigest()
        return FileVersion(sum(size for _, size, _ in listed), digest)
    return None


def list_files(uri: str) -> list[str]:
    """Return the sorted names of the files in a folder. Raises `MediaError` where there is no such folder."""
    if not is_remote(uri):
        with translate_read_errors(uri):
            return sorted(path.name for path in Path(uri).iterdir() if path.is_file())
    with _open_store(uri) as (store, path):
        try:
            listed = store.ls(path, detail=True)
        except FileNotFoundError:
            raise MediaError(f"{uri} cannot be read: there is no such folder.") from None
        # A store may list a file as its own only entry, and a folder as an empty file with the folder's name.
        names = (file_name(entry["name"]) for entry in listed if entry["type"] == "file")
        return sorted(name for name in names if name not in {"", file_name(uri)})


def is_folder(uri: str) -> bool:
    """Return whether the URI is an existing folder."""
    if not is_remote(uri):
        return Path(uri).is_dir()
    with _open_store(uri) as (store, path):
        return bool(store.isdir(path))


def read_bytes(uri: str) -> bytes | None:
    """Read a small file; return None where there is none. Raises `MediaError` or `RemoteStorageError`."""
    if not is_remote(uri):
        with translate_read_errors(uri), contextlib.suppress(FileNotFoundError):
            if describe_special_file(Path(uri)) is not None:
                check_is_file(Path(uri))
            return Path(uri).read_bytes()
        return None
    with _open_store(uri) as (store, path):
        try:
            data: bytes = store.cat_file(path)
        except FileNotFoundError:
            return None
        return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a small file atomically, replacing an old one. Raises `MediaError` or `RemoteStorageError`."""
    if not is_remote(uri):
        path = Path(uri)
        make_folder(parent_uri(uri))
        with OutputFile(path, overwrite=True) as output, translate_write_errors(path):
            output.partial.write_bytes(data)
        return
    with _open_store(uri) as (store, path_there), _temporary_upload(store, path_there) as target:
        store.pipe_file(target, data)


def download(uri: str, path: Path) -> None:
    """Copy a file to a path of this machine. Raises `MediaError` where there is none, or `RemoteStorageError`."""
    if not is_remote(uri):
        with _translate_errors(uri):
            shutil.copyfile(uri, path)
        return
    with _open_store(uri) as (store, there):
        store.get_file(there, str(path))


def upload(path: Path, uri: str) -> None:
    """Copy a file of this machine to a store, atomically as far as the store supports it."""
    with _open_store(uri) as (store, there), _temporary_upload(store, there) as target:
        store.put_file(str(path), target)


def remove(uri: str) -> None:
    """Remove a file, or a folder with all its contents, if it exists."""
    if not is_remote(uri):
        path = Path(uri)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    with _open_store(uri) as (store, there), contextlib.suppress(FileNotFoundError):
        store.rm(there, recursive=True)


def make_folder(uri: str) -> None:
    """Create a folder if it does not exist; most stores need none."""
    if not is_remote(uri):
        with translate_write_errors(Path(uri)):
            Path(uri).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _temporary_upload(store: Any, path: str) -> Iterator[str]:
    """Yield the path to write a file to that appears at `path` when the block is left."""
    protocols = {store.protocol} if isinstance(store.protocol, str) else set(store.protocol)
    if protocols & _ATOMIC_UPLOAD_SCHEMES:
        yield path
        return
    folder, _, name = path.rpartition("/")
    partial = f"{folder}/.{name}.partial-{uuid.uuid4().hex[:12]}"
    with contextlib.suppress(NotImplementedError):
        store.makedirs(folder, exist_ok=True)
    try:
        yield partial
        if store.exists(path):
            store.rm_file(path)
        store.mv(partial, path)
    except BaseException:
        with contextlib.suppress(Exception):
            store.rm_file(partial)
        raise


@contextlib.contextmanager
def _open_store(uri: str) -> Iterator[tuple[Any, str]]:
    """Yield the store of a URI and the path in it; translate the exceptions of the block."""
    with _translate_errors(uri):
        yield _find_store(uri)


def _find_store(uri: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise InputError(
            f"{uri} needs fsspec, which is not installed. Run: {install_command('cluster')}"
        ) from None
    try:
        store, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:  # the message names the package that this kind of store needs
        raise InputError(f"{uri} cannot be used: {error}") from None
    except ValueError as error:
        raise InputError(f"{uri} is not a URL that fsspec supports: {error}") from None
    return store, path


@contextlib.contextmanager
def _translate_errors(uri: str) -> Iterator[None]:
    """Translate a store's exceptions: lasting ones to `MediaError`, all others to `RemoteStorageError`."""
    try:
        yield
    except (InputError, RemoteStorageError):
        raise
    except FileNotFoundError:
        raise MediaError(f"{uri} cannot be read: no such file.") from None
    except PermissionError as error:
        raise MediaError(f"{uri} cannot be used: {error.strerror or error}.") from error
    except Exception as error:  # every kind of store has its own exceptions
        raise RemoteStorageError(f"{uri} did not answer: {type(error).__name__}: {error}") from error
