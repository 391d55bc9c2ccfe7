"""Every kernel with every configuration, compiled for every family of GPUs that is offered it: no GPU is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from personalive.pipelines.diffusion.kernels.gpu_support import (
    SHARED_MEMORY_KB,
    UNSUPPORTED_ON,
    Capability,
    find_gpu_family,
    is_kernel_supported,
    unsupported_kernels,
)

ROOT = Path(__file__).parents[4]
LAUNCHES = "tests/pipelines/diffusion/kernels/launches.py"
MOST_SPILLED = 256
"""Bytes of a thread. More is traffic to memory that the kernel was written to save."""


def advice(kernel: str, module: str) -> str:
    return (
        f"{kernel} of {module} is never launched: call its wrapper in {LAUNCHES} with the shapes of a step, or, if "
        "only other kernels call it, name it in INLINED beside that, in compiling.py."
    )


@pytest.mark.parametrize(
    ("capability", "known"),
    [
        ((7, 0), None),
        ((7, 5), (7, 5)),
        ((8, 6), (8, 6)),
        ((8, 7), (8, 6)),
        ((9, 0), (9, 0)),
        ((10, 3), (10, 0)),
        ((12, 1), (12, 0)),
    ],
)
def test_a_gpu_belongs_to_the_newest_family_that_is_not_newer(
    capability: Capability, known: Capability | None
) -> None:
    assert find_gpu_family(capability) == known


def test_kernels_are_offered_by_family() -> None:
    assert [
        is_kernel_supported("_linear_geglu_kernel", known) for known in ((8, 0), (8, 9), (9, 0), (10, 3))
    ] == [
        False,
        False,
        True,
        True,
    ]
    assert is_kernel_supported("_fp8_conv_pointer_kernel", (8, 9))
    assert not is_kernel_supported("_fp8_conv_pointer_kernel", (8, 7))
    assert is_kernel_supported("_layer_norm_kernel", (7, 5))
    assert not is_kernel_supported("_layer_norm_kernel", (7, 0))
    assert unsupported_kernels((8, 6)) >= {
        "_linear_geglu_kernel",
        "_fp8_conv_kernel",
        "_fp8_conv_pointer_kernel",
    }
    assert "_linear_geglu_kernel" not in unsupported_kernels((9, 0))


def test_every_kernel_is_launched_by_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    jit = pytest.importorskip("triton.runtime.jit")
    from tests.pipelines.diffusion.kernels.compiling import INLINED, function, kernel_names
    from tests.pipelines.diffusion.kernels.launches import launch_all

    launched: set[str] = set()

    def launcher(kernel: Any, grid: Any) -> Any:
        del grid
        return lambda *_, **__: launched.add(function(kernel).__name__)

    monkeypatch.setattr(jit.KernelInterface, "__getitem__", launcher)
    launch_all(torch.float16)
    names = kernel_names()
    missing = [advice(name, names[name]) for name in sorted(names.keys() - launched - INLINED)]
    assert not missing, "\n".join(missing)
    assert names.keys() >= INLINED | UNSUPPORTED_ON.keys(), "a kernel that is named there is gone"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("capability", SHARED_MEMORY_KB)
def test_kernels_compile_for(capability: Capability, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    major, minor = capability
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipelines.diffusion.kernels.compiling", f"{major}{minor}"],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
            "TRITON_CACHE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    compiled = json.loads(done.stdout)
    assert {each["kernel"] for each in compiled} == {
        name for name in launched_names() if is_kernel_supported(name, capability)
    }
    wrong = [
        f"{each['kernel']}: {problem} ({each['how']})"
        for each in compiled
        if (problem := wrong_with(each, capability))
    ]
    assert not wrong, "\n".join(wrong)


def launched_names() -> set[str]:
    from tests.pipelines.diffusion.kernels.compiling import INLINED, kernel_names

    return set(kernel_names()) - INLINED


def wrong_with(each: dict[str, Any], capability: Capability) -> str | None:
    if each["error"]:
        return str(each["error"])
    if each["shared"] > SHARED_MEMORY_KB[capability] * 1024:
        return f"{each['shared']} bytes of shared memory, {SHARED_MEMORY_KB[capability]} KB are there"
    if each["local"] > MOST_SPILLED:
        return f"{each['local']} bytes of local memory a thread, for want of registers"
    return None
