"""A new folder that appears only when it is complete; after a failure or Ctrl-C, nothing is left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from personalive.errors import InputError
from personalive.file_replace import replace_file
from personalive.media.partial_files import PartialFileLock, partial_path, remove_stale_partials


@contextmanager
def atomic_dir(out: Path) -> Iterator[Path]:
    """Yield a folder to write to, inside a hidden one beside `out`; it becomes `out` when the block ends.

    `out` must not exist, or be an empty folder. Raises `InputError` when writing fails.
    """
    out = out.absolute()
    made = [parent for parent in out.parents if not parent.exists()]
    hidden: Path | None = None
    hold: PartialFileLock | None = None
    try:
        for parent in reversed(made):
            parent.mkdir(exist_ok=True)
        remove_stale_partials(out.parent)
        hidden = partial_path(out)
        hidden.mkdir(mode=0o700)
        hold = PartialFileLock(hidden)
        partial = hidden / "set"  # a subfolder, since only the hidden folder is closed to other users
        partial.mkdir()
        yield partial
        if out.exists():
            for part in partial.iterdir():
                replace_file(part, out / part.name)
        else:
            replace_file(partial, out)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
        if hold is not None:
            hold.release()
        if not out.exists():
            _remove_empty_dirs(made)


def _remove_empty_dirs(folders: list[Path]) -> None:
    """Remove those folders, innermost first, as long as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
