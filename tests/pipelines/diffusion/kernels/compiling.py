"""Compiles every kernel for a family of GPUs, without having one, and says what each came to.

    python -m tests.pipelines.diffusion.kernels.compiling 86

The wrappers run with a driver that knows nothing but the family; what they launch is compiled, in every
configuration between which it would be tuned. This is for a separate process: Triton is changed, and must not be
interpreting.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import KernelInterface

from personalive.pipelines.diffusion import kernels
from personalive.pipelines.diffusion.kernels.gpu_support import (
    MIN_FLOAT8_CAPABILITY,
    SHARED_MEMORY_KB,
    Capability,
    is_kernel_supported,
)

INLINED = frozenset({"gelu", "codes"})
"""Functions of Triton that no wrapper launches: kernels call them, and they are compiled with those."""

_TYPES = {
    torch.float16: None,
    torch.bfloat16: {(8, 0), (9, 0), (12, 0)},
    torch.float32: {(7, 5), (8, 6), (9, 0)},
}
"""Families for which each type is compiled; None: all. Numbers of 16 bits are laid out alike, so the oldest and the
newest family with bfloat16, and the one with its own instructions for tiles, stand for all; numbers of 32 bits need
the most shared memory, of which 7.5 and 8.6 have the least."""
_PROCESSORS = 64


@dataclass(frozen=True)
class Compiled:
    """A kernel as it would be loaded: bytes of shared memory for a block and of local memory for a thread.

    Local memory is where what does not fit into registers is spilled to.
    """

    kernel: str
    how: str
    shared: int = 0
    local: int = 0
    registers: int = 0
    error: str = ""


def kernel_names() -> dict[str, str]:
    """Every function of Triton that the package defines, and the module that does."""
    found = {}
    for info in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            if isinstance(value, KernelInterface) and function(value).__module__ == info.name:
                found[function(value).__name__] = info.name
    return found


def function(kernel: Any) -> Any:
    """The Python function that the decorators were put around."""
    while isinstance(kernel, KernelInterface):
        kernel = vars(kernel)["fn"]
    return kernel


class FamilyDriver:
    """What Triton asks a driver for when it compiles, and what our wrappers ask it for when they choose tiles."""

    def __init__(self, capability: Capability) -> None:
        self.capability = capability
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 10 * self.capability[0] + self.capability[1], 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        del device
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        del device
        shared = SHARED_MEMORY_KB[self.capability] * 1024
        return {"max_shared_mem": shared, "multiprocessor_count": _PROCESSORS}


class Compiler:
    """Compiles what is launched, if the family is offered it, and launches nothing."""

    def __init__(self, capability: Capability) -> None:
        self.capability = capability
        self.found: dict[str, Compiled] = {}

    def install(self) -> None:
        """Have every launch of this process come here."""
        driver.set_active(FamilyDriver(self.capability))
        torch.cuda.current_device = lambda: 0
        torch.cuda.get_device_capability = lambda device=None: self.capability
        KernelInterface.__getitem__ = lambda kernel, grid: self._launcher(kernel)

    def _launcher(self, kernel: Any) -> Callable[..., None]:
        name = function(kernel).__name__

        def compiled(*args: Any, **options: Any) -> None:
            codes = self.capability < MIN_FLOAT8_CAPABILITY and any(
                map(_is_codes, (*args, *options.values()))
            )
            if codes or not is_kernel_supported(name, self.capability):
                return
            try:
                results = kernel.warmup(*args, grid=(1,), **options)
            except Exception as error:  # a compiler may raise any: the others are to be compiled
                said = f"{type(error).__name__}: {error}".strip()
                self.found[f"{name} {said}"] = Compiled(name, _described(options), error=said[-1000:])
                return
            for result in results if isinstance(results, list) else [results]:
                if result.hash not in self.found:
                    self.found[result.hash] = _measured(name, result)

        return compiled


def _is_codes(value: Any) -> bool:
    """Whether it is a tensor of 8-bit floats, or a descriptor of one: what takes it is for GPUs that have them."""
    return getattr(getattr(value, "base", value), "dtype", None) == torch.float8_e4m3fn


def _described(options: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items())


def _measured(name: str, binary: Any) -> Compiled:
    names, given = binary.src.fn.arg_names, binary.src.constants
    constants = {names[place[0]]: value for place, value in given.items() if names[place[0]].isupper()}
    types = {str(kind) for kind in binary.src.signature.values() if "*" in str(kind) or "[" in str(kind)}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        said = subprocess.check_output([tool, "-res-usage", file.name], text=True, stderr=subprocess.STDOUT)
    usage = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert usage is not None, said
    how = f"{_described(constants)} warps={binary.metadata.num_warps} of {', '.join(sorted(types))}"
    return Compiled(name, how, binary.metadata.shared, int(usage[2]), int(usage[1]))


def main() -> None:
    """Print, as JSON, what every kernel came to for the family that the first argument names, as 86."""
    capability = divmod(int(sys.argv[1]), 10)
    compiler = Compiler(capability)
    compiler.install()
    from tests.pipelines.diffusion.kernels.launches import launch_all

    for dtype, families in _TYPES.items():
        if families is None or capability in families:
            launch_all(dtype)
    print(json.dumps([asdict(each) for each in compiler.found.values()]))


if __name__ == "__main__":
    main()
