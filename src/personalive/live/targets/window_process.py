"""The process of a window: frames on standard input, replies on standard output."""

from __future__ import annotations

import signal
import sys
import threading
import tkinter
from typing import BinaryIO

import PIL.Image
import PIL.ImageTk

from personalive.live.targets.window import CLOSED, HEADER, KEY, READY, SHOWN

_TITLE = "PersonaLive"
_POLL_MS = 4
_SCREEN_SHARE = 0.9
"""How much of the screen's sides the window takes at most; a larger picture is shown smaller."""


class FrameWindow:
    """A window that shows the newest frame of a stream, and writes a reply for each."""

    def __init__(self, frames: BinaryIO, replies: BinaryIO) -> None:
        self._frames = frames
        self._replies = replies
        self._newest: PIL.Image.Image | None = None
        self._ended = False
        self._root = tkinter.Tk()
        self._root.title(_TITLE)
        self._root.configure(background="black")
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        self._root.bind("<Key>", self._on_key)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._photo: PIL.ImageTk.PhotoImage | None = None

    def run(self) -> None:
        """Show frames until the stream ends or the window is closed."""
        threading.Thread(target=self._read, daemon=True).start()
        self._reply(READY)
        self._root.after(_POLL_MS, self._poll)
        self._root.mainloop()

    def _read(self) -> None:
        while len(header := self._frames.read(HEADER.size)) == HEADER.size:
            width, height = HEADER.unpack(header)
            pixels = self._frames.read(3 * width * height)
            if len(pixels) < 3 * width * height:
                break
            self._newest = PIL.Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)
        self._ended = True

    def _poll(self) -> None:
        image, self._newest = self._newest, None
        if image is not None:
            self._show(self._fit(image))
            self._reply(SHOWN)
        if self._ended:
            self._root.destroy()
            return
        self._root.after(_POLL_MS, self._poll)

    def _fit(self, image: PIL.Image.Image) -> PIL.Image.Image:
        most = (self._root.winfo_screenwidth(), self._root.winfo_screenheight())
        scale = min(_SCREEN_SHARE * most[0] / image.width, _SCREEN_SHARE * most[1] / image.height, 1.0)
        if scale == 1.0:
            return image
        return image.resize((round(image.width * scale), round(image.height * scale)))

    def _show(self, image: PIL.Image.Image) -> None:
        if self._photo is None or (self._photo.width(), self._photo.height()) != image.size:
            self._photo = PIL.ImageTk.PhotoImage(image)
            self._label.configure(image=self._photo)
        else:
            self._photo.paste(image)
        self._root.update_idletasks()

    def _on_key(self, event: tkinter.Event[tkinter.Misc]) -> None:
        if len(event.char) == 1 and event.char.isascii():
            self._reply(KEY + event.char.encode())

    def _close(self) -> None:
        self._reply(CLOSED)
        self._root.destroy()

    def _reply(self, reply: bytes) -> None:
        try:
            self._replies.write(reply)
            self._replies.flush()
        except OSError:
            self._ended = True


def main() -> None:
    """Open the window. Ctrl-C in the terminal ends the program that sends the frames, and so this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    FrameWindow(sys.stdin.buffer, sys.stdout.buffer).run()


if __name__ == "__main__":
    main()
