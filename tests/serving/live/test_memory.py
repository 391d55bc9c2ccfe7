from __future__ import annotations

import gc
import weakref

import pytest

from personalive.out_of_memory import is_out_of_memory
from personalive.serving.live.memory import give_back_memory, gpu_memory_bytes, settle, trim


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


@pytest.mark.parametrize(
    ("error", "so"),
    [(OutOfMemoryError("CUDA out of memory"), True), (MemoryError(), True), (RuntimeError("no"), False)],
)
def test_whether_memory_is_what_lacks(error: Exception, so: bool) -> None:
    assert is_out_of_memory(error) is so


class Knot:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_lives_on_is_not_looked_through_and_is_found_when_it_has_gone() -> None:
    knot = Knot()
    gone = weakref.ref(knot)
    try:
        settle()
        assert gc.get_freeze_count() > 1000
        del knot
        gc.collect()
        assert gone() is not None
        settle()
        assert gone() is None
    finally:
        gc.unfreeze()


def test_giving_back_works_with_and_without_a_gpu() -> None:
    give_back_memory()
    trim()
    assert gpu_memory_bytes() >= 0
