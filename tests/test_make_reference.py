"""The generated pages: complete, and the same on every machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import make_reference
from typer.main import get_command

from personalive.cli.app import app
from personalive.pipelines import registry

ROOT = Path(__file__).parents[1]


def test_every_option_of_every_command_is_on_the_page() -> None:
    page = make_reference.cli_page()
    for name, command in make_reference.walk(get_command(app), "personalive"):
        section = page[page.index(f"\n## {name}\n") :]
        for option in command.params:
            if not getattr(option, "hidden", False) and option.name != "help":
                assert all(f"`{spelling}" in section for spelling in option.opts if spelling.startswith("-"))


def test_every_parameter_is_on_the_page() -> None:
    page = make_reference.parameters_page()
    for name in make_reference.PIPELINES:
        pipeline = registry.get_pipeline(name)
        section = page[page.index(f"\n## {name}\n") :]
        for parameter in {**pipeline.load_parameters.model_fields, **pipeline.run_parameters.model_fields}:
            assert f"| `{parameter}` |" in section


def test_a_stale_page_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_reference, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_reference.py", "--check"])
    assert make_reference.main() == 1
    assert "docs/reference/cli.md is stale" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["make_reference.py"])
    assert make_reference.main() == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes()
        for path in (ROOT / "docs/reference").iterdir()
        if path.name in written(tmp_path)
    }


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_the_pages_do_not_depend_on_the_machine(tmp_path: Path) -> None:
    """Neither on the terminal, nor on what is set, nor on whose home it is."""
    machine = {
        "HOME": str(tmp_path),
        "USERPROFILE": str(tmp_path),
        "PERSONALIVE_HOME": str(tmp_path / "other"),
        "PERSONALIVE_PORT": "9000",
        "PERSONALIVE_HOST": "0.0.0.0",
        "COLUMNS": "40",
        "LANG": "C",
        "PYTHONUTF8": "0",
        "TERM": "dumb",
        "FORCE_COLOR": "1",
    }
    command = [sys.executable, str(ROOT / "scripts/make_reference.py"), "--check"]
    done = subprocess.run(
        command, env=os.environ | machine, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
