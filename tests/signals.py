"""What tests do to processes and ask of users, on every system."""

from __future__ import annotations

import os
import signal
import sys

import pytest

if sys.platform == "win32":
    KILL = signal.SIGTERM  # which ends a process at once there
else:
    KILL = signal.SIGKILL

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def freeze(pid: int) -> None:
    """Stop a process until `thaw`; the test is skipped where that cannot be."""
    if sys.platform == "win32":
        pytest.skip("no process can be frozen on Windows")
    else:
        os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let a frozen process go on."""
    if sys.platform != "win32":
        os.kill(pid, signal.SIGCONT)
