"""Checks of paths that users give, with hints where one is invalid or was meant for a shell or a browser."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalive.errors import MediaError

_LONGEST_NAME = 255
"""The longest name in bytes, or in units of UTF-16 on Windows and macOS, which are never more than bytes."""
# `Path` turns the two slashes of an address into one. A single letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\]+")
_PATTERN = re.compile(r"%0?[0-9]?d|\*")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_is_file(path: Path) -> None:
    """Raise `MediaError` unless `path` is an existing regular file: opening a pipe could block forever."""
    check_name(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        hint = _suggest(path, "download it first, and name the file")
        raise MediaError(hint or f"{path} does not exist.") from None
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if stat.S_ISDIR(mode):
        raise MediaError(f"{path} is a directory, not a file.")
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise MediaError(f"{path} is {kind}: save what comes from it to a file first.")


@contextmanager
def translate_read_errors(path: str | Path) -> Iterator[None]:
    """Translate what reading `path` raises to `MediaError`."""
    try:
        yield
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}.") from error


def check_is_file_or_folder(path: Path) -> None:
    """Raise `MediaError` unless `path` is an existing regular file or a folder."""
    check_name(path)
    if not is_folder(path):
        check_is_file(path)


def check_new_file(path: Path) -> None:
    """Raise `MediaError` where no such file can be created, by its name, its folder, or what exists there."""
    check_name(path)
    folder = path.absolute().parent
    if not is_folder(folder):
        hint = _suggest(path, "name a file here, and bring it there afterwards")
        raise MediaError(hint or f"{path} cannot be written: the folder {folder} does not exist.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MediaError(f"{path} cannot be written: no permission to write in {folder}.")
    kind = describe_special_file(path)
    if kind is not None:
        raise MediaError(f"{path} cannot be written: it is {kind}. Name a file, such as out.mp4.")


def describe_special_file(path: Path) -> str | None:
    """Return what exists at the path, in words, if it is neither a file nor a folder; else None."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; False for an invalid path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def check_name(path: Path) -> None:
    """Raise `MediaError` for a path with a name that no system accepts."""
    text = os.fspath(path)
    if "\0" in text:
        shown = text.replace("\0", "\\0")
        raise MediaError(f"{shown} holds a NUL character, which no file's name can.")
    for name in path.parts:
        if (length := _name_length(name)) > _LONGEST_NAME:
            raise MediaError(
                f"{name[:40]}… is a name of {length} bytes: no system takes more than {_LONGEST_NAME}."
            )


def _name_length(name: str) -> int:
    """Return the length of a name in the units that this system counts."""
    if sys.platform == "win32":
        return len(name.encode("utf-16-le", "surrogatepass")) // 2
    return len(os.fsencode(name))


def _suggest(path: Path, instead: str) -> str | None:
    """Return a hint for a path that does not exist, by its probable meaning; `instead` is for addresses."""
    text = os.fspath(path)
    if match := _ADDRESS.match(text):
        return f"{match[1]}://{text[match.end() :]} is an address: {instead}."
    if text == "-":
        return "- stands for standard input or output, which are not used here: name a file."
    if text.startswith("~"):
        try:
            meant = path.expanduser()
        except RuntimeError:
            return f"{text} does not exist: no user of this machine has that home folder."
        return f"{text} does not exist, since the shell has not put the home folder for ~: write {meant}."
    folder = path.absolute().parent
    if _PATTERN.search(path.name) and is_folder(folder):
        return f"{text} does not exist: for numbered pictures, name the folder that holds them, {folder}."
    return None
