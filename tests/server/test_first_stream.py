"""The tutorial of streams, word for word: its commands' requests, and its client."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from personalive.media import Image, open_driving
from tests.server.running import running

PAGE = Path(__file__).parents[2] / "docs/tutorial/first-stream.md"
SAMPLES = Path(str(files("personalive") / "samples"))


def section() -> str:
    """Return what the tutorial says of streaming from a program."""
    text = PAGE.read_text(encoding="utf-8")
    return text[text.index("## 3. From a program") :]


def load_request() -> str:
    """The JSON with which it loads a pipeline."""
    found = re.search(r"pipeline/load .*?-d '(\{.*?\})'", section(), re.DOTALL)
    assert found
    return found[1]


def shown_by_client(folder: Path, url: str, key: str | None = None) -> list[Image]:
    """What its client records of that server. With a `key` it sends that, as the documentation says."""
    found = re.search(r"```python\n(.*?)```", section(), re.DOTALL)
    assert found
    program = found[1].replace("http://127.0.0.1:8000", url)
    if key is not None:
        plain = '{"Content-Type": "application/json"}'
        assert plain in program
        program = program.replace(plain, f'{plain} | {{"Authorization": "Bearer {key}"}}')
    (folder / "client.py").write_text(program)
    command = [sys.executable, "client.py", str(SAMPLES / "driving.mp4"), "animated.mp4"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "'expression': 1.2" in done.stdout or '"expression": 1.2' in done.stdout
    with open_driving(folder / "animated.mp4") as video:
        return [frame.image for frame in video]


def assert_animated(shown: list[Image]) -> None:
    assert shown[0].shape == (512, 512, 3)
    assert len(shown) > 20
    assert max(np.abs(frame.astype(int) - shown[5]).mean() for frame in shown[6:]) > 1.0  # it moves


@pytest.mark.slow
def test_a_new_user_gets_animated_frames(tmp_path: Path) -> None:
    with running() as server:
        json = {"Content-Type": "application/json"}
        answer = server.post("/api/v1/pipeline/load", content=load_request(), headers=json)
        assert answer.status_code == 200
        server.wait_until_loaded()
        portrait = (SAMPLES / "portrait.jpg").read_bytes()
        assert server.post("/api/v1/personalive/reference", content=portrait).json()["success"]
        assert_animated(shown_by_client(tmp_path, server.url))
