from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from personalive.pipelines.diffusion.kernels.custom_op import CustomOp


@CustomOp
def halved_for_a_test(x: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Half of x, and x several times."""
    return x / 2, x.repeat(times)


@halved_for_a_test.register_fake
def _(x: Tensor, times: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(times * len(x))


def run(x: Tensor) -> Tensor:
    half, repeated = halved_for_a_test(x + 1, 3)
    return half.sum() + repeated


def test_it_is_the_function_where_it_is_run() -> None:
    x = torch.arange(4.0)
    half, repeated = halved_for_a_test(x, times=2)
    assert torch.equal(half, x / 2)
    assert torch.equal(repeated, torch.cat([x, x]))
    assert halved_for_a_test.__doc__ == "Half of x, and x several times."


def test_a_compiler_sees_one_operation_and_its_results_are_the_same() -> None:
    seen: list[str] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        del inputs
        seen.extend(str(node.target) for node in module.graph.nodes)
        return module.forward

    x = torch.arange(4.0)
    torch.testing.assert_close(torch.compile(run, backend=backend, fullgraph=True)(x), run(x))
    assert [name for name in seen if "halved_for_a_test" in name] == ["personalive.halved_for_a_test.default"]
    assert not any("repeat" in name for name in seen)


@pytest.mark.slow
def test_running_it_does_not_import_the_compiler() -> None:
    script = (
        "import sys, torch; from torch import Tensor\n"
        "from personalive.pipelines.diffusion.kernels.custom_op import CustomOp\n"
        "def double_for_a_test(x: Tensor) -> Tensor: return 2 * x\n"
        "double = CustomOp(double_for_a_test)\n"
        "double.register_fake(lambda x: torch.empty_like(x))\n"
        "assert double(torch.ones(2)).sum() == 4\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
