from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from personalive.cli import weights as command
from personalive.errors import PipelineUnavailableError
from personalive.installation import install_command
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights
from tests.pipelines.diffusion.checkpoints.sets import copied, edit, replaced

if TYPE_CHECKING:
    from tests.cli.conftest import Call

MAIN = "import sys; from personalive.cli.app import main; main()"


Said = tuple[int, str, str]
Run = Callable[..., Said]


@pytest.fixture
def run(personalive: Call) -> Run:
    """Call with arguments; gives the exit code and what was printed, to stdout and to stderr."""

    def call(*arguments: object) -> Said:
        outcome = personalive("weights", *arguments)
        return outcome.code, outcome.out, outcome.err

    return call


def started(*arguments: object) -> Said:
    """The same in a separate process."""
    ran = subprocess.run(
        [sys.executable, "-c", MAIN, "weights", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that everyone shares: nobody may change it."""
    return write_random_weights(tmp_path_factory.mktemp("made") / "set")


@pytest.fixture
def own_set(made: Path, tmp_path: Path) -> Path:
    """A copy of it whose files may be replaced."""
    return copied(made, tmp_path / "set")


@pytest.mark.slow
def test_a_set_is_made_and_checked(tmp_path: Path) -> None:
    code, out, err = started("make-test", tmp_path / "set", "--seed", 4, "--dtype", "float16")
    assert (code, out) == (0, f"Random weights, for tests only, are in {tmp_path / 'set'}.\n")
    assert "writing personalive/denoising_unet.pth\n" in err
    code, out, err = started("check", tmp_path / "set")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["network", "parameters", "stored", "as", "MB", "files"]
    assert [line.split()[0] for line in lines[1:-1]] == [
        "reference_unet",
        "denoising_unet",
        "motion_encoder",
        "motion_extractor",
        "pose_guider",
        "image_encoder",
        "vae",
        "tiny_vae",
    ]
    assert "float16" in lines[2]
    assert lines[2].endswith("denoising_unet.pth, temporal_module.pth")
    assert lines[-1] == "All entries are present and finite."


def test_making_over_something_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    outcome = run("make-test", tmp_path)
    assert outcome == (2, "", f"error: {tmp_path} is not empty: give a new folder.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["make-test"],
        ["make-test", "somewhere", "--size", "huge"],
        ["make-test", "somewhere", "--dtype", "int8"],
        ["make-test", "somewhere", "--seed", "x"],
        ["convert"],
        ["convert", "somewhere", "--dtype", "float64"],
        ["check", "one", "two"],
        ["nonesuch"],
    ],
)
def test_wrong_usage_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["check", "convert", "make-test"])
def test_help_is_there(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "Examples" in out


def test_a_missing_set_says_how_to_get_one(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    place = tmp_path / layout.WEIGHTS_FOLDER
    expected = f"error: {place} is not there. Get the released weights with: personalive download\n"
    assert run("check") == (2, "", expected)
    assert run("convert", tmp_path / "out") == (2, "", expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_set_in_its_place_needs_no_naming(
    run: Run, own_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))
    own_set.rename(tmp_path / layout.WEIGHTS_FOLDER)
    assert run("check", "--quiet") == (0, "", "")


def test_a_missing_file_says_which(run: Run, own_set: Path) -> None:
    path = own_set / "personalive" / "pose_guider.pth"
    path.unlink()
    outcome = run("check", own_set)
    assert outcome == (
        2,
        "",
        f"error: There is no pose_guider in {own_set}: {path} is missing. "
        "Get the released weights with: personalive download\n",
    )


def test_a_damaged_file_says_which_even_when_quiet(run: Run, own_set: Path) -> None:
    path = own_set / "personalive" / "reference_unet.pth"
    replaced(path, path.read_bytes()[:1000])
    code, out, err = run("check", own_set, "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path} is cut short: 1,000 bytes are there, ")
    assert err.endswith("Fetch it again.\n")
    assert err.count("\n") == 1


def test_a_bit_that_fell_over_says_in_which_record(run: Run, own_set: Path) -> None:
    file = own_set / "personalive" / "denoising_unet.pth"
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        record = max(archive.infolist(), key=lambda record: record.file_size)
    place = data.index(record.filename.encode()) + record.file_size // 2
    data[place] ^= 1  # the lowest bit of a number, which is finite still
    replaced(file, bytes(data))
    code, _, err = run("check", own_set)
    assert code == 2
    assert f"{file} is damaged: its record '{record.filename.partition('/')[2]}'" in err


def test_a_file_without_checksums_is_checked_without_them(run: Run, own_set: Path) -> None:
    file = own_set / "personalive" / "denoising_unet.pth"
    state = torch.load(file, weights_only=True)
    file.unlink()  # others may share it
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert run("check", own_set, "--quiet")[0] == 0


def test_a_number_that_is_not_finite_says_where(run: Run, own_set: Path) -> None:
    path = edit(own_set, layout.REFERENCE_UNET, lambda entries: entries["conv_in.bias"].fill_(float("inf")))
    outcome = run("check", own_set)
    assert outcome == (2, "", f"error: {path}: conv_in.bias holds values that are not finite.\n")


@pytest.mark.slow
def test_the_check_is_strict_about_what_is_left_over(run: Run, own_set: Path, tmp_path: Path) -> None:
    path = edit(own_set, layout.POSE_GUIDER, lambda entries: entries.update({"head.weight": torch.zeros(2)}))
    code, out, err = run("check", own_set)
    assert (code, out) == (2, "")
    assert f"{path}: head.weight belongs to no entry of this network" in err
    code, _, err = run("convert", tmp_path / "out", "--from", own_set)
    assert code == 0
    assert err == f"warning: {path}: left out, as nothing in the pose_guider has such a name: head.weight.\n"
    assert run("check", tmp_path / "out", "-q") == (0, "", "")


def test_the_check_says_what_else_is_unusual(run: Run, own_set: Path) -> None:
    def once_rounded(entries: dict[str, Tensor]) -> None:
        for name, value in list(entries.items()):
            entries[f"module.{name}"] = value.half().float() if name.endswith(".pe") else value
            del entries[name]

    path = edit(own_set, layout.TEMPORAL_MODULE, once_rounded)
    code, out, err = run("check", own_set)
    assert code == 0
    assert out.endswith("All entries are present and finite.\n")
    first, second = err.splitlines()
    assert first == f"warning: {path}: 'module.' in its entries' names is taken off."
    assert second.startswith(f"warning: {path}: the file's values are taken for module.")


@pytest.mark.slow
def test_a_set_is_converted_and_checked(run: Run, made: Path, tmp_path: Path) -> None:
    place = tmp_path / "fast"
    arguments = ("convert", place, "--from", made, "--dtype", "float16")
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(f"The converted set is at {place}: ")
    assert out.endswith(" MB.\n")
    code, out, _ = run("check", place)
    assert code == 0
    assert "denoising_unet.safetensors" in out
    assert ".pth" not in out
    assert run(*arguments) == (2, "", f"error: {place} exists already: give a new folder.\n")


def test_without_torch_the_error_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PipelineUnavailableError, match=re.escape(install_command("diffusion"))):
        command._import_torch()
    code, _, err = run("check", tmp_path)
    assert code == 2
    assert err.startswith("error: Weights need PyTorch, which is not installed.")
