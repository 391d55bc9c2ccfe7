"""The doctor's checks of GPUs: each result is a sentence, with a remedy where there is one.

No GPU check is required to pass: the preview pipeline runs without a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from personalive.cli.card_rates import find_expected_rate
from personalive.cli.check_result import CheckResult
from personalive.cli.gpu_info import DriverInfo, GpuEnvironment, GpuInfo, TorchInfo
from personalive.cli.gpu_memory import check_memory
from personalive.installation import pip_command

MIN_DRIVER = {13: 580, 12: 525, 11: 450}
"""The oldest driver, by CUDA's major version, that runs programs built for any of its minor versions: NVIDIA, CUDA
Compatibility, "Minor Version Compatibility", table 1 (https://docs.nvidia.com/deploy/cuda-compatibility/)."""
_WHEEL_INDEX = "https://download.pytorch.org/whl/"
_CUDA_WHEELS = ((580, "cu130"), (525, "cu126"))
"""Drivers, each with PyTorch's newest build that runs with it and later ones."""
_BLACKWELL = (10, 0)
_BLACKWELL_WHEELS = ((580, "cu130"), (570, "cu128"))
"""From this capability on, cards need newer builds: those for CUDA 12.6 have no kernels for them."""
_NO_TRITON_COST = "the fused kernels are off, and a step takes about twice as long"
_COMPILER_COMMANDS = {
    "apt": "apt install gcc python3-dev",
    "dnf": "dnf install gcc python3-devel",
    "pacman": "pacman -S gcc python",
    "zypper": "zypper install gcc python3-devel",
    "apk": "apk add gcc musl-dev python3-dev",
}
_ANY_COMPILER_COMMAND = "apt install gcc python3-dev; dnf install gcc python3-devel; pacman -S gcc python"


def check_gpus(facts: GpuEnvironment) -> list[CheckResult]:
    """Return all results about GPUs, in the order of display."""
    gpus = _merge_gpus(facts)
    found = [_no_gpu_check(facts)] if not gpus else []
    for number, gpu in enumerate(gpus):
        found += _check_card(f"GPU {number}" if len(gpus) > 1 else "GPU", gpu, facts)
    if gpus and facts.torch is not None:
        found += _check_driver(gpus, facts.torch)
    found += _check_torch(facts, gpus)
    if facts.torch is not None and facts.torch.cuda is not None:
        found += _check_triton(facts, facts.torch)
    return found


def _merge_gpus(facts: GpuEnvironment) -> tuple[GpuInfo, ...]:
    """Return the GPUs that nvidia-smi lists, with their free memory; else those of PyTorch."""
    if facts.driver is not None and facts.driver.gpus:
        return facts.driver.gpus
    return facts.torch.gpus if facts.torch is not None else ()


def _no_gpu_check(facts: GpuEnvironment) -> CheckResult:
    driver = facts.driver or DriverInfo()
    if facts.torch is not None and facts.torch.mps:
        return CheckResult(
            "GPU", None, "Apple's (MPS): the diffusion pipeline runs on it, far below a camera's frame rate"
        )
    if facts.system == "darwin":
        return CheckResult("GPU", None, "none that can be used on this Mac; the preview pipeline needs none")
    if driver.error is not None:
        return CheckResult(
            "GPU",
            None,
            f"nvidia-smi finds none: {driver.error}",
            "With an NVIDIA card in this machine: restart, or reinstall its driver.",
        )
    if facts.cuda_library_version is not None:
        return CheckResult(
            "GPU",
            None,
            f"an NVIDIA driver is there (CUDA {_format_cuda_version(facts.cuda_library_version)}), "
            "but no nvidia-smi",
        )
    return CheckResult("GPU", None, "no NVIDIA driver found; the preview pipeline needs none")


def _check_card(label: str, gpu: GpuInfo, facts: GpuEnvironment) -> Iterator[CheckResult]:
    parts = [gpu.name]
    if gpu.capability is not None:
        parts.append(f"compute capability {gpu.capability[0]}.{gpu.capability[1]}")
    if gpu.total is not None:
        free = "" if gpu.free is None else f", {gpu.free / 2**30:.1f} free"
        parts.append(f"{gpu.total / 2**30:.1f} GiB{free}")
    if gpu.driver is not None:
        parts.append(f"driver {gpu.driver}")
    yield CheckResult(label, None, ", ".join(parts))
    if facts.torch is not None:
        yield from _check_architecture(label, gpu, facts.torch)
    memory = check_memory(label, gpu, facts.torch)
    if memory is not None:
        yield memory
    rate = find_expected_rate(gpu.name)
    if rate is not None:
        yield CheckResult(f"{label}, expected rate", None, rate.message)
    else:
        yield CheckResult(
            f"{label}, expected rate", None, "not known for this card", "Measure: personalive bench --share"
        )


def _check_architecture(label: str, gpu: GpuInfo, torch: TorchInfo) -> Iterator[CheckResult]:
    """Check whether PyTorch was built for a GPU of that capability."""
    if gpu.capability is None or not torch.architectures:
        return
    built = [
        match for each in torch.architectures if (match := re.fullmatch(r"(sm|compute)_(\d+)(\d)a?", each))
    ]
    runs = any(
        (int(each[2]), int(each[3])) <= gpu.capability
        and (each[1] == "compute" or int(each[2]) == gpu.capability[0])
        for each in built
    )
    if not runs:
        yield CheckResult(
            f"{label}, kernels",
            False,
            f"this PyTorch has none for compute capability {gpu.capability[0]}.{gpu.capability[1]}: "
            f"{', '.join(torch.architectures)}",
            _install_sentence("cu126" if gpu.capability < _BLACKWELL else "cu130"),
        )


def _check_driver(gpus: tuple[GpuInfo, ...], torch: TorchInfo) -> Iterator[CheckResult]:
    version = _driver_major(gpus[0].driver)
    if version is None or torch.cuda is None:
        return
    major = int(torch.cuda.partition(".")[0])
    least = MIN_DRIVER.get(major)
    if least is None:
        yield CheckResult("driver", None, f"{gpus[0].driver}; what CUDA {torch.cuda} needs is not known here")
    elif version >= least:
        yield CheckResult(
            "driver", True, f"{gpus[0].driver}; PyTorch for CUDA {torch.cuda} needs {least} or newer"
        )
    else:
        build = _newest_wheel(version, gpus)
        other = f", or use PyTorch for an older CUDA: {_install_sentence(build)}" if build else ""
        yield CheckResult(
            "driver",
            False,
            f"{gpus[0].driver} is too old: PyTorch for CUDA {torch.cuda} needs {least} or newer",
            f"Install NVIDIA's driver {least} or newer{other}",
        )


def _check_torch(facts: GpuEnvironment, gpus: tuple[GpuInfo, ...]) -> Iterator[CheckResult]:
    torch = facts.torch
    if torch is None:
        build = _newest_wheel(_driver_major(gpus[0].driver), gpus) if gpus else None
        yield CheckResult(
            "PyTorch",
            None,
            "not installed; the preview pipeline needs none",
            None if build is None else f"For the diffusion pipeline: {_wheel_command(build)}",
        )
    elif torch.error is not None:
        yield CheckResult(
            "PyTorch",
            None,
            f"installed, but cannot be imported: {torch.error}",
            pip_command("--force-reinstall", "torch"),
        )
    elif torch.available:
        yield CheckResult("PyTorch", True, f"{torch.version}, CUDA {torch.cuda or torch.hip}")
    elif torch.cuda is None and torch.hip is None and (gpus or facts.cuda_library_version is not None):
        yield CheckResult(
            "PyTorch",
            False,
            f"{torch.version} is built without CUDA, and there is an NVIDIA driver: the GPU would not be used",
            _install_sentence(
                _newest_wheel(_driver_major(gpus[0].driver) if gpus else None, gpus) or "cu130"
            ),
        )
    elif torch.cuda is not None and gpus:
        yield CheckResult(
            "PyTorch",
            False,
            f"{torch.version}, CUDA {torch.cuda}, cannot use the GPU that the driver shows",
            "To see the error, run: python -c 'import torch; torch.cuda.init()'",
        )
    else:
        yield CheckResult("PyTorch", None, f"{torch.version}, no GPU to use")


def _check_triton(facts: GpuEnvironment, torch: TorchInfo) -> Iterator[CheckResult]:
    """Check Triton, which builds a small C module on each machine with a compiler and Python's headers."""
    if torch.triton is None:
        package = "triton-windows" if facts.system == "win32" else "triton"
        why = torch.triton_error or "it is not installed"
        yield CheckResult("Triton", None, f"not used ({why}): {_NO_TRITON_COST}", pip_command(package))
        return
    yield CheckResult("Triton", True, torch.triton)
    if facts.system == "win32":  # its package includes a compiler
        return
    missing = [
        what
        for what, there in (
            ("a C compiler", facts.compiler),
            ("Python's headers (Python.h)", facts.python_headers),
        )
        if there is None
    ]
    if missing:
        yield CheckResult(
            "C compiler, headers",
            None,
            f"{' and '.join(missing)} not found, which Triton needs: without them, {_NO_TRITON_COST}",
            _compiler_remedy(facts),
        )
    else:
        yield CheckResult("C compiler, headers", True, f"{facts.compiler}, {facts.python_headers}")


def _compiler_remedy(facts: GpuEnvironment) -> str:
    """Return how to install a C compiler and Python's headers: a command, with a note where it needs one."""
    command = _COMPILER_COMMANDS.get(facts.package_manager or "")
    if command is None:
        return f"Install both: {_ANY_COMPILER_COMMAND}"
    version = f"{facts.python[0]}.{facts.python[1]}"
    note = (
        f" (a Python {version} that is not the system's: python{version}-dev)"
        if facts.package_manager == "apt"
        else ""
    )
    return f"{command}{note}"


def _newest_wheel(driver: int | None, gpus: tuple[GpuInfo, ...]) -> str | None:
    """Return PyTorch's newest build for this driver and these GPUs; the newest of all for an unknown driver."""
    blackwell = any(gpu.capability is not None and gpu.capability >= _BLACKWELL for gpu in gpus)
    wheels = _BLACKWELL_WHEELS if blackwell else _CUDA_WHEELS
    return next((build for least, build in wheels if driver is None or driver >= least), None)


def _wheel_command(build: str) -> str:
    return pip_command(*_index_arguments(build))


def _install_sentence(build: str) -> str:
    return pip_command("--force-reinstall", *_index_arguments(build))


def _index_arguments(build: str) -> tuple[str, ...]:
    return ("torch", "--index-url", _WHEEL_INDEX + build)


def _driver_major(driver: str | None) -> int | None:
    first = (driver or "").partition(".")[0]
    return int(first) if first.isdigit() else None


def _format_cuda_version(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
