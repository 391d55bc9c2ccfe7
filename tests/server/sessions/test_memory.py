from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from personalive.out_of_memory import is_out_of_memory
from personalive.server.sessions.memory import freeze_gc, gpu_memory_bytes, malloc_trim, release_memory


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
        freeze_gc()
        assert gc.get_freeze_count() > 1000
        del knot
        gc.collect()
        assert gone() is not None
        freeze_gc()
        assert gone() is None
    finally:
        gc.unfreeze()


def test_giving_back_works_with_and_without_a_gpu() -> None:
    release_memory()
    malloc_trim()
    assert gpu_memory_bytes() >= 0


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that keeps them")
def test_large_blocks_go_back_to_the_system_though_small_ones_stay() -> None:
    script = """
import sys
from personalive.server.sessions.memory import set_mmap_threshold
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
if sys.argv[1] == "set":
    set_mmap_threshold()
bytearray(19_000_000)  # freed: glibc takes larger blocks from its pool from now on
before, kept, large = resident(), [], []
for _ in range(20):
    large.append(bytearray(b"x") * 19_000_000)
    kept.append([bytes(100_000) for _ in range(3)])
del large
print(resident() - before)
"""
    left = [
        int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, check=True).stdout)
        for how in ("set", "unset")
    ]
    assert left[0] < 40_000_000
    assert left[1] > left[0]
