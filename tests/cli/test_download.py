"""`download_models` and `personalive download`, against a hub on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from personalive.cli import download
from personalive.pipelines.diffusion.checkpoints import layout
from tests.pipelines.diffusion.checkpoints.download.hub_server import HubServer, assert_complete, serving

if TYPE_CHECKING:
    from tests.cli.conftest import Call

NEXT = "next: personalive weights check, then personalive animate portrait.jpg talking.mp4\n"
COUNT = len([file for file in layout.FILES if not file.optional and not file.fallback])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the weights go when nothing else is said."""
    return tmp_path / "pretrained_weights"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["download_models", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        download.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    for words in ("--pipeline", "--from", "--dry-run", "Examples:", "PERSONALIVE_HOME", "HF_ENDPOINT"):
        assert words in out


@pytest.mark.parametrize("module", ["huggingface_hub", "torch", "filelock", "rich.progress"])
def test_help_imports_nothing_heavy(module: str) -> None:
    check = f"import sys, personalive.cli.download; assert {module!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=30)


def test_it_brings_the_weights_and_says_where_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hub: HubServer, root: Path
) -> None:
    assert call(monkeypatch) == 0
    out, err = capsys.readouterr()
    assert_complete(root, hub)
    assert out.startswith(f"{root}: all {COUNT} files are there, {COUNT} of them fetched now (1.")
    assert out.endswith(NEXT)
    assert err.startswith(f"{layout.LICENCES}\nfetching {COUNT} files into {root}: ")
    assert "\nfetching sd-vae-ft-mse/config.json\n" in err
    hub.requests.clear()
    assert call(monkeypatch) == 0
    out, err = capsys.readouterr()
    assert out == f"{root}: all {COUNT} files are there already (no need to ask the hub)\n{NEXT}"
    assert err == ""
    assert hub.requests == []


def test_the_same_as_a_command_of_personalive(personalive: Call, hub: HubServer, tmp_path: Path) -> None:
    done = personalive("download", "--dir", tmp_path / "here", "--tiny", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert_complete(tmp_path / "here", hub, tiny=True)


def test_a_dry_run_is_a_table(personalive: Call, hub: HubServer, root: Path) -> None:
    done = personalive("download", "--dry-run")
    assert done.code == 0
    assert not root.exists()
    lines = done.out.splitlines()
    assert len(lines) == COUNT + 1
    assert lines[0].split() == [
        *("personalive/reference_unet.pth", "150.0", "kB", "from", "huaichang/PersonaLive@c0ffee000000:"),
        "pretrained_weights/personalive/reference_unet.pth",
    ]
    assert lines[-1].startswith(f"{root}: 1.")
    assert (
        f"to fetch for {COUNT} of {COUNT} files (150.0 kB more if they leave entries to the base UNet), "
        in lines[-1]
    )
    personalive("download", "-q")
    hub.requests.clear()
    assert "is there\n" in personalive("download", "--dry-run").out
    assert hub.requests == []


def test_weights_from_a_folder(personalive: Call, hub: HubServer, root: Path, tmp_path: Path) -> None:
    personalive("download", "-q")
    for name in ("config.json", "diffusion_pytorch_model.bin"):  # what is there cannot be loaded, but is all
        path = root / layout.BASE_UNET.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(hub.content(path.relative_to(root).as_posix()))
    there = tmp_path / "there"
    done = personalive("download", "--from", root, "--dir", there)
    assert done.code == 0
    assert_complete(there, hub, base=True)
    assert f"{there}: all {COUNT + 2} files are there, {COUNT + 2} of them taken over now" in done.out
    assert done.err.startswith(f"{layout.LICENCES}\n")
    assert done.out.endswith(f"next: personalive weights check {there}\n")
    (root / "personalive" / "pose_guider.pth").unlink()
    done = personalive("download", "--from", root, "--dir", tmp_path / "elsewhere")
    assert (done.code, done.out) == (2, "")
    assert "missing: personalive/pose_guider.safetensors or pose_guider.pth." in done.err


def test_the_folder_around_a_set_will_do(personalive: Call, hub: HubServer, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "pretrained_weights").mkdir(parents=True)
    assert personalive("download", "--dir", checkout, "-q").code == 0
    assert_complete(checkout / "pretrained_weights", hub)


def test_revisions(personalive: Call, hub: HubServer) -> None:
    done = personalive("download", "--revision", "huaichang/PersonaLive=nonesuch")
    assert done.code == 2
    assert "has no revision 'nonesuch'" in done.err
    hub.revisions.add("next")
    assert personalive("download", "--revision", "huaichang/PersonaLive=next").code == 0


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--revision", "main"], "--revision takes REPO=REV, not 'main'"),
        (["--revision", "some/one=main"], "No weights come from 'some/one'"),
        (["--from", ".", "--dry-run"], "cannot be combined with"),
        (["--from", ".", "--revision", "a=b"], "cannot be combined with"),
        (["--from", "/no/such/folder"], "is not a folder"),
    ],
)
def test_options_that_cannot_be(personalive: Call, arguments: list[str], words: str) -> None:
    done = personalive("download", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert words in done.err


def test_an_error_is_one_line_that_says_what_to_do(
    personalive: Call, hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = personalive("download")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: HF_HUB_OFFLINE is set")
    assert f"into {root}/sd-vae-ft-mse: diffusion_pytorch_model.safetensors or " in done.err
    assert done.err.count("\n") == 1
    assert hub.requests == []


@pytest.mark.slow
def test_files_that_cannot_be_checked(
    personalive: Call, hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    personalive("download", "-q")
    (root / ".receipt.json").unlink()
    assert "are there already (checked)" in personalive("download").out
    (root / ".receipt.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = personalive("download")
    assert done.code == 0
    assert "are there, but could not be checked against the hub's" in done.out
    assert hub.of("other") == []


def test_the_preview_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--pipeline", "preview") == 0
    assert capsys.readouterr().out == "The preview pipeline needs no download: it is ready.\n"


@pytest.mark.usefixtures("plugins")
def test_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--pipeline", "echo") == 0
    assert call(monkeypatch, "--pipeline", "missing") == 2
    assert call(monkeypatch, "--pipeline", "nonesuch") == 2
    assert "no pipeline 'nonesuch'" in capsys.readouterr().err
