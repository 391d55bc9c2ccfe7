"""A plan for a GPU's memory, and the choice among plans. `planner.py` makes them; this module needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from personalive.errors import PipelineUnavailableError

RESERVED_BYTES = 300 << 20
"""Bytes that libraries, recordings and the kernels' code take in addition to what is planned for."""
CUDA_CONTEXT_BYTES = 400 << 20
"""Bytes that CUDA takes for a process before its first tensor: 0.3 to 0.5 GB, more on larger GPUs."""
REMEDY = "Close other programs that use the GPU, or load with a smaller height and width."
"""The advice for users whose GPU has too little memory."""
_GB = 1e9


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a pipeline uses a device's memory.

    `name` is the value of `low_vram` that forces it; `waiting`: the networks, or parts of one, that wait on the
    host; `frames_at_once`: frames decoded together, None for as many as fill a device; `batch_sessions`: sessions
    that may share a call; `streamed`: the indices of the denoising UNet's units that are streamed from the host;
    `recorded`: False forbids recording stages, also where `compile` asks for it; `references`: the number of fused
    references that are kept; `need`: an upper estimate of the bytes of the device; `session`: bytes of one more
    session.
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
    """The share of the denoising UNet's bytes that is streamed."""
    in_turn: bool = False
    """Whether fewer sessions share a call than was asked for."""

    @property
    def host_networks(self) -> tuple[str, ...]:
        """The networks that are loaded to the host and not to the device, because they are streamed."""
        return ("denoising_unet",) if self.streamed else ()

    @property
    def description(self) -> str:
        """A sentence part for people on what is given up."""
        if self.name == "off":
            return "nothing is given up"
        sentence = "references wait on the host, frames are decoded one by one"
        if self.in_turn:
            sentence += ", sessions are stepped in turn"
        if self.streamed:
            sentence += f", {100 * self.share:.0f} % of the denoising UNet is streamed from the host"
        return sentence if self.recorded else f"{sentence}, steps are not recorded"

    def describe_for_card(self, total: int) -> str:
        """Describe the plan in one line for a GPU with that number of bytes."""
        return f"{total / 2**30:.0f} GB card: {self.description}"

    def summary(self, free: int) -> str:
        """Describe the plan in one line, with the bytes that were free for it."""
        room = f"{free / _GB:.1f} GB free, some {self.need / _GB:.1f} needed"
        return f"memory plan {self.name}: {self.description} ({room})"


def select_plans(
    plans: Sequence[MemoryPlan], requested: str, free: int | None = None
) -> tuple[MemoryPlan, ...]:
    """Return the plans to try in turn where `free` bytes are available: from the fastest that fits to the leanest.

    `plans` are in that order. If `free` is None, all fit. If `requested` is not "auto", the only result is the plan
    of that name, whether it fits or not. Raises `PipelineUnavailableError` where no plan fits or has that name.
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
    """Return the message for a device with too little memory for any plan; `reason` is a library's last error."""
    detail = f" ({reason})" if reason else ""
    return (
        f"There is too little GPU memory: some {need / _GB:.1f} GB are needed as set and {free / _GB:.1f} GB are "
        f"free{detail}."
    )
