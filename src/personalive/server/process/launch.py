"""Start the process of a pipeline, and describe how it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from personalive.server.process.message_pipe import MessagePipe, SocketStream

_SEND_TIMEOUT_S = 30
"""Seconds after which a process that reads nothing counts as stopped or hung."""
_PYTHON_ARGUMENTS = ("-P", "-m", "personalive.server.process.child")


def start_process(environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], MessagePipe]:
    """Start the process with these variables added to the environment; return it and the pipe to it."""
    # What can be imported here can be imported there, a plugin's folder included.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    variables = {**os.environ, **environment, "PYTHONPATH": path}
    program = [sys.executable, *_PYTHON_ARGUMENTS]
    if sys.platform == "win32":  # where a socket cannot be a standard stream
        process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)
        assert process.stdin is not None
        assert process.stdout is not None
        return process, MessagePipe(process.stdout, process.stdin)  # type: ignore[arg-type]
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours, send_timeout=_SEND_TIMEOUT_S)
    try:
        with theirs:
            process = subprocess.Popen(program, stdin=theirs.fileno(), stdout=theirs.fileno(), env=variables)
    except BaseException:
        stream.close()
        raise
    return process, MessagePipe(stream, stream)


def describe_exit_code(code: int) -> str:
    """Describe how a process ended, by its return code as `subprocess` gives it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, as the system sends when memory runs out" if name == "SIGKILL" else name
