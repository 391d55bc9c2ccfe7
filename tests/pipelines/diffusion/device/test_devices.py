from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

from personalive.errors import InputError, PipelineUnavailableError
from personalive.pipelines.diffusion.device.devices import exact_float32, resolve_device, resolve_dtype


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_takes_a_gpu_only_where_there_is_one() -> None:
    expected = {True: ("cuda",), False: ("mps", "cpu")}[torch.cuda.is_available()]
    assert resolve_device("auto").type in expected


@pytest.mark.parametrize("name", ["cuda:99", "mps"])
def test_a_device_that_is_not_there_is_refused_with_what_to_do(name: str) -> None:
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(
        PipelineUnavailableError, match=r"There is no .* here.*Take another device, or auto\."
    ):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.float16),
        ("float32", "cuda", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float16", "cpu", torch.float16),
    ],
)
def test_types_go_by_name_and_auto_by_device(name: str, device: str, dtype: torch.dtype) -> None:
    assert resolve_dtype(name, torch.device(device)) == dtype


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_bfloat16_is_refused_where_a_gpu_does_not_compute_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], there: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    if there:
        assert resolve_dtype("bfloat16", torch.device("cuda")) is torch.bfloat16
        return
    with pytest.raises(
        InputError, match=r"dtype=bfloat16 needs .* and cuda has 7\.5: take float16 or auto\."
    ):
        resolve_dtype("bfloat16", torch.device("cuda"))
    assert resolve_dtype("auto", torch.device("cuda")) is torch.float16


def allowed() -> bool:
    return torch.backends.cudnn.allow_tf32


def test_float32_is_float32_for_the_time_of_a_block() -> None:
    assert allowed()  # PyTorch's default, or there were nothing to do here
    with exact_float32():
        with pytest.raises(ZeroDivisionError), exact_float32():
            _ = 1 / 0
        assert not allowed()
    assert allowed()


def test_it_is_for_whoever_leaves_last() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with exact_float32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with exact_float32():
        thread.start()
        assert entered.wait(10)
    assert not allowed()
    leave.set()
    thread.join()
    assert allowed()


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.cudnn.fp32_precision = 'ieee'",
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
        "torch.backends.cudnn.allow_tf32 = False",
        "torch.set_float32_matmul_precision('medium')",
    ],
)
def test_settings_of_the_program_around_it_stay(setting: str) -> None:
    program = f"""
import torch
from personalive.pipelines.diffusion.device.devices import exact_float32
backends = torch.backends
{setting}
def seen():
    try:
        asked = torch.get_float32_matmul_precision()
    except RuntimeError:
        asked = None
    return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision == "tf32", asked
before = seen()
with exact_float32():
    assert backends.cudnn.conv.fp32_precision != "tf32"
assert seen() == before, (before, seen())
"""
    subprocess.run([sys.executable, "-c", program], check=True)
