"""A plan for a GPU's memory, and which of several to take. `planning` makes them; this needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from personalive.errors import PipelineUnavailableError

RESERVED_BYTES = 300 << 20
"""Bytes that libraries, recordings and the kernels' code take beside what is planned for."""
CUDA_CONTEXT_BYTES = 400 << 20
"""Bytes that CUDA takes for a process before its first tensor: 0.3 to 0.5 GB, the more the larger the GPU."""
REMEDY = "Close other programs that use the GPU, or load with a smaller height and width."
"""What to do where there is too little memory."""
_GB = 1e9


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a pipeline uses a device's memory.

    `name` is the value of `low_vram` that forces it; `waiting`: the networks, or parts of one, that wait on the
    host; `frames_at_once`: frames decoded together, None for as many as fill a device; `batch_sessions`: sessions
    that may share a call; `streamed`: which of the denoising UNet's units wait on the host and arrive as it runs;
    `recorded`: whether stages are recorded where they would be; `references`: fused ones that are kept; `need`:
    bytes of the device, estimated from above; `session`: those of one more session.
    """

    name: str
    waiting: tuple[str, ...]
    frames_at_once: int | None
    batch_sessions: int
    streamed: tuple[int, ...]
    recorded: bool
    references: int
    need: int = 0
    session: int = 0
    share: float = 0.0
    """Of the denoising UNet's bytes, how many are streamed."""
    in_turn: bool = False
    """Whether fewer sessions share a call than was asked for."""

    @property
    def host_networks(self) -> tuple[str, ...]:
        """The networks that are not to be loaded to the device, but are brought there by whoever streams them."""
        return ("denoising_unet",) if self.streamed else ()

    @property
    def description(self) -> str:
        """What is given up, for people."""
        if self.name == "off":
            return "nothing is given up"
        said = "references wait on the host, frames are decoded one by one"
        if self.in_turn:
            said += ", sessions are stepped in turn"
        if self.streamed:
            said += f", {100 * self.share:.0f} % of the denoising UNet is streamed from the host"
        return said if self.recorded else f"{said}, steps are not recorded"

    def describe_for_card(self, total: int) -> str:
        """The plan in one line for a card of so many bytes."""
        return f"{total / 2**30:.0f} GB card: {self.description}"

    def summary(self, free: int) -> str:
        """The plan in one line, beside the bytes that were free for it."""
        room = f"{free / _GB:.1f} GB free, some {self.need / _GB:.1f} needed"
        return f"memory plan {self.name}: {self.description} ({room})"


def select_plans(
    plans: Sequence[MemoryPlan], requested: str, free: int | None = None
) -> tuple[MemoryPlan, ...]:
    """Return the plans to try in turn where `free` bytes are: from the fastest that fits to the leanest.

    `plans` are in that order. None: there is room for all. `requested` names one that is forced: then it is the only
    one, whether it fits or not. Raises `PipelineUnavailableError` where none fits or none has that name.
    """
    if requested != "auto":
        forced = [plan for plan in plans if plan.name == requested]
        if not forced:
            raise PipelineUnavailableError(
                f"low_vram={requested} would save nothing here, or does not go with compile=full: take auto."
            )
        return (forced[0],)
    if free is None:
        return tuple(plans)
    fitting = tuple(plan for plan in plans if plan.need <= free)
    if not fitting:
        raise PipelineUnavailableError(f"{describe_shortage(plans[-1].need, free)} {REMEDY}")
    return fitting


def describe_shortage(need: int, free: int, reason: str = "") -> str:
    """Return the sentence for a device on which nothing runs; `reason` is what a library said at last."""
    said = f" ({reason})" if reason else ""
    return (
        f"There is too little GPU memory: some {need / _GB:.1f} GB are needed as set and {free / _GB:.1f} GB are "
        f"free{said}."
    )
