"""Facts from real programs, libraries and files; the programs are small ones that stand on the PATH."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from personalive.cli import gpu_info

Put = Callable[[str, str], Path]

MODERN = "NVIDIA GeForce RTX 3070, 8192, 7412, 580.65.06, 8.6"


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a shell script of that name first on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def script(name: str, text: str) -> Path:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        return program

    return script


def test_the_drivers_program_tells_everything(put: Put) -> None:
    put("nvidia-smi", f"echo '{MODERN}'")
    driver = gpu_info.query_driver()
    assert driver is not None
    (gpu,) = driver.gpus
    assert gpu == gpu_info.GpuInfo("NVIDIA GeForce RTX 3070", (8, 6), 8192 * 2**20, 7412 * 2**20, "580.65.06")


def test_an_old_one_that_knows_no_capability_is_asked_for_less(put: Put) -> None:
    put(
        "nvidia-smi",
        'case "$*" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to query.\'; exit 2;; esac\n'
        "echo 'Tesla T4, 15360, [N/A], 470.57.02'",
    )
    driver = gpu_info.query_driver()
    assert driver is not None
    assert driver.gpus == (gpu_info.GpuInfo("Tesla T4", None, 15360 * 2**20, None, "470.57.02"),)


def test_one_that_finds_no_gpu_says_why(put: Put) -> None:
    put("nvidia-smi", "echo 'No devices were found'; exit 6")
    assert gpu_info.query_driver() == gpu_info.DriverInfo(error="No devices were found")


def test_without_the_program_there_is_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_info.query_driver() is None


def test_the_drivers_library_is_asked_for_its_cuda(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build a library with")
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
    source.write_text("int cuDriverGetVersion(int *version) { *version = 12080; return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    assert gpu_info.cuda_library_version(["/nowhere/libcuda.so", str(library)]) == 12080


def test_a_library_that_is_something_else_is_none(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"not a library")
    assert gpu_info.cuda_library_version([str(tmp_path / "libcuda.so.1")]) is None


@pytest.mark.slow
def test_the_installed_pytorch_is_told_as_it_is() -> None:
    import torch

    told = gpu_info.query_torch()
    assert told is not None
    assert told.error is None
    assert told.version == torch.__version__
    assert told.cuda == torch.version.cuda
    assert told.available == torch.cuda.is_available()


@pytest.mark.slow
def test_memory_plans_are_counted_where_there_is_a_gpu_to_plan_for() -> None:
    plain, planned = gpu_info.query_torch(), gpu_info.query_torch(plans=True)
    assert plain is not None
    assert planned is not None
    assert bool(plain.plans) == plain.available
    assert [plan.name for plan in planned.plans] == ["off", "on", "half", "most", "stream", "least"]
    assert planned.plans_error is None


def test_a_pytorch_that_cannot_be_imported_says_why(put: Put) -> None:
    broken = put("python", "echo 'Traceback' >&2; echo 'ImportError: libcudart.so.13' >&2; exit 1")
    told = gpu_info.query_torch(str(broken))
    assert told is not None
    assert told.error == "ImportError: libcudart.so.13"


def test_what_pytorch_says_of_gpus_is_taken_over(put: Put) -> None:
    talks = put(
        "python",
        "echo 'a warning'\n"
        'echo \'{"version": "2.11.0+cu130", "cuda": "13.0", "hip": null, "available": true, "mps": false, '
        '"architectures": ["sm_80", "sm_90"], "gpus": [["NVIDIA H100", [9, 0], 85000000000]], "triton": "3.6.0"}\'',
    )
    told = gpu_info.query_torch(str(talks))
    assert told is not None
    assert told.gpus == (gpu_info.GpuInfo("NVIDIA H100", (9, 0), 85000000000),)
    assert told.architectures == ("sm_80", "sm_90")
    assert told.triton == "3.6.0"


def test_the_compiler_is_the_one_that_triton_takes(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_info.find_compiler() is None
    clang = put("clang", "exit 0")
    assert gpu_info.find_compiler() == str(clang)
    gcc = put("gcc", "exit 0")
    assert gpu_info.find_compiler() == str(gcc)
    mine = put("mycc", "exit 0")
    monkeypatch.setenv("CC", "mycc -O1")
    assert gpu_info.find_compiler() == str(mine)
    monkeypatch.setenv("CC", "gone")
    assert gpu_info.find_compiler() is None


def test_headers_are_there_where_python_h_is(tmp_path: Path) -> None:
    assert gpu_info.find_python_headers(tmp_path) is None
    (tmp_path / "Python.h").touch()
    assert gpu_info.find_python_headers(tmp_path) == tmp_path


@pytest.mark.slow
def test_this_machine_is_looked_at_without_complaint() -> None:
    facts = gpu_info.inspect_gpu_environment()
    assert facts.system == sys.platform
    assert facts.python == sys.version_info[:2]


def test_pytorchs_process_tells_only_what_is_known_here() -> None:
    told = set(re.findall(r'told\["(\w+)"\]', gpu_info._TORCH_QUERY_SCRIPT))
    assert "plans_error" in told
    assert told <= set(gpu_info.TorchInfo.__dataclass_fields__)
