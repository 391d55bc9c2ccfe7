"""The README's way to an animated picture, word for word: its commands' requests, and its client."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np

from personalive.media import open_driving
from tests.serving.running import running

README = Path(__file__).parents[2] / "README.md"
SAMPLES = Path(str(files("personalive") / "samples"))


def test_a_new_user_gets_animated_frames(tmp_path: Path) -> None:
    text = README.read_text()
    section = text[text.index("## Serve it") :]
    request = re.search(r"pipeline/load .*?-d '(\{.*?\})'", section, re.DOTALL)
    client = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert request
    assert client
    with running() as server:
        json = {"Content-Type": "application/json"}
        answer = server.post("/api/v1/pipeline/load", content=request[1], headers=json)
        assert answer.status_code == 200
        server.wait_until_loaded()
        portrait = (SAMPLES / "portrait.jpg").read_bytes()
        assert server.post("/api/v1/personalive/reference", content=portrait).json()["success"]
        (tmp_path / "client.py").write_text(client[1].replace("http://127.0.0.1:8000", server.url))
        command = [sys.executable, "client.py", str(SAMPLES / "driving.mp4"), "animated.mp4"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    assert "'expression': 1.2" in done.stdout or '"expression": 1.2' in done.stdout
    with open_driving(tmp_path / "animated.mp4") as video:
        shown = [frame.image for frame in video]
    assert shown[0].shape == (512, 512, 3)
    assert len(shown) > 20
    assert max(np.abs(frame.astype(int) - shown[5]).mean() for frame in shown[6:]) > 1.0  # it moves
