"""What is made of facts: every finding on every kind of machine, without one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from personalive.cli.card_rates import find_expected_rate
from personalive.cli.check_result import CheckResult
from personalive.cli.gpu_checks import check_gpus
from personalive.cli.gpu_info import DriverInfo, GpuEnvironment, GpuInfo, TorchInfo
from personalive.installation import pip_command
from personalive.pipelines.diffusion.memory.plan import MemoryPlan

GIB = 2**30
OFF = MemoryPlan("off", (), None, 1, (), recorded=True, references=8, need=8 * 10**9)
ON = replace(OFF, name="on", need=6 * 10**9)
RTX_3070 = GpuInfo("NVIDIA GeForce RTX 3070", (8, 6), 8 * GIB, 7 * GIB + GIB // 2, "580.65.06")
TORCH = TorchInfo(
    "2.11.0+cu130",
    "13.0",
    available=True,
    architectures=("sm_75", "sm_86", "sm_120"),
    triton="3.6.0",
    plans=(OFF, ON),
)
WELL = GpuEnvironment(
    "linux", DriverInfo((RTX_3070,)), 13000, TORCH, "/usr/bin/gcc", Path("/usr/include/python3.12"), "apt"
)
CPU_BUILD = TorchInfo("2.11.0+cpu")


def found(facts: GpuEnvironment, name: str) -> CheckResult:
    (check,) = [each for each in check_gpus(facts) if each.name == name]
    return check


def names(facts: GpuEnvironment) -> list[str]:
    return [each.name for each in check_gpus(facts)]


def with_gpu(**changes: object) -> GpuEnvironment:
    return replace(WELL, driver=DriverInfo((replace(RTX_3070, **changes),)))  # type: ignore[arg-type]


def test_a_machine_that_has_everything() -> None:
    assert names(WELL) == [
        "GPU",
        "GPU, memory plan",
        "GPU, expected rate",
        "driver",
        "PyTorch",
        "Triton",
        "C compiler, headers",
    ]
    said = found(WELL, "GPU").detail
    assert said == "NVIDIA GeForce RTX 3070, compute capability 8.6, 8.0 GiB, 7.5 free, driver 580.65.06"
    assert {each.level for each in check_gpus(WELL)} == {"ok", "note"}
    assert not any(each.required for each in check_gpus(WELL))


@pytest.mark.parametrize(
    ("driver", "cuda", "level"),
    [
        ("580.65.06", "13.0", "ok"),
        ("579.99", "13.0", "problem"),
        ("525.60.13", "12.8", "ok"),
        ("470.57.02", "12.8", "problem"),
        ("590.10", "14.0", "note"),
    ],
)
def test_a_driver_is_held_against_what_pytorch_was_built_for(driver: str, cuda: str, level: str) -> None:
    facts = replace(with_gpu(driver=driver), torch=replace(TORCH, cuda=cuda))
    assert found(facts, "driver").level == level


def test_a_driver_that_is_too_old_has_two_ways_out() -> None:
    facts = replace(with_gpu(driver="550.54"), torch=replace(TORCH, available=False))
    remedy = found(facts, "driver").remedy
    assert remedy is not None
    assert "driver 580 or newer" in remedy
    assert "https://download.pytorch.org/whl/cu126" in remedy
    blackwell = with_gpu(driver="550.54", capability=(12, 0))
    assert "whl" not in (found(blackwell, "driver").remedy or "")


@pytest.mark.parametrize(
    ("gpu", "build"),
    [
        ({}, "cu130"),
        ({"driver": "550.54"}, "cu126"),
        ({"driver": "572.16", "capability": (12, 0)}, "cu128"),
    ],
)
def test_pytorch_without_cuda_beside_a_driver_is_a_problem(gpu: dict[str, object], build: str) -> None:
    check = found(replace(with_gpu(**gpu), torch=CPU_BUILD), "PyTorch")
    assert check.level == "problem"
    index = f"https://download.pytorch.org/whl/{build}"
    wanted = pip_command("--force-reinstall", "torch", "--index-url", index)
    assert check.remedy == wanted


def test_the_drivers_library_alone_is_a_driver_too() -> None:
    facts = replace(WELL, driver=None, torch=CPU_BUILD)
    assert found(facts, "PyTorch").level == "problem"
    assert "CUDA 13.0" in found(facts, "GPU").detail


def test_without_any_of_it_nothing_is_a_problem() -> None:
    for system in ("linux", "win32", "darwin"):
        for torch in (None, CPU_BUILD):
            facts = GpuEnvironment(system, torch=torch)
            assert [each.level for each in check_gpus(facts)] == ["note", "note"]


def test_a_mac_says_what_it_runs_on() -> None:
    facts = GpuEnvironment("darwin", torch=TorchInfo("2.11.0", mps=True))
    assert "MPS" in found(facts, "GPU").detail


def test_pytorch_for_other_gpus_is_told() -> None:
    facts = replace(WELL, driver=DriverInfo((replace(RTX_3070, capability=(6, 1)),)))
    check = found(facts, "GPU, kernels")
    assert check.level == "problem"
    assert "6.1" in check.detail
    # 8.9 runs what was built for 8.6, and 12.1 what was built for 12.0.
    for capability in ((8, 9), (12, 1), (7, 5)):
        assert "GPU, kernels" not in names(with_gpu(capability=capability))


def test_what_is_missing_for_triton_says_what_it_costs_and_what_brings_it() -> None:
    facts = replace(WELL, compiler=None, python_headers=None)
    check = found(facts, "C compiler, headers")
    assert check.level == "note"
    assert "takes about twice as long" in check.detail
    assert "apt install gcc python3-dev" in (check.remedy or "")
    assert found(replace(facts, package_manager="dnf"), check.name).remedy == "dnf install gcc python3-devel"
    assert found(replace(facts, package_manager="pacman"), check.name).remedy == "pacman -S gcc python"
    every = found(replace(facts, package_manager=None), check.name).remedy or ""
    assert all(name in every for name in ("apt", "dnf", "pacman"))
    only = found(replace(WELL, python_headers=None), check.name).detail
    assert only.startswith("Python's headers (Python.h) not found")


def test_without_triton_nothing_is_said_of_compilers() -> None:
    facts = replace(WELL, torch=replace(TORCH, triton=None, triton_error="No module named 'triton'"))
    assert found(facts, "Triton").remedy == pip_command("triton")
    assert "C compiler, headers" not in names(facts)
    assert found(replace(facts, system="win32"), "Triton").remedy == pip_command("triton-windows")
    assert "C compiler, headers" not in names(replace(WELL, system="win32", compiler=None))


def test_the_memory_plan_is_that_of_the_gpu() -> None:
    assert found(with_gpu(free=9 * 10**9), "GPU, memory plan").level == "ok"
    assert found(with_gpu(free=7 * 10**9), "GPU, memory plan").level == "note"
    assert "GPU, memory plan" not in names(with_gpu(total=None, free=None))


def test_several_gpus_are_numbered() -> None:
    facts = replace(WELL, driver=DriverInfo((RTX_3070, replace(RTX_3070, name="NVIDIA H200"))))
    assert "GPU 0, memory plan" in names(facts)
    assert "59 with dtype=float8 vae=tiny (as measured;" in found(facts, "GPU 1, expected rate").detail


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA GeForce RTX 3070", "RTX 3070"),
        ("GeForce RTX 2080 Ti", "RTX 2080 Ti"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A10G", None),
    ],
)
def test_a_card_is_known_by_its_whole_name(name: str, card: str | None) -> None:
    rate = find_expected_rate(name)
    assert (None if rate is None else rate.card) == card


def test_an_unknown_card_is_asked_to_be_measured() -> None:
    check = found(with_gpu(name="NVIDIA GeForce RTX 9090"), "GPU, expected rate")
    assert check.remedy == "Measure: personalive bench --share"
