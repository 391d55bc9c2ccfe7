from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError, PipelineUnavailableError
from personalive.out_of_memory import is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """As it comes from another process."""


class UnknownError(Exception):
    """Of a library that nobody knows."""


FULL = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB",
    "HIP out of memory. Tried to allocate 20.00 MiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "cudaErrorMemoryAllocation",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtMatmulAlgoGetHeuristic( ltHandle )`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "FIND was unable to find an engine to execute this computation",
    "MPS backend out of memory (MPS allocated: 17.00 GB, other allocations: 1.00 GB, max allowed: 18.13 GB)",
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 80 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 B.",
    "cudaHostAlloc failed with error 2",
]
OTHER = [
    "",
    "out of resource: shared memory, Required: 131072, Hardware limit: 101376. Reducing block sizes may help.",
    "out of resources: shared memory, out of memory for this block",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: operation not permitted when stream is capturing",
    "CUDA error: device-side assert triggered",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
    "expected a contiguous tensor in channels-last memory",
    "mat1 and mat2 shapes cannot be multiplied",
]


@pytest.mark.parametrize("text", FULL)
def test_every_librarys_spelling_is_known(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", OTHER)
def test_other_errors_are_not_taken_for_it(text: str) -> None:
    assert not is_out_of_memory(RuntimeError(text))


@given(st.sampled_from(FULL), st.text(max_size=40), st.text(max_size=40))
def test_whatever_stands_around_it(text: str, before: str, behind: str) -> None:
    assert is_out_of_memory(RuntimeError(f"{before}\n{text}\n{behind}"))


def test_types_that_mean_nothing_else() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("anything"))
    assert is_out_of_memory(OutOfMemoryError())
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))


def test_only_a_librarys_text_counts() -> None:
    assert not is_out_of_memory(InputError("The clip is called out of memory."))
    assert not is_out_of_memory(UnknownError("out of memory"))
    assert not is_out_of_memory(ValueError("out of memory"))


def after(error: BaseException, first: BaseException, *, cause: bool = False) -> BaseException:
    """The error as it is when it was raised while the first was handled, or from it."""
    error.__context__ = first
    if cause:
        error.__cause__, error.__suppress_context__ = first, True
    return error


def test_it_is_found_behind_the_error_that_came_of_it() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory")
    ended = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert is_out_of_memory(after(ended, full))
    assert is_out_of_memory(after(PipelineUnavailableError("No."), full, cause=True))
    assert not is_out_of_memory(after(RuntimeError("no"), ValueError("out"), cause=True))


def test_what_was_suppressed_does_not_count_and_circles_end() -> None:
    error = after(InputError("Taken back."), MemoryError())
    error.__suppress_context__ = True
    assert not is_out_of_memory(error)
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert not is_out_of_memory(one)
