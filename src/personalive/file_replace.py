"""Gives a finished file its name, also where Windows refuses while another program has the old file open."""

from __future__ import annotations

import time
from pathlib import Path

_IN_USE_ERRORS = frozenset({5, 32, 33})
"""Windows error codes: access denied, which open files cause too; sharing violation; lock violation."""
_RETRY_TIMEOUT_S = 2.0
_RETRY_DELAY_S = 0.05


def is_file_in_use(error: BaseException) -> bool:
    """Return whether the error means that another program has the file open on Windows."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) in _IN_USE_ERRORS


def replace_file(source: Path, target: Path) -> None:
    """Move `source` to `target`, replacing an old file. Raises `OSError`.

    Indexers and virus scanners open new files for a moment: while a file is in use, retry for two seconds.
    """
    deadline = time.monotonic() + _RETRY_TIMEOUT_S
    while True:
        try:
            source.replace(target)
        except PermissionError as error:
            if not is_file_in_use(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_DELAY_S)
        else:
            return
