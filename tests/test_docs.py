"""What the documentation shows is run as it stands there."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files
from pathlib import Path

import pytest

from personalive.media import open_driving, open_writer, read_provenance
from personalive.media.provenance import Provenance

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "python.md"
SAMPLES = Path(str(files("personalive") / "samples"))
FRAMES = 5


def blocks(text: str) -> list[str]:
    """The Python of a page, each block at its own line so that a traceback names the page's."""
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, block.start(1)) + block.group(1) for block in found]


@pytest.fixture
def folder(tmp_path: Path, test_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page says is there: a portrait, a short clip, small random weights."""
    (tmp_path / "weights").symlink_to(test_weights)
    (tmp_path / "portrait.jpg").symlink_to(SAMPLES / "portrait.jpg")
    with open_driving(SAMPLES / "driving.mp4") as source:
        info, made_with = source.info, Provenance(software="test", pipeline="none", reference_sha256="0" * 64)
        with open_writer(
            tmp_path / "talking.mp4", width=info.width, height=info.height, fps=info.fps, provenance=made_with
        ) as writer:
            for frame in itertools.islice(source, FRAMES):
                writer.write(frame.image)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_python_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared: dict[str, object] = {}
    for block in blocks(PAGE.read_text()):
        exec(compile(block, str(PAGE), "exec"), shared)
    said = capsys.readouterr().out
    assert "(64, 64, 3) uint8" in said
    provenance = read_provenance(folder / "out.mp4")
    assert provenance is not None
    assert provenance["pipeline"] == "personalive"
    assert (folder / "talking.safetensors").exists()
