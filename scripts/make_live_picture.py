"""Make the picture of docs/tutorial/video-call.md: the window and the terminal of `personalive live`, as they are.

    python scripts/make_live_picture.py      # writes docs/images/live-window.jpg

A clip stands in for the camera. The screen is Xvfb's: apt-get install xvfb openbox xterm, and python3-tk where the
Python lacks it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image as Pillow

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "src/personalive/samples"
SCREEN = (1120, 824)
WINDOW, TERMINAL = (55, 8), (55, 622)
"""Their upper left corners. The window takes nine tenths of the screen's width."""
COMMAND = "personalive live portrait.jpg --from talking.mp4 --to window"
OPENBOX = f"""<openbox_config xmlns="http://openbox.org/3.4/rc"><applications>
<application title="PersonaLive"><position force="yes"><x>{WINDOW[0]}</x><y>{WINDOW[1]}</y></position></application>
<application class="XTerm"><position force="yes"><x>{TERMINAL[0]}</x><y>{TERMINAL[1]}</y></position></application>
</applications></openbox_config>"""
XTERM = (
    *("-fa", "DejaVu Sans Mono", "-fs", "12", "-bg", "#1e1e1e", "-fg", "#e6e6e6"),
    *("-T", "Terminal", "-b", "10", "-geometry", "99x8", "+sb"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs/images/live-window.jpg", help="file to write"
    )
    parser.add_argument("--after", type=float, default=30.0, help="seconds until the picture is taken")
    arguments = parser.parse_args()
    for program in ("Xvfb", "openbox", "xterm"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install xvfb openbox xterm")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        shutil.copy(SAMPLES / "portrait.jpg", folder)
        shutil.copy(SAMPLES / "driving.mp4", folder / "talking.mp4")
        (folder / "openbox.xml").write_text(OPENBOX)
        display = stack.enter_context(open_screen())
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "DISPLAY": display, "PATH": path}
        run = (environment, folder)
        ready = folder / "ready"
        manager = ["openbox", "--config-file", str(folder / "openbox.xml"), "--startup", f"touch {ready}"]
        stack.enter_context(running(manager, *run))
        while not ready.exists():  # windows that come before the manager keep a place of their own choice
            time.sleep(0.1)
        # bash itself prints the command that it runs.
        shell = ["bash", "-c", f"PS4='$ '; set -x; {COMMAND}"]
        stack.enter_context(running(["xterm", *XTERM, "-e", *shell], *run))
        time.sleep(arguments.after)
        picture = grab(display)
    picture.save(arguments.out, quality=85, optimize=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB")


@contextlib.contextmanager
def open_screen() -> Iterator[str]:
    """Start Xvfb on a display that is free, and give the display's name."""
    size = f"{SCREEN[0]}x{SCREEN[1]}x24"
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        with os.fdopen(reading) as answer:
            number = answer.readline().strip()
        if not number:
            sys.exit("Xvfb did not start.")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a program until the end of the block."""
    program = subprocess.Popen(command, env=environment, cwd=folder)
    try:
        yield
    finally:
        program.terminate()
        program.wait()


def grab(display: str) -> Pillow.Image:
    """Return what the screen shows."""
    size = f"{SCREEN[0]}x{SCREEN[1]}"
    with av.open(display, format="x11grab", options={"video_size": size, "draw_mouse": "0"}) as screen:
        return Pillow.fromarray(next(screen.decode(video=0)).to_ndarray(format="rgb24"))


if __name__ == "__main__":
    main()
