"""What each family of GPUs has for kernels: its memory for a block, and the kernels that it is offered.

A family is named by the compute capability it begins with. What is in this table was compiled for every family, and
the kernels offered are compiled anew by a test, on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping

Capability = tuple[int, int]

SHARED_MEMORY_KB: Mapping[Capability, int] = {
    (7, 5): 64,
    (8, 0): 163,
    (8, 6): 99,
    (8, 9): 99,
    (9, 0): 227,
    (10, 0): 227,
    (12, 0): 99,
}
"""The most that a block can have of a multiprocessor's own memory, of each family (CUDA's programming guide)."""

MIN_FLOAT8_CAPABILITY: Capability = (8, 9)
"""From this capability on GPUs multiply 8-bit floats."""
_MIN_TMA_CAPABILITY: Capability = (9, 0)
"""From this one on they have it."""


def _capabilities_before(first: Capability) -> frozenset[Capability]:
    return frozenset(known for known in SHARED_MEMORY_KB if known < first)


UNSUPPORTED_ON: Mapping[str, frozenset[Capability]] = {
    # Descriptors become loads of two bytes each, nothing is brought ahead, and accumulators spill.
    "_linear_geglu_kernel": _capabilities_before(_MIN_TMA_CAPABILITY),
    # Nothing is copied aside on 7.5. On 9.0 its sister by descriptors beats the library's product at every width.
    "_linear_geglu_pointers_kernel": frozenset({(7, 5), (9, 0)}),
    # As above, and nothing multiplies codes before 8.9.
    "_fp8_conv_kernel": _capabilities_before(_MIN_TMA_CAPABILITY),
    "_fp8_conv_pointer_kernel": _capabilities_before(MIN_FLOAT8_CAPABILITY) | {(9, 0)},
    # Its products of matrices are made of ordinary arithmetic there, and spill.
    "_temporal_attention_kernel": frozenset({(7, 5)}),
}
"""Kernels, by their functions' names, and the families for which they do not compile, or to something useless."""


def find_gpu_family(capability: Capability) -> Capability | None:
    """The newest family that is not newer than this capability, None for one older than all."""
    return max((known for known in SHARED_MEMORY_KB if known <= capability), default=None)


def unsupported_kernels(capability: Capability) -> frozenset[str]:
    """The kernels of `UNSUPPORTED_ON` that a GPU of this capability may not be given."""
    return frozenset(kernel for kernel in UNSUPPORTED_ON if not is_kernel_supported(kernel, capability))


def is_kernel_supported(kernel: str, capability: Capability) -> bool:
    """Whether a GPU of this capability may be given the kernel of that name."""
    known = find_gpu_family(capability)
    return known is not None and known not in UNSUPPORTED_ON.get(kernel, frozenset())
