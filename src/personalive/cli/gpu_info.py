"""Facts about GPUs and the tools that build their kernels, each from a file, a program or a library.

`gpu_checks` judges them. Everything works without a GPU, a driver or PyTorch, on Linux, Windows and macOS: unknown
facts are None. PyTorch is queried in a separate process, since importing it takes seconds and gigabytes, and a
broken installation may crash.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personalive.cli.memory_plans import parse_memory_plan
from personalive.pipelines.diffusion.memory.plan import MemoryPlan

_MIB = 2**20
_DRIVER_TIMEOUT_S = 20
_TORCH_TIMEOUT_S = 120
_NVIDIA_SMI_QUERIES = (
    ("name", "memory.total", "memory.free", "driver_version", "compute_cap"),
    ("name", "memory.total", "memory.free", "driver_version"),  # drivers before 510 know no compute_cap
)
_CUDA_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
_PACKAGE_MANAGERS = ("apt", "dnf", "pacman", "zypper", "apk")

_TORCH_QUERY_SCRIPT = """
import json, sys, torch
told = {
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "available": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(),
}
if told["available"]:
    told["architectures"] = torch.cuda.get_arch_list()
    each = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    told["gpus"] = [[gpu.name, [gpu.major, gpu.minor], gpu.total_memory] for gpu in each]
try:
    import triton
    told["triton"] = triton.__version__
except ImportError as error:
    told["triton_error"] = str(error)
if sys.argv[1:] or told["available"]:
    try:
        from personalive.cli.memory_plans import count_memory_plans
        told["plans"] = count_memory_plans()
    except Exception as error:
        told["plans_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU: its name, its compute capability, and its memory in bytes."""

    name: str
    capability: tuple[int, int] | None = None
    total: int | None = None
    free: int | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """The GPUs by the driver's own program; `error` is why it lists none."""

    gpus: tuple[GpuInfo, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TorchInfo:
    """The installed PyTorch. `cuda`: the CUDA that it was built for; `error`: why it cannot be queried.

    `architectures`: what it has kernels for, "sm_86" and so on; `gpus`: those it can use; `plans`: the memory plans
    of the released networks with all defaults, or `plans_error`: why they were not counted.
    """

    version: str | None = None
    cuda: str | None = None
    hip: str | None = None
    available: bool = False
    mps: bool = False
    architectures: tuple[str, ...] = ()
    gpus: tuple[GpuInfo, ...] = ()
    triton: str | None = None
    triton_error: str | None = None
    plans: tuple[MemoryPlan, ...] = ()
    plans_error: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class GpuEnvironment:
    """All facts about this machine's GPUs. `torch` is None where it is not installed.

    `cuda_library_version`: the newest CUDA that the driver's library supports, 13000 for 13.0; `package_manager`:
    the system's package manager.
    """

    system: str = sys.platform
    driver: DriverInfo | None = None
    cuda_library_version: int | None = None
    torch: TorchInfo | None = None
    compiler: str | None = None
    python_headers: Path | None = None
    package_manager: str | None = None
    python: tuple[int, int] = field(default_factory=lambda: (sys.version_info.major, sys.version_info.minor))


def inspect_gpu_environment() -> GpuEnvironment:
    """Gather all facts about this machine. Takes seconds where PyTorch is installed."""
    driver = query_driver()
    return GpuEnvironment(
        driver=driver,
        cuda_library_version=cuda_library_version(),
        torch=query_torch(plans=driver is not None and bool(driver.gpus)),
        compiler=find_compiler(),
        python_headers=find_python_headers(),
        package_manager=next((name for name in _PACKAGE_MANAGERS if shutil.which(name)), None),
    )


def query_driver() -> DriverInfo | None:
    """Run `nvidia-smi` and return its GPUs; None where it is not on the PATH."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    trouble = "it finds no GPU"
    for query in _NVIDIA_SMI_QUERIES:
        command = [program, f"--query-gpu={','.join(query)}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DRIVER_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return DriverInfo(error=f"it does not answer: {error}")
        if done.returncode == 0 and done.stdout.strip():
            return DriverInfo(tuple(_parse_gpu(line) for line in done.stdout.splitlines() if line.strip()))
        trouble = " ".join((done.stderr + done.stdout).split()) or trouble
    return DriverInfo(error=trouble)


def _parse_gpu(line: str) -> GpuInfo:
    """Parse a line of `nvidia-smi`, in which unknown numbers are words in brackets."""
    name, *rest = (part.strip() for part in line.split(","))
    total, free, driver, capability = (*rest, "", "", "", "")[:4]
    major, _, minor = capability.partition(".")
    return GpuInfo(
        name,
        (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None,
        _mib_to_bytes(total),
        _mib_to_bytes(free),
        driver or None,
    )


def _mib_to_bytes(mebibytes: str) -> int | None:
    number = mebibytes.removesuffix("MiB").strip()
    return int(number) * _MIB if number.isdigit() else None


def cuda_library_version(names: Sequence[str] = _CUDA_LIBRARIES) -> int | None:
    """Return the newest CUDA that the driver's library supports, 1000 · major + 10 · minor; None without one."""
    for name in names:
        try:
            library = ctypes.CDLL(name)
            version = ctypes.c_int(0)
            if library.cuDriverGetVersion(ctypes.byref(version)) == 0:
                return version.value
        except (OSError, AttributeError):
            continue
    return None


def query_torch(python: str = sys.executable, *, plans: bool = False) -> TorchInfo | None:
    """Query PyTorch in a process of that Python; return None where it is not installed.

    `plans`: count memory plans even if PyTorch cannot use a GPU.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        done = subprocess.run(
            [python, "-c", _TORCH_QUERY_SCRIPT, *(["plans"] if plans else [])],
            capture_output=True,
            text=True,
            timeout=_TORCH_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return TorchInfo(error=f"it does not answer: {error}")
    if done.returncode:
        return TorchInfo(error=(done.stderr.strip().splitlines() or ["it crashed"])[-1])
    return _parse_torch(json.loads(done.stdout.strip().splitlines()[-1]))


def _parse_torch(told: dict[str, Any]) -> TorchInfo:
    gpus = told.pop("gpus", [])
    architectures = told.pop("architectures", [])
    plans = told.pop("plans", [])
    return TorchInfo(
        **told,
        plans=tuple(parse_memory_plan(each) for each in plans),
        architectures=tuple(architectures),
        gpus=tuple(GpuInfo(name, tuple(capability), total) for name, capability, total in gpus),
    )


def find_compiler() -> str | None:
    """Return the C compiler that Triton would use: $CC, else gcc, else clang."""
    named = os.environ.get("CC")
    if named:
        return shutil.which(named.split()[0])
    return shutil.which("gcc") or shutil.which("clang")


def find_python_headers(folder: Path | None = None) -> Path | None:
    """Return the folder of `Python.h`, if it is where Triton looks for it, or in `folder` if given."""
    scheme = sysconfig.get_default_scheme()
    # This is Debian's own scheme, which Triton does not use either.
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    folder = folder or Path(sysconfig.get_paths(scheme=scheme)["include"])
    return folder if (folder / "Python.h").is_file() else None
