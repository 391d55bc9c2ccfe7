"""The limit on a process's open files, which include sockets."""

from __future__ import annotations

import contextlib
import sys

_UNLIMITED = 1_000_000


def raise_open_file_limit(wanted: int) -> int:
    """Let this process open `wanted` files, or as many as the system grants; return how many these are.

    macOS begins with 256, many Linux systems with 1024, and both grant more on request.
    """
    if sys.platform == "win32":
        return _UNLIMITED
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _UNLIMITED if soft == resource.RLIM_INFINITY else soft
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    return int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
