from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from personalive.errors import WeightsError
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile
from personalive.pipelines.diffusion.checkpoints.state_dict import fill_module, plan_loading
from tests.pipelines.diffusion.checkpoints.forged import CPU, load_tiny, tiny, tiny_weights

PE = torch.arange(5.0)[None]


def save(path: Path, weights: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


def problem(*paths: Path) -> str:
    """What is said of files that do not fit the network."""
    with pytest.raises(WeightsError, match="The tiny network cannot be loaded: ") as caught:
        plan_loading("tiny network", tiny(), list(map(CheckpointFile.open, paths)))
    return str(caught.value)


def refusal(*paths: Path, dtype: torch.dtype = torch.float32) -> str:
    """What is said of files whose numbers cannot be used."""
    with pytest.raises(WeightsError) as caught:
        load_tiny(*paths, dtype=dtype)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_network_holds_the_numbers_of_its_file(
    tmp_path: Path, name: str, stored: torch.dtype, dtype: torch.dtype
) -> None:
    weights = tiny_weights(stored)
    state = load_tiny(save(tmp_path / name, weights), dtype=dtype).state_dict()
    assert state.keys() == {*weights, "pe"}
    for entry, value in weights.items():
        expected = value.to(dtype) if value.is_floating_point() else value
        assert state[entry].dtype == expected.dtype
        assert torch.equal(state[entry], expected)
    assert torch.equal(state["pe"], PE.to(dtype))
    assert state["pe"].dtype == dtype


def test_a_filled_network_only_infers_and_owns_its_memory(tmp_path: Path) -> None:
    weights: dict[str, Tensor] = {
        name: torch.nn.Parameter(value) if value.is_floating_point() else value
        for name, value in tiny_weights().items()
    }
    path = save(tmp_path / "a.pth", weights)
    module = load_tiny(path)
    path.write_bytes(b"")
    assert not module.training
    assert not any(module_.training for module_ in module.modules())
    for tensor in (*module.parameters(), *module.buffers()):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
        assert tensor.is_contiguous()
    assert {name for name, _ in module.named_parameters()} == {name for name, _ in tiny().named_parameters()}
    assert torch.equal(module.linear.weight, weights["linear.weight"])


def test_transposed_and_repeated_weights_are_stored_plainly(tmp_path: Path) -> None:
    weights = tiny_weights()
    weights["linear.weight"] = torch.rand(4, 3).t()
    weights["linear.bias"] = torch.tensor([0.5]).expand(3)
    module = load_tiny(save(tmp_path / "a.pth", weights))
    assert module.linear.weight.is_contiguous()
    assert module.linear.bias.untyped_storage().nbytes() == 12
    assert torch.equal(module.linear.weight, weights["linear.weight"])
    assert torch.equal(module.linear.bias, weights["linear.bias"])


def test_later_files_lie_over_earlier_ones(tmp_path: Path) -> None:
    base = {name: torch.zeros_like(value) for name, value in tiny_weights().items()}
    first = save(tmp_path / "base.safetensors", base)
    second = save(tmp_path / "second.pth", {"linear.weight": torch.ones(3, 4), "linear.bias": torch.ones(3)})
    third = save(tmp_path / "third.pth", {"linear.bias": torch.full((3,), 2.0)})
    module = load_tiny(first, second, third)
    assert module.linear.weight.eq(1).all()
    assert module.linear.bias.eq(2).all()
    assert module.norm.weight.eq(0).all()
    assert load_tiny(third, first).linear.bias.eq(0).all()


def test_bytes_to_read_are_those_of_what_is_used(tmp_path: Path) -> None:
    weights = tiny_weights(torch.float16)
    first = save(tmp_path / "first.pth", tiny_weights())
    second = save(tmp_path / "second.pth", {"linear.weight": weights["linear.weight"]})
    module = tiny()
    planned = plan_loading("tiny network", module, [CheckpointFile.open(first), CheckpointFile.open(second)])
    assert planned.nbytes == 12 * 2 + 4 * (3 + 4 * 3)
    told: list[int] = []
    fill_module(module, planned, device=CPU, resolve_dtype=lambda _: torch.float32, progress=told.append)
    assert sum(told) == planned.nbytes
    assert min(told) > 0


def test_a_missing_entry_names_itself_and_where_it_was_looked_for(tmp_path: Path) -> None:
    weights = tiny_weights()
    del weights["norm.running_var"]
    first, second = (
        save(tmp_path / "a.pth", weights),
        save(tmp_path / "b.safetensors", {"linear.bias": torch.ones(3)}),
    )
    assert f"norm.running_var is missing from {first} or {second}" in problem(first, second)


def test_extra_entries_are_noted_and_named_when_that_is_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", tiny_weights())
    other = save(tmp_path / "b.pth", {f"linear.extra{index}": torch.ones(3) for index in range(5)})
    files = [CheckpointFile.open(path), CheckpointFile.open(other)]
    planned = plan_loading("tiny network", tiny(), files)
    assert [source.file.path for source in planned.unused] == [other] * 5
    assert planned.notes == (
        f"{other}: left out, as nothing in the tiny network has such a name: linear.extra0, linear.extra1, "
        "linear.extra2 and 2 more.",
    )
    assert (
        plan_loading("tiny network", tiny(), files, ignored_prefixes=("linear.e",), strict=True).notes == ()
    )
    with pytest.raises(WeightsError) as error:
        plan_loading("tiny network", tiny(), files, strict=True)
    assert str(error.value) == (
        f"The tiny network cannot be loaded: {other}: linear.extra0, linear.extra1, linear.extra2 and 2 more "
        "belong to no entry of this network."
    )


def test_extra_entries_are_named_where_something_is_missing(tmp_path: Path) -> None:
    weights = tiny_weights()
    weights["linear.offset"] = weights.pop("linear.bias")
    said = problem(save(tmp_path / "a.pth", weights))
    assert "linear.bias is missing from" in said
    assert "linear.offset belongs to no entry" in said


@pytest.mark.parametrize("shape", [(), (12,), (4, 3), (1, 3, 4), (3, 4, 1, 1), (3, 5), (0, 4), (2, 6)])
def test_a_misshapen_entry_names_itself_its_file_and_both_shapes(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = save(tmp_path / "a.safetensors", {**tiny_weights(), "linear.weight": torch.zeros(shape)})
    assert f"{path}: linear.weight has shape {list(shape)}, not [3, 4]" in problem(path)


def test_a_misshapen_entry_is_named_even_where_another_lies_over_it(tmp_path: Path) -> None:
    base = save(tmp_path / "base.pth", {"linear.bias": torch.zeros(7)})
    assert f"{base}: linear.bias has shape [7]" in problem(base, save(tmp_path / "a.pth", tiny_weights()))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_numbers_of_a_wrong_kind_are_named(tmp_path: Path, dtype: torch.dtype) -> None:
    path = save(tmp_path / "a.pth", {**tiny_weights(), "linear.bias": torch.ones(3, dtype=dtype)})
    assert f"{path}: linear.bias is {dtype}, which cannot be torch.float32" in problem(path)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.complex64, None])
def test_counts_of_batches_are_neither_needed_nor_kept(tmp_path: Path, dtype: torch.dtype | None) -> None:
    weights = tiny_weights()
    if dtype is not None:
        weights["norm.num_batches_tracked"] = torch.tensor(1).to(dtype)
    planned = plan_loading(
        "tiny network", tiny(), [CheckpointFile.open(save(tmp_path / "a.pth", weights))], strict=True
    )
    assert (planned.unused, planned.notes) == ([], ())
    assert not any("num_batches" in name for name in load_tiny(tmp_path / "a.pth").state_dict())


@pytest.mark.parametrize("name", ["norm.running_mean", "norm.running_var"])
def test_statistics_beyond_half_precision_stay_float32(tmp_path: Path, name: str) -> None:
    weights = tiny_weights()
    weights[name][1], weights["norm.weight"][1] = 70_000, 0.01
    module = load_tiny(save(tmp_path / "a.pth", weights), dtype=torch.float16)
    kinds = {entry: value.dtype for entry, value in module.state_dict().items()}
    assert {entry for entry, kind in kinds.items() if kind == torch.float32} == {name}
    assert torch.equal(module.state_dict()[name], weights[name])
    x = torch.rand(2, 3, 4, 4).half()
    exact = load_tiny(tmp_path / "a.pth").norm(x.float())
    assert module.norm(x).dtype == torch.float16
    assert torch.allclose(module.norm(x).float(), exact, rtol=1e-2, atol=1e-2)
    weights[name][1] = float("inf")
    save(tmp_path / "a.pth", weights)
    assert "not finite" in refusal(tmp_path / "a.pth", dtype=torch.float16)


def test_two_names_for_one_entry_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {**tiny_weights(), "linear.offset": torch.ones(3)})
    with pytest.raises(WeightsError, match=r"linear\.offset and linear\.bias are the same entry"):
        plan_loading(
            "tiny network",
            tiny(),
            [CheckpointFile.open(path)],
            rename=lambda name, shape: (name.replace("offset", "bias"), shape),
        )


def test_many_problems_are_counted(tmp_path: Path) -> None:
    said = problem(save(tmp_path / "a.pth", {}))
    assert said.count("is missing from") == 4
    assert said.endswith("; and 2 more.")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["linear.weight", "norm.running_mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_numbers_that_are_not_finite_are_named(
    tmp_path: Path, value: float, name: str, dtype: torch.dtype
) -> None:
    weights = tiny_weights(torch.float16)
    weights[name].view(-1)[1] = value
    path = save(tmp_path / "a.safetensors", weights)
    assert refusal(path, dtype=dtype) == f"{path}: {name} holds values that are not finite."


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [(torch.float32, torch.float16), (torch.bfloat16, torch.float16), (torch.float64, torch.float32)],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_too_large_for_the_type_asked_for_name_it(
    tmp_path: Path, stored: torch.dtype, dtype: torch.dtype, sign: int
) -> None:
    weights = tiny_weights(stored)
    weights["linear.bias"][0] = sign * torch.finfo(dtype).max * 2
    path = save(tmp_path / "a.pth", weights)
    assert refusal(path, dtype=dtype) == f"{path}: linear.bias holds values too large for {dtype}."
    load_tiny(path, dtype=stored)


def code_of(path: Path) -> tuple[Tensor, tuple[str, ...]]:
    """The constant of a network that was filled from that file, and what was noted."""
    module = tiny()
    planned = plan_loading("tiny network", module, [CheckpointFile.open(path)])
    notes = fill_module(module, planned, device=CPU, resolve_dtype=lambda _: torch.float32)
    return module.pe, notes


@pytest.mark.parametrize("off", [1e-4, 4e-4, 9e-3, -9e-3])
def test_a_constant_that_was_rounded_once_is_taken_as_it_is_in_the_file(tmp_path: Path, off: float) -> None:
    rounded = PE + torch.tensor([0, off, 0, 0, 0])
    path = save(tmp_path / "a.pth", {**tiny_weights(), "pe": rounded})
    pe, notes = code_of(path)
    assert torch.equal(pe, rounded)
    assert notes == (
        f"{path}: the file's values are taken for pe, off by up to {abs(off):.1g} from what the method "
        "computes, as after rounding to half precision.",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_the_type_of_a_file_rounds_is_not_worth_a_note(tmp_path: Path, dtype: torch.dtype) -> None:
    rounded = (PE + torch.tensor([0.0011, 0, 0, 0, 0])).to(dtype)
    pe, notes = code_of(save(tmp_path / "a.pth", {**tiny_weights(), "pe": rounded}))
    assert torch.equal(pe, rounded.float())
    assert (notes == ()) == (dtype == torch.bfloat16)  # float16 would hold zero exactly


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_constant_may_be_carried_along(tmp_path: Path, dtype: torch.dtype) -> None:
    path = save(tmp_path / "a.pth", {**tiny_weights(), "pe": PE.to(dtype)})
    assert torch.equal(load_tiny(path).pe, PE)


CHANGES: list[Callable[[Tensor], Tensor]] = [
    lambda pe: pe + 0.1,
    lambda pe: pe + 0.011,
    lambda pe: pe * float("nan"),
    lambda pe: pe.flip(1),
    lambda pe: pe.clamp(max=float("inf")) / 0,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_constant_of_other_values_is_named(tmp_path: Path, change: Callable[[Tensor], Tensor]) -> None:
    path = save(tmp_path / "a.pth", {**tiny_weights(), "pe": change(PE)})
    assert refusal(path) == f"{path}: pe is a constant of the method, but holds other values."


@pytest.mark.parametrize("pe", [torch.zeros(5), torch.zeros(1, 6), torch.zeros(1, 5, dtype=torch.int64)])
def test_a_constant_of_another_shape_or_type_is_named(tmp_path: Path, pe: Tensor) -> None:
    path = save(tmp_path / "a.pth", {**tiny_weights(), "pe": pe})
    assert f"{path}: pe " in problem(path)
