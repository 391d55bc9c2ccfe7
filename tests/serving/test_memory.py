from __future__ import annotations

import pytest

from personalive.serving.memory import give_back_memory, gpu_memory_bytes, is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


@pytest.mark.parametrize(
    ("error", "so"),
    [(OutOfMemoryError("CUDA out of memory"), True), (MemoryError(), True), (RuntimeError("no"), False)],
)
def test_whether_memory_is_what_lacks(error: Exception, so: bool) -> None:
    assert is_out_of_memory(error) is so


def test_giving_back_works_with_and_without_a_gpu() -> None:
    give_back_memory()
    assert gpu_memory_bytes() >= 0
