"""Output paths: the kind of output that a path asks for, and files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Self, TypeAlias

import av.error

from personalive.errors import InputError, MediaError, OutputExistsError
from personalive.file_names import windows_name_error
from personalive.file_replace import is_file_in_use, replace_file
from personalive.media.partial_files import PartialFileLock, partial_path, remove_stale_partials
from personalive.media.user_paths import check_new_file, is_folder

OutputKind: TypeAlias = Literal["mp4", "mov", "webm", "gif", "png"]

_KINDS: dict[str, OutputKind] = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".webm": "webm",
    ".gif": "gif",
}
_SUPPORTED = ".mp4, .m4v, .mov, .webm, .gif, a folder, or numbered pictures such as out/%05d.png"
_NUMBER = re.compile(r"%0?[0-9]?d")
_DEFAULT_PATTERN = "%05d.png"


def output_kind(path: str | Path) -> OutputKind:
    """Return the kind of output that a path asks for: "mp4", "mov", "webm", "gif", or "png" for numbered pictures.

    An existing folder, a path that ends in a slash and a name without a suffix all mean a folder of numbered
    pictures, as does a pattern such as "out/%05d.png".

    Raises:
        InputError: the path has no name, or an unknown suffix; the message lists the known ones.

    """
    text = os.fspath(path)
    path = Path(path)
    if text.strip() in {"", ".", "-"} or (
        path.name.startswith(".") and not path.suffix and not is_folder(path)
    ):
        raise InputError(f"{text!r} does not name an output file. Use {_SUPPORTED}.")
    if text.endswith(("/", os.sep)) or is_folder(path) or not path.suffix:
        return "png"
    kind = _KINDS.get(path.suffix.lower())
    if kind is not None:
        return kind
    if path.suffix.lower() == ".png":
        if len(_NUMBER.findall(path.name)) == 1 and path.name.count("%") == 1:
            return "png"
        hint = f"{path.with_name(path.stem + '-%05d.png')}"
        raise InputError(f"{path.name} would be a single picture: for numbered ones use {hint} or a folder.")
    raise InputError(f"{path.name}: the type of output is not known. Use {_SUPPORTED}.")


def check_output(path: str | Path, overwrite: bool = False) -> OutputKind:
    """Check early that `path` can be written, and return its kind; see `output_kind`.

    Raises:
        OutputExistsError: the output exists and `overwrite` is False.
        InputError: the suffix is unknown.
        MediaError: the folder for it is missing or cannot be written to.

    """
    kind = output_kind(path)
    path = Path(path)
    if kind == "png":
        folder, pattern = picture_pattern(path)
        check_parent(folder)
        if folder.exists() and not is_folder(folder):
            raise MediaError(f"{folder} is a file: numbered pictures need a folder.")
        if not overwrite and numbered_files(folder, pattern):
            raise pictures_exist_error(folder)
    else:
        check_parent(path)
        check_new_output(path, overwrite)
    return kind


def check_new_output(path: Path, overwrite: bool) -> None:
    """Raise `OutputExistsError` where something is at `path` that may not be overwritten."""
    if path.exists() and not overwrite:
        raise _exists_error(path)


def _exists_error(path: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{path} exists already: choose another name, or allow overwriting (-y, overwrite=True)."
    )


def pictures_exist_error(folder: Path) -> OutputExistsError:
    """Return the error that says that a folder holds numbered pictures."""
    return OutputExistsError(
        f"{folder} holds pictures already: choose another folder, or allow overwriting (-y, overwrite=True)."
    )


def _write_error(path: Path, error: BaseException) -> MediaError:
    """Return the error that says why `path` cannot be written."""
    if is_file_in_use(error):
        return MediaError(
            f"{path} could not be written: another program has it open, a player perhaps. Close it there and run "
            "the same command again."
        )
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return MediaError(f"{path} could not be written: {reason}.")


@contextlib.contextmanager
def translate_write_errors(path: Path, undo: Callable[[], None] | None = None) -> Iterator[None]:
    """Translate what writing to `path` raises to `MediaError`; after any exception call `undo` first."""
    try:
        yield
    except BaseException as error:
        if undo is not None:
            undo()
        if isinstance(error, av.error.FFmpegError | OSError | ValueError):
            raise _write_error(path, error) from error
        raise


def check_parent(path: Path) -> None:
    """Raise `MediaError` unless a file can be written to `path`, by its name, its folder and what exists there."""
    if sys.platform == "win32" and (objection := windows_name_error(path.name)):
        raise MediaError(f"{path} cannot be written: {objection}. Choose another name.")
    check_new_file(path)


def picture_pattern(path: Path) -> tuple[Path, str]:
    """Split the path of numbered pictures into its folder and the pattern of names in it."""
    if path.suffix.lower() == ".png" and not is_folder(path):
        return path.parent, path.name
    return path, _DEFAULT_PATTERN


def numbered_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder whose names match the pattern; none if there is no such folder."""
    before, after = _NUMBER.split(pattern)
    name = re.compile(re.escape(before) + "[0-9]+" + re.escape(after))
    if not is_folder(folder):
        return []
    return [path for path in folder.iterdir() if name.fullmatch(path.name)]


class OutputFile:
    """A file written under a hidden name beside its target, or in `staging`, and renamed once complete.

    `staging` is a folder on the target's file system. As a context manager it commits on exit, and removes what
    was written on an exception. A symbolic link is followed, so that the file it points to is replaced.

    Raises:
        OutputExistsError: the target exists and `overwrite` is False.
        MediaError: the folder is missing or cannot be written to.

    """

    def __init__(self, path: Path, *, overwrite: bool, staging: Path | None = None) -> None:
        self.path = path
        self._overwrite = overwrite
        check_parent(path)
        if is_folder(path):
            raise MediaError(f"{path} is a folder, not a file.")
        check_new_output(path, overwrite)
        self._target = path.resolve()
        remove_stale_partials(self._target.parent)
        self.partial = partial_path(self._target, staging)
        with translate_write_errors(path):
            self.partial.open("xb").close()
            self._lock = PartialFileLock(self.partial)

    def commit(self) -> None:
        """Rename the file to its target. Raises `OutputExistsError` if the name was taken meanwhile."""
        try:
            with translate_write_errors(self.path):
                if self._overwrite:
                    replace_file(self.partial, self._target)
                else:
                    self._place()
        finally:
            self.discard()

    def _place(self) -> None:
        # Only a hard link takes a name atomically and only if it is free.
        try:
            self._target.hardlink_to(self.partial)
        except FileExistsError:
            raise _exists_error(self.path) from None
        except OSError:
            # Not every file system has hard links.
            if self._target.exists():
                raise _exists_error(self.path) from None
            self.partial.rename(self._target)

    def discard(self) -> None:
        """Remove what has been written, if it still has its hidden name."""
        with contextlib.suppress(OSError):
            self.partial.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc: object) -> None:
        if exc_type is None:
            self.commit()
        else:
            self.discard()
