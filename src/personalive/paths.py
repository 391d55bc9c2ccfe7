"""The user's folders, also for a user without a name or a home, as in a container."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from personalive.errors import InputError

_GROUP_OR_OTHER_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_dir() -> Path:
    """Return `$PERSONALIVE_HOME`, or PersonaLive's folder in the platform's cache folder.

    Without a home folder, or with one that may not be entered, it is a folder for this user among temporary files.
    Raises `InputError` where another user owns that one, since code in it is executed.
    """
    chosen = os.environ.get("PERSONALIVE_HOME")
    if chosen:
        return expand_user(Path(chosen))
    try:
        folder = _platform_cache_dir()
        folder.exists()  # raises where a folder on the way may not be entered
    except (RuntimeError, PermissionError):
        return _temporary_cache_dir()
    return folder


def expand_user(path: Path) -> Path:
    """Return the path with "~" and "~name" replaced by that user's home folder.

    Raises `InputError` where there is no such user, or the user has no home.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: there is no such home folder. Name the folder in full.") from error


def user_tag() -> str:
    """Return a tag that differs between users of a shared temporary folder; on Windows each user has their own."""
    return str(os.getuid()) if hasattr(os, "getuid") else "user"


def is_owned_by_other_user(path: Path) -> bool:
    """Return whether another user owns the path, on systems with numeric owners. Raises `OSError`."""
    return hasattr(os, "getuid") and path.stat().st_uid != os.getuid()


def is_private_dir(folder: Path, *, forbidden_mode: int) -> bool:
    """Return whether it is a folder, not a link, owned by this user and without permissions of `forbidden_mode`.

    On Windows a user's profile is private. Raises `OSError`.
    """
    if sys.platform == "win32":
        return True
    facts = folder.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & forbidden_mode


def _platform_cache_dir() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "personalive"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "personalive"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "personalive"


def _temporary_cache_dir() -> Path:
    folder = Path(tempfile.gettempdir()) / f"personalive-{user_tag()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        _require_private(folder)
    except OSError as error:
        raise InputError(
            f"There is no home folder, and {folder} cannot be made ({error.strerror or error}): set "
            "PERSONALIVE_HOME to a folder you may write to."
        ) from error
    return folder


def _require_private(folder: Path) -> None:
    if not is_private_dir(folder, forbidden_mode=_GROUP_OR_OTHER_WRITE):
        raise InputError(
            f"{folder} belongs to another user or is open to others: "
            "set PERSONALIVE_HOME to a folder that only you can use."
        )
