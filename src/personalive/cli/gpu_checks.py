"""What the doctor makes of a GPU's facts: each finding a sentence and, where something can be done, what.

None of it is required: the preview pipeline runs without a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from personalive.cli.card_rates import expected
from personalive.cli.check_result import Check
from personalive.cli.gpu_info import Driver, Facts, Gpu, Torch
from personalive.cli.gpu_memory import memory_check
from personalive.installation import pip_command

LEAST_DRIVER = {13: 580, 12: 525, 11: 450}
"""CUDA's major version → the oldest driver that runs programs built for any of its minor versions: NVIDIA, CUDA
Compatibility, "Minor Version Compatibility", table 1 (https://docs.nvidia.com/deploy/cuda-compatibility/)."""
_INDEX = "https://download.pytorch.org/whl/"
_WHEELS = ((580, "cu130"), (525, "cu126"))
"""From which driver on, and which of PyTorch's builds it runs."""
_BLACKWELL = (10, 0)
_BLACKWELL_WHEELS = ((580, "cu130"), (570, "cu128"))
"""The same for cards from this capability on, which builds for CUDA 12.6 have no kernels for."""
_COST = "the fused kernels are off, and a step takes about twice as long"
_COMPILERS = {
    "apt": "apt install gcc python3-dev",
    "dnf": "dnf install gcc python3-devel",
    "pacman": "pacman -S gcc python",
    "zypper": "zypper install gcc python3-devel",
    "apk": "apk add gcc musl-dev python3-dev",
}
_ANY = "apt install gcc python3-dev; dnf install gcc python3-devel; pacman -S gcc python"


def gpu_checks(facts: Facts) -> list[Check]:
    """Everything there is to say of GPUs, in the order it is shown."""
    gpus = _all_gpus(facts)
    found = [_no_gpu(facts)] if not gpus else []
    for number, gpu in enumerate(gpus):
        found += _card(f"GPU {number}" if len(gpus) > 1 else "GPU", gpu, facts)
    if gpus and facts.torch is not None:
        found += _driver(gpus, facts.torch)
    found += _torch(facts, gpus)
    if facts.torch is not None and facts.torch.cuda is not None:
        found += _triton(facts, facts.torch)
    return found


def _all_gpus(facts: Facts) -> tuple[Gpu, ...]:
    """By the driver's program, which knows what is free; else by PyTorch."""
    if facts.driver is not None and facts.driver.gpus:
        return facts.driver.gpus
    return facts.torch.gpus if facts.torch is not None else ()


def _no_gpu(facts: Facts) -> Check:
    driver = facts.driver or Driver()
    if facts.torch is not None and facts.torch.mps:
        return Check(
            "GPU", None, "Apple's (MPS): the diffusion pipeline runs on it, far from the rate of a camera"
        )
    if facts.system == "darwin":
        return Check("GPU", None, "none that is used on this Mac; the preview pipeline needs none")
    if driver.trouble is not None:
        return Check(
            "GPU",
            None,
            f"nvidia-smi finds none: {driver.trouble}",
            "With an NVIDIA card in this machine: restart, or install its driver anew.",
        )
    if facts.library is not None:
        return Check(
            "GPU", None, f"an NVIDIA driver is there (CUDA {_cuda(facts.library)}), but no nvidia-smi"
        )
    return Check("GPU", None, "no NVIDIA driver found; the preview pipeline needs none")


def _card(label: str, gpu: Gpu, facts: Facts) -> Iterator[Check]:
    parts = [gpu.name]
    if gpu.capability is not None:
        parts.append(f"compute capability {gpu.capability[0]}.{gpu.capability[1]}")
    if gpu.total is not None:
        free = "" if gpu.free is None else f", {gpu.free / 2**30:.1f} free"
        parts.append(f"{gpu.total / 2**30:.1f} GiB{free}")
    if gpu.driver is not None:
        parts.append(f"driver {gpu.driver}")
    yield Check(label, None, ", ".join(parts))
    if facts.torch is not None:
        yield from _kernels(label, gpu, facts.torch)
    memory = memory_check(label, gpu, facts.torch)
    if memory is not None:
        yield memory
    rate = expected(gpu.name)
    if rate is not None:
        yield Check(f"{label}, expected rate", None, rate.sentence)
    else:
        yield Check(
            f"{label}, expected rate", None, "not known for this card", "Measure: personalive bench --share"
        )


def _kernels(label: str, gpu: Gpu, torch: Torch) -> Iterator[Check]:
    """Whether PyTorch was built for a GPU of that capability."""
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
        yield Check(
            f"{label}, kernels",
            False,
            f"this PyTorch has none for compute capability {gpu.capability[0]}.{gpu.capability[1]}: "
            f"{', '.join(torch.architectures)}",
            _install("cu126" if gpu.capability < _BLACKWELL else "cu130"),
        )


def _driver(gpus: tuple[Gpu, ...], torch: Torch) -> Iterator[Check]:
    version = _number(gpus[0].driver)
    if version is None or torch.cuda is None:
        return
    major = int(torch.cuda.partition(".")[0])
    least = LEAST_DRIVER.get(major)
    if least is None:
        yield Check("driver", None, f"{gpus[0].driver}; what CUDA {torch.cuda} needs is not known here")
    elif version >= least:
        yield Check("driver", True, f"{gpus[0].driver}; PyTorch for CUDA {torch.cuda} needs {least} or newer")
    else:
        build = _build(version, gpus)
        other = f", or take PyTorch for an older CUDA: {_install(build)}" if build else ""
        yield Check(
            "driver",
            False,
            f"{gpus[0].driver} is too old: PyTorch for CUDA {torch.cuda} needs {least} or newer",
            f"Install NVIDIA's driver {least} or newer{other}",
        )


def _torch(facts: Facts, gpus: tuple[Gpu, ...]) -> Iterator[Check]:
    torch = facts.torch
    if torch is None:
        build = _build(_number(gpus[0].driver), gpus) if gpus else None
        yield Check(
            "PyTorch",
            None,
            "not installed; the preview pipeline needs none",
            None if build is None else f"For the diffusion pipeline: {_command(build)}",
        )
    elif torch.trouble is not None:
        yield Check(
            "PyTorch",
            None,
            f"installed, but cannot be imported: {torch.trouble}",
            pip_command("--force-reinstall", "torch"),
        )
    elif torch.available:
        yield Check("PyTorch", True, f"{torch.version}, CUDA {torch.cuda or torch.hip}")
    elif torch.cuda is None and torch.hip is None and (gpus or facts.library is not None):
        yield Check(
            "PyTorch",
            False,
            f"{torch.version} is built without CUDA, and there is an NVIDIA driver: the GPU would not be used",
            _install(_build(_number(gpus[0].driver) if gpus else None, gpus) or "cu130"),
        )
    elif torch.cuda is not None and gpus:
        yield Check(
            "PyTorch",
            False,
            f"{torch.version}, CUDA {torch.cuda}, cannot use the GPU that the driver shows",
            "See what it says: python -c 'import torch; torch.cuda.init()'",
        )
    else:
        yield Check("PyTorch", None, f"{torch.version}, no GPU to use")


def _triton(facts: Facts, torch: Torch) -> Iterator[Check]:
    """Triton builds a small C module for each machine, for which it needs a compiler and Python's headers."""
    if torch.triton is None:
        package = "triton-windows" if facts.system == "win32" else "triton"
        why = torch.triton_error or "it is not installed"
        yield Check("Triton", None, f"not used ({why}): {_COST}", pip_command(package))
        return
    yield Check("Triton", True, torch.triton)
    if facts.system == "win32":  # its package brings a compiler
        return
    missing = [
        what
        for what, there in (("a C compiler", facts.compiler), ("Python's headers (Python.h)", facts.headers))
        if there is None
    ]
    if missing:
        yield Check(
            "C compiler, headers",
            None,
            f"{' and '.join(missing)} not found, which Triton needs: without, {_COST}",
            _packages(facts),
        )
    else:
        yield Check("C compiler, headers", True, f"{facts.compiler}, {facts.headers}")


def _packages(facts: Facts) -> str:
    command = _COMPILERS.get(facts.manager or "")
    if command is None:
        return f"Install both: {_ANY}"
    version = f"{facts.python[0]}.{facts.python[1]}"
    note = (
        f" (a Python {version} that is not the system's: python{version}-dev)"
        if facts.manager == "apt"
        else ""
    )
    return f"{command}{note}"


def _build(driver: int | None, gpus: tuple[Gpu, ...]) -> str | None:
    """PyTorch's newest build that this driver and these GPUs run; the newest of all where the driver is unknown."""
    blackwell = any(gpu.capability is not None and gpu.capability >= _BLACKWELL for gpu in gpus)
    wheels = _BLACKWELL_WHEELS if blackwell else _WHEELS
    return next((build for least, build in wheels if driver is None or driver >= least), None)


def _command(build: str) -> str:
    return pip_command(*_from_index(build))


def _install(build: str) -> str:
    return pip_command("--force-reinstall", *_from_index(build))


def _from_index(build: str) -> tuple[str, ...]:
    return ("torch", "--index-url", _INDEX + build)


def _number(driver: str | None) -> int | None:
    first = (driver or "").partition(".")[0]
    return int(first) if first.isdigit() else None


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
