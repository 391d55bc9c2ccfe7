"""A window that shows the picture. It is another process, since on macOS a window needs a main thread."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import struct
import subprocess
import sys
import threading

from personalive.live.targets.target import TargetError, TargetEvents, TargetThread
from personalive.server.sessions.playout_buffer import SentFrame

HEADER = struct.Struct("<II")
"""Width and height, before the pixels of each frame."""
READY, SHOWN, CLOSED, KEY = b"R", b"S", b"C", b"K"
"""What the window's process says: it is open, it has shown a frame, it was closed, a key (one byte follows)."""
_END_TIMEOUT_S = 2.0


class WindowTarget(TargetThread):
    """Shows frames in a window of Tk. The keys that are pressed there count too."""

    def __init__(self, events: TargetEvents) -> None:
        super().__init__("window", events)
        self._process: subprocess.Popen[bytes] | None = None
        self._shown = threading.Semaphore(0)
        self._gone = False
        self._replies = threading.Thread(target=self._read_replies, name="window-replies", daemon=True)

    def _open(self) -> None:
        if importlib.util.find_spec("tkinter") is None:
            raise TargetError(
                "A window needs Tk, which this Python lacks: on Debian and Ubuntu, sudo apt install python3-tk; "
                "with Homebrew, brew install python-tk. Or use another --to."
            )
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "personalive.live.targets.window_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        if self._process.stdout.read(1) != READY:
            said = self._process.communicate()[1]
            reason = said.decode(errors="replace").strip().splitlines()
            raise TargetError(
                f"No window can be opened ({reason[-1] if reason else 'no reason given'}): run this on a machine "
                "with a desktop, or use another --to."
            )
        self._replies.start()

    def _read_replies(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        stream = self._process.stdout
        while (reply := stream.read(1)) not in {b"", CLOSED}:
            if reply == KEY:
                self._events.on_key(stream.read(1).decode("ascii", errors="replace"))
            else:
                self._shown.release()
        self._gone = True
        self._shown.release()
        if not self._stopping:
            self._events.on_target_end(self, None)

    def _send(self, frame: SentFrame) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if self._gone:
            return
        height, width = frame.image.shape[:2]
        with contextlib.suppress(OSError, ValueError):  # it was closed this moment
            self._process.stdin.write(HEADER.pack(width, height))
            self._process.stdin.write(frame.image.data)
            self._process.stdin.flush()
            self._shown.acquire()  # the next frame is the newest then

    def _release(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
