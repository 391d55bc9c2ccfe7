from __future__ import annotations

import sys

import pytest

from personalive.cli import download

SENTENCE = (
    "The preview pipeline needs no download; released weights come with the personalive pipeline, "
    "which is not part of this version."
)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["download_models", *arguments])
    with pytest.raises(SystemExit) as exit_:
        download.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    assert "--pipeline" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--pipeline", "preview"]])
def test_the_preview_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert call(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out == SENTENCE + "\n"


def test_the_diffusion_pipeline_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--pipeline", "personalive") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: There are no weights to download. {SENTENCE}\n"


@pytest.mark.usefixtures("plugins")
def test_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--pipeline", "echo") == 0
    assert call(monkeypatch, "--pipeline", "missing") == 2
    assert call(monkeypatch, "--pipeline", "nonesuch") == 2
    assert "no pipeline 'nonesuch'" in capsys.readouterr().err
