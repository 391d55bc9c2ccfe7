"""Each case runs in a fresh process, since it is about the first call there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from personalive.pipelines.diffusion.networks.mkl_workaround import FUNCTIONS

_FIRST_CALLS = """
import json
import torch
from torch.utils._python_dispatch import TorchDispatchMode

first = {}

class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [each for each in args if isinstance(each, torch.Tensor)]
        if tensors:
            name = f"{function.__name__.partition('.')[0].rstrip('_')} {tensors[0].dtype}"
            first.setdefault(name, [tensors[0].numel(), tensors[0].device.type])
        return function(*args, **(kwargs or {}))

with Watch():
    from personalive.pipelines.diffusion.networks.motion_module import TemporalPositionalEncoding
    TemporalPositionalEncoding(320, 32)
print(json.dumps(first))
"""

_TWICE = """
import torch
from personalive.pipelines.diffusion.networks import layers
torch.set_num_threads(2)
numbers = torch.linspace(0.01, 1, 1 << 18)
print(torch.equal(numbers.sin(), numbers.sin()))
"""


def _run(program: str) -> str:
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return run.stdout


@pytest.mark.slow
def test_each_function_is_first_called_on_one_element_of_the_host() -> None:
    first = json.loads(_run(_FIRST_CALLS))
    for name in FUNCTIONS:
        for dtype in (torch.float32, torch.float64):
            assert first[f"{name} {dtype}"] == [1, "cpu"]


@pytest.mark.slow
def test_a_processs_first_sine_is_as_exact_as_its_second() -> None:
    assert {_run(_TWICE).strip() for _ in range(12)} == {"True"}
