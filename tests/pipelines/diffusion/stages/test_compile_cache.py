from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from personalive.errors import InputError
from personalive.pipelines.diffusion.stages.compile_cache import (
    CACHE_FOLDER,
    enable_compile_cache,
    enable_kernel_cache,
    machine_key,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as most users have it, and as it was afterwards."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_machine_has_a_readable_name_that_another_version_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    name = machine_key(CPU)
    assert name == machine_key(CPU)
    assert name.startswith("cpu-")
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert machine_key(CPU) != name


def test_what_is_compiled_is_kept_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = enable_compile_cache(tmp_path, CPU)
    assert folder == tmp_path / CACHE_FOLDER / machine_key(CPU)
    assert {step.stat().st_mode & 0o777 for step in (folder, folder.parent)} == {0o700}
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
    assert os.environ["TRITON_CACHE_DIR"] == str(folder / "triton")
    assert enable_compile_cache(tmp_path, CPU) == folder


def test_a_folder_that_the_user_named_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    enable_compile_cache(tmp_path, CPU)
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    enable_compile_cache(tmp_path, CPU).chmod(0o770)
    with pytest.raises(InputError, match="holds code that is run, and is not yours alone"):
        enable_compile_cache(tmp_path, CPU)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / CACHE_FOLDER).symlink_to(tmp_path / "other")
    with pytest.raises(InputError, match="not yours alone"):
        enable_compile_cache(tmp_path, CPU)


def test_where_no_folder_can_be_made_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made for compiled code .*compile=off"):
        enable_compile_cache(tmp_path / "file", CPU)


def test_kernels_that_cannot_be_kept_are_made_anew_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    enable_kernel_cache(tmp_path / "file", CPU)
    assert "not kept for the next start" in caplog.text
    assert "TRITON_CACHE_DIR" not in os.environ
    enable_kernel_cache(tmp_path, CPU)
    assert os.environ["TRITON_CACHE_DIR"].startswith(str(tmp_path))
