"""What the documentation shows is run as it stands there."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from personalive.cli.app import app
from personalive.media import open_driving, open_writer, read_provenance
from personalive.media.provenance import Provenance

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/python.md"
TUTORIAL = ROOT / "docs/tutorial/first-picture.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SAMPLES = Path(str(files("personalive") / "samples"))
WRITTEN = [page for page in PAGES if not page.read_text(encoding="utf-8").startswith("<!-- Generated")]
AVOIDED = re.compile(
    r"\b(anew|so many|whatever|of its own|by itself|what of|is let be|may be none|taken down|carried over)\b",
    re.IGNORECASE,
)
FRAMES = 5
COMMAND_LINE = get_command(app)


def blocks(text: str) -> list[str]:
    """The Python of a page, each block at its own line so that a traceback names the page's."""
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, block.start(1)) + block.group(1) for block in found]


def commands(text: str) -> list[list[str]]:
    """Return the commands of this package in the blocks of code of a page, as lists of words.

    Variables before a command, and what a shell does after it, are left out.
    """
    found = []
    for block in re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            plain = re.sub(r"^(\w+\$\s+)?([A-Z_]+=(\$\(.*?\)|\S+) )*", "", line)  # a prompt, and variables
            if not re.match(r"(personalive|download_models)\b", plain):
                continue
            words = shlex.split(plain, comments=True)
            words = list(itertools.takewhile(lambda word: word not in {"|", "&&", ">"}, words))
            if words[:1] == ["download_models"]:
                words = ["personalive", "download", *words[1:]]
            if words[:1] == ["personalive"] and "COMMAND" not in words and "[OPTIONS]" not in words:
                found.append(words)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_pages_are_ones_that_there_are(page: Path) -> None:
    """Their options exist and take such values. Nothing is run."""
    for words in commands(page.read_text(encoding="utf-8")):
        command, rest = COMMAND_LINE, words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]  # type: ignore[attr-defined]
        assert not getattr(command, "commands", None) or rest == [], f"{page.name}: {shlex.join(words)}"
        try:
            command.make_context(words[0], rest)
        except typer.Exit:
            pass
        except Exception as error:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_has_words_to_avoid(page: Path) -> None:
    assert AVOIDED.findall(" ".join(page.read_text(encoding="utf-8").split())) == []


def test_commands_are_found() -> None:
    """A reader of pages that finds nothing would let everything pass."""
    found = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]
    assert len(found) > 80
    assert ["personalive", "animate", "portrait.jpg", "talking.mp4"] in found


@pytest.mark.slow
def test_the_tutorial_of_pictures_runs(folder: Path) -> None:
    """Its commands with the preview pipeline, one after the other, on a short clip."""
    told = [words for words in commands(TUTORIAL.read_text(encoding="utf-8")) if "preview" in words]
    assert len(told) == 3
    for words in told:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    for name in ("portrait_talking.mp4", "compare.mp4", "absolute.mp4"):
        provenance = read_provenance(folder / name)
        assert provenance is not None
        assert provenance["pipeline"] == "preview"


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
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        exec(compile(block, str(PAGE), "exec"), shared)
    said = capsys.readouterr().out
    assert "(64, 64, 3) uint8" in said
    provenance = read_provenance(folder / "out.mp4")
    assert provenance is not None
    assert provenance["pipeline"] == "personalive"
    assert (folder / "talking.safetensors").exists()
