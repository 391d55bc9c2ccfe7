"""Paths that users give as inputs, before anything is opened."""

from __future__ import annotations

from pathlib import Path

from personalive.errors import MediaError


def check_is_file(path: Path) -> None:
    """Raise `MediaError` unless `path` is an existing regular file."""
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a directory, not a file.")
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
        # Opening a pipe or a device could wait for ever.
        if not path.is_file():
            raise MediaError(f"{path} is not a regular file.")
    except (OSError, ValueError) as error:
        raise MediaError(f"{str(path)!r} cannot be read: {error}.") from error
