from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from personalive.errors import InputError
from personalive.server.state import hardware
from personalive.server.state.hardware import make_gpu_environment, read_hardware_info, resolve_gpus


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    hardware._list_driver_gpus.cache_clear()
    yield
    hardware._list_driver_gpus.cache_clear()


def driver(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_this_machine() -> None:
    info = read_hardware_info()
    assert info.cpu_count >= 1
    assert info.memory_gb is None or info.memory_gb > 0
    assert info.device in {"cpu", "cuda"}
    assert (info.vram_gb is None) == (info.device == "cpu")


def test_it_does_not_import_pytorch() -> None:
    check = (
        "import sys; from personalive.server.state.hardware import read_hardware_info; "
        "print(read_hardware_info()); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True
    )
    assert "torch=" in done.stdout


def test_the_driver_tells_of_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    driver(tmp_path, "echo 'Some GPU, Ti, 24576'; echo 'Other, 8192'", monkeypatch)
    info = read_hardware_info()
    assert (info.device, info.gpu_name, info.vram_gb, info.gpu_count) == ("cuda", "Some GPU, Ti", 24.0, 2)


@pytest.mark.parametrize("script", ["echo broken; exit 9", "echo nonsense", "exit 0", "echo 'GPU, [N/A]'"])
def test_a_driver_that_does_not_tell_means_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    driver(tmp_path, script, monkeypatch)
    assert read_hardware_info().device == "cpu"


def test_gpus_to_serve_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver(tmp_path, "echo 'One, 24576'; echo 'Other, 8192'", monkeypatch)
    assert resolve_gpus(()) == ()
    assert resolve_gpus(("all",)) == ("0", "1")
    assert resolve_gpus(("1",)) == ("1",)
    with pytest.raises(InputError, match="no GPU 2 here; nvidia-smi shows: 0, 1"):
        resolve_gpus(("0", "2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 3")
    assert resolve_gpus(("all",)) == ("1", "3")
    with pytest.raises(InputError, match="no GPU 0 here; CUDA_VISIBLE_DEVICES names: 1, 3"):
        resolve_gpus(("0",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="names none"):
        resolve_gpus(("all",))


def test_a_process_sees_its_gpu_by_the_drivers_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert make_gpu_environment("") == {}
    assert make_gpu_environment("1") == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert make_gpu_environment("3") == {"CUDA_VISIBLE_DEVICES": "3"}


def test_all_gpus_of_a_machine_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver(tmp_path, "exit 9", monkeypatch)
    with pytest.raises(InputError, match="leave --gpus out"):
        resolve_gpus(("all",))


def test_pytorch_tells_where_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here, so the part of PyTorch that is asked is played by another."""
    gpu = SimpleNamespace(name="Big GPU", total_memory=80 * 2**30)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda _index: gpu
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    info = read_hardware_info()
    assert (info.device, info.gpu_name, info.vram_gb) == ("cuda", "Big GPU", 80.0)
