"""Choosing between forms: by a stopwatch that is told what to say, of operations that really run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from personalive.pipelines.diffusion.kernels.choice_cache import KernelChoiceCache
from personalive.pipelines.diffusion.kernels.selector import PYTORCH, KernelSelector

X = torch.arange(6.0)
GIVEN = (X.shape, X.dtype)


class Told:
    """Runs what it times, and says what it was told; counts how often it was asked."""

    def __init__(self, **ms: float) -> None:
        self.ms = ms
        self.timed: list[list[str]] = []

    def measure(self, calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        self.timed.append(list(calls))
        for call in calls.values():
            call()
        return {name: self.ms[name] for name in calls}


def doubled() -> Tensor:
    return X * 2


def added() -> Tensor:
    return X + X


def failing(error: Exception) -> Callable[[], Tensor]:
    def run() -> Tensor:
        raise error

    return run


def chooser(told: Told, folder: Path | None = None, *, recording: bool = False) -> KernelSelector:
    return KernelSelector(told, KernelChoiceCache(folder), lambda: recording)


@pytest.mark.parametrize(
    ("ours", "plain", "form"), [(1.0, 2.0, "fused"), (2.0, 1.0, PYTORCH), (1.0, 1.0, "fused")]
)
def test_the_faster_form_is_taken_and_measured_once(ours: float, plain: float, form: str) -> None:
    told = Told(fused=ours, pytorch=plain)
    chosen = chooser(told)
    for _ in range(3):
        assert torch.equal(chosen.run("double", GIVEN, {"fused": doubled}, added), X + X)
    assert chosen.selected("double", GIVEN) == form
    assert len(told.timed) == 1
    chosen.run("double", ((7,), X.dtype), {"fused": doubled}, added)
    assert len(told.timed) == 2


def test_a_second_start_measures_nothing(tmp_path: Path) -> None:
    first, second = Told(fused=1.0, pytorch=2.0), Told()
    chooser(first, tmp_path).run("double", GIVEN, {"fused": doubled}, added)
    again = chooser(second, tmp_path)
    assert torch.equal(again.run("double", GIVEN, {"fused": doubled}, added), X + X)
    assert again.selected("double", GIVEN) == "fused"
    assert second.timed == []


def test_a_form_that_is_no_more_is_measured_anew(tmp_path: Path) -> None:
    chooser(Told(old=1.0, pytorch=2.0), tmp_path).run("double", GIVEN, {"old": doubled}, added)
    told = Told(new=2.0, pytorch=1.0)
    again = chooser(told, tmp_path)
    again.run("double", GIVEN, {"new": doubled}, added)
    assert told.timed == [["new", PYTORCH]]


@pytest.mark.parametrize(
    "error", [RuntimeError("out of resource: shared memory"), ValueError("no such layout"), OSError()]
)
def test_a_kernel_that_fails_is_out_for_its_operation_with_one_line(
    error: Exception, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    told = Told(pytorch=1.0)
    chosen = chooser(told, tmp_path)
    with caplog.at_level(logging.WARNING):
        for side in (1, 2, 3):
            assert torch.equal(chosen.run("double", (side,), {"fused": failing(error)}, added), X + X)
    assert len(caplog.records) == 1
    assert "double" in caplog.text
    assert chosen.has_failed("double", "fused")
    # It is tried again at the next start: a compiler may have been installed.
    told = Told(fused=1.0, pytorch=2.0)
    chooser(told, tmp_path).run("double", (1,), {"fused": doubled}, added)
    assert told.timed == [["fused", PYTORCH]]


def test_a_kernel_that_fails_later_is_out_then(caplog: pytest.LogCaptureFixture) -> None:
    chosen = chooser(Told(fused=1.0, pytorch=2.0))
    chosen.run("double", GIVEN, {"fused": doubled}, added)
    chosen.run("double", ((7,),), {"fused": doubled}, added)
    refused = {"fused": failing(RuntimeError("invalid argument"))}
    with caplog.at_level(logging.WARNING):
        assert torch.equal(chosen.run("double", GIVEN, refused, added), X + X)
        # Another shape, at which it was fastest too; and one that is new.
        for given in (((7,),), ((8,),)):
            assert torch.equal(chosen.run("double", given, refused, added), X + X)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_raised_and_no_failure_of_the_kernel(error: Exception) -> None:
    chosen = chooser(Told(fused=1.0, pytorch=2.0))
    with pytest.raises(type(error)):
        chosen.run("double", GIVEN, {"fused": failing(error)}, added)
    chosen.run("double", GIVEN, {"fused": doubled}, added)
    with pytest.raises(type(error)):
        chosen.run("double", GIVEN, {"fused": failing(error)}, added)
    assert not chosen.has_failed("double", "fused")


def test_a_form_that_needs_more_memory_than_there_is_now_is_not_taken_nor_forgotten(tmp_path: Path) -> None:
    short = failing(torch.OutOfMemoryError("CUDA out of memory"))
    chosen = chooser(Told(fused=1.0), tmp_path)
    assert torch.equal(chosen.run("double", GIVEN, {"fused": doubled}, short), X + X)
    told = Told(fused=2.0, pytorch=1.0)
    chooser(told, tmp_path).run("double", GIVEN, {"fused": doubled}, added)
    assert told.timed == [["fused", PYTORCH]]


def test_nothing_is_measured_while_a_stream_is_recorded(tmp_path: Path) -> None:
    told = Told(fused=1.0, pytorch=2.0)
    recording = chooser(told, tmp_path, recording=True)
    assert torch.equal(recording.run("double", GIVEN, {"fused": failing(OSError())}, added), X + X)
    assert told.timed == []
    chooser(told, tmp_path).run("double", GIVEN, {"fused": doubled}, added)
    # What is known from before is taken all the same.
    known = chooser(told, tmp_path, recording=True)
    known.run("double", GIVEN, {"fused": doubled}, failing(OSError()))
    assert len(told.timed) == 1


def test_a_library_that_refuses_a_shape_is_no_candidate_there(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    told = Told(flash=2.0, efficient=1.0)
    libraries = {"cudnn": failing(RuntimeError("No available kernel")), "flash": doubled, "efficient": added}
    with caplog.at_level(logging.INFO):
        chosen = chooser(told, tmp_path)
        chosen.run("attend", GIVEN, {}, failing(RuntimeError("not asked")), libraries)
    assert chosen.selected("attend", GIVEN) == "efficient"
    assert told.timed == [["flash", "efficient"]]
    assert not caplog.records
    again = Told()
    chooser(again, tmp_path).run("attend", GIVEN, {}, added, libraries)
    assert again.timed == []


def test_where_every_library_refuses_pytorch_decides() -> None:
    chosen = chooser(Told())
    refused = {name: failing(RuntimeError("No available kernel")) for name in ("cudnn", "flash")}
    assert torch.equal(chosen.run("attend", GIVEN, {}, added, refused), X + X)
    assert chosen.selected("attend", GIVEN) == PYTORCH


def test_what_is_wrong_with_an_operation_itself_is_raised() -> None:
    with pytest.raises(ValueError, match="shapes"):
        chooser(Told()).run("double", GIVEN, {"fused": failing(OSError())}, failing(ValueError("shapes")))


def test_what_follows_is_timed_with_it_and_not_returned() -> None:
    seen: list[Tensor] = []
    told = Told(fused=1.0, pytorch=2.0)
    result = chooser(told).run("double", GIVEN, {"fused": doubled}, added, consumer=seen.append)
    assert torch.equal(result, X + X)
    assert len(seen) == 4
