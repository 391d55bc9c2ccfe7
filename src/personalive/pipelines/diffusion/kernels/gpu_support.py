"""The families of GPUs: their shared memory per block, and the kernels that they support.

A family is named by the compute capability it begins with. The table was made by compiling every kernel for every
family; a test compiles the supported ones again, on any machine.
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
"""The most shared memory in KB that a block can have, by family (CUDA's programming guide)."""

MIN_FLOAT8_CAPABILITY: Capability = (8, 9)
"""The capability from which GPUs multiply 8-bit floats."""
_MIN_TMA_CAPABILITY: Capability = (9, 0)
"""The capability from which GPUs have a tensor memory accelerator (TMA)."""


def _capabilities_before(first: Capability) -> frozenset[Capability]:
    return frozenset(known for known in SHARED_MEMORY_KB if known < first)


UNSUPPORTED_ON: Mapping[str, frozenset[Capability]] = {
    # Without it, descriptors become loads of two bytes each, nothing is prefetched, and accumulators spill.
    "_linear_geglu_kernel": _capabilities_before(_MIN_TMA_CAPABILITY),
    # 7.5 has no asynchronous copies. On 9.0 the kernel with descriptors is faster than the library at every width.
    "_linear_geglu_pointers_kernel": frozenset({(7, 5), (9, 0)}),
    # As above, and before 8.9 no instruction multiplies codes.
    "_fp8_conv_kernel": _capabilities_before(_MIN_TMA_CAPABILITY),
    "_fp8_conv_pointer_kernel": _capabilities_before(MIN_FLOAT8_CAPABILITY) | {(9, 0)},
    # Its matrix products become ordinary arithmetic there, and spill.
    "_temporal_attention_kernel": frozenset({(7, 5)}),
}
"""Kernels, by their functions' names, and the families for which they do not compile, or only to slow code."""


def find_gpu_family(capability: Capability) -> Capability | None:
    """Return the newest family that is not newer than this capability, None for one older than all."""
    return max((known for known in SHARED_MEMORY_KB if known <= capability), default=None)


def unsupported_kernels(capability: Capability) -> frozenset[str]:
    """Return the kernels of `UNSUPPORTED_ON` that a GPU of this capability does not support."""
    return frozenset(kernel for kernel in UNSUPPORTED_ON if not is_kernel_supported(kernel, capability))


def is_kernel_supported(kernel: str, capability: Capability) -> bool:
    """Return whether a GPU of this capability supports the kernel of that name."""
    known = find_gpu_family(capability)
    return known is not None and known not in UNSUPPORTED_ON.get(kernel, frozenset())
