"""Read the machine's hardware quickly: from PyTorch if it is imported already, else from nvidia-smi."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import BaseModel, Field

from personalive.errors import InputError

_BYTES_PER_GIB = 2**30
_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_QUERY_TIMEOUT_S = 5


class HardwareInfo(BaseModel):
    """The properties of the machine that matter for speed. Memory is in GiB."""

    vram_gb: float | None = Field(None, description="Memory of the first GPU; null without one.")
    device: Literal["cuda", "cpu"]
    gpu_name: str | None = None
    gpu_count: int = 0
    cpu_count: int = Field(description="Cores that this process may use.")
    memory_gb: float | None = Field(None, description="Main memory; null if the system does not report it.")
    torch: str | None = Field(None, description="Version of PyTorch; null if it is not installed.")
    python: str
    system: str


def read_hardware_info() -> HardwareInfo:
    """Read the machine's properties. Blocks for some milliseconds, and for longer the first time."""
    gpus = _list_torch_gpus()
    if gpus is None:
        gpus = _list_driver_gpus()
    first = gpus[0] if gpus else None
    return HardwareInfo(
        vram_gb=None if first is None else first[1],
        device="cpu" if first is None else "cuda",
        gpu_name=None if first is None else first[0],
        gpu_count=len(gpus),
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=_read_memory_gib(),
        torch=_torch_version(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
    )


def resolve_gpus(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the GPUs of a setting such as ("0", "1") or ("all",), as CUDA_VISIBLE_DEVICES takes them.

    Raises `InputError` for a GPU that is not there.
    """
    if not names:
        return ()
    visible = os.environ.get(_VISIBLE_DEVICES)
    if visible is None:
        shown, there = "nvidia-smi shows", [str(number) for number in range(len(_list_driver_gpus()))]
    else:
        shown, there = (
            f"{_VISIBLE_DEVICES} names",
            [part.strip() for part in visible.split(",") if part.strip()],
        )
    if names == ("all",):
        if not there:
            raise InputError(f"There is no NVIDIA GPU here ({shown} none): leave --gpus out.")
        return tuple(there)
    for gpu in names:
        if gpu.isdigit() and gpu not in there:
            known = ", ".join(there) if there else "none"
            raise InputError(f"There is no GPU {gpu} here; {shown}: {known}.")
    return names


def make_gpu_environment(gpu: str) -> dict[str, str]:
    """Return the variables that restrict a process to one GPU of `resolve_gpus`; none for an empty name."""
    if not gpu:
        return {}
    # By default CUDA numbers the fastest GPU first, nvidia-smi by bus. An existing CUDA_VISIBLE_DEVICES
    # uses CUDA's numbers.
    order = {} if _VISIBLE_DEVICES in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {_VISIBLE_DEVICES: gpu, **order}


def _list_torch_gpus() -> tuple[tuple[str, float], ...] | None:
    """Return name and GiB of each GPU that PyTorch can use; None if it is not imported: importing takes seconds."""
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not hasattr(cuda, "get_device_properties"):
        return None
    if not cuda.is_available():
        return ()
    found = (cuda.get_device_properties(index) for index in range(cuda.device_count()))
    return tuple((str(gpu.name), round(gpu.total_memory / _BYTES_PER_GIB, 1)) for gpu in found)


@lru_cache(maxsize=1)
def _list_driver_gpus() -> tuple[tuple[str, float], ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True)
        rows = [line.rsplit(",", 1) for line in done.stdout.splitlines() if line.strip()]
        return tuple((name.strip(), round(float(mebibytes) / 1024, 1)) for name, mebibytes in rows)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def _read_memory_gib() -> float | None:
    if sys.platform == "win32":
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _BYTES_PER_GIB, 1)


def _torch_version() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
