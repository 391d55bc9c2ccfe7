"""What is given up for memory, in order: plans from the fastest to the leanest, and the first that fits.

All of them give the same frames, but for rounding where frames are decoded one by one. Not among them: fewer
history keyframes recorded, which would save nothing, as recordings of one stage share their memory and its peak
does not depend on keyframes; and weights in 8 bits, which would change frames for what streaming gives without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from personalive.errors import PipelineUnavailableError
from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters
from personalive.pipelines.personalive.speed.counting import (
    KeptAs,
    StepBytes,
    WeightBytes,
    step_bytes,
    weight_bytes,
)
from personalive.pipelines.personalive.speed.streaming import PLACES, evenly

if TYPE_CHECKING:
    from personalive.pipelines.personalive.models import Models

RARE = ("image_encoder", "vae.encoder")
"""What only a new reference needs."""
SELDOM = "reference_unet"
"""What only a new reference or keyframe needs."""
_REFERENCES, _FEW_REFERENCES = 8, 2
_STREAMED = {"half": 0.5, "most": 0.7, "stream": 1.0}
"""Name → share of the denoising UNet that is streamed."""
_OTHER = 160 << 20
"""Bytes of what is not counted: cuBLAS's workspaces, recordings' inputs and results, a step's small tensors."""
GB = 1e9


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
    def on_host(self) -> tuple[str, ...]:
        """The networks that are not to be loaded to the device, but are brought there by whoever streams them."""
        return ("denoising_unet",) if self.streamed else ()

    @property
    def sentence(self) -> str:
        """What is given up, for people; empty where nothing is."""
        if self.name == "off":
            return ""
        said = "references wait on the host, frames are decoded one by one"
        if self.in_turn:
            said += ", sessions are stepped in turn"
        if self.streamed:
            said += f", {100 * self.share:.0f} % of the denoising UNet is streamed from the host"
        return said if self.recorded else f"{said}, steps are not recorded"

    def summary(self, free: int) -> str:
        """The plan in one line, beside the bytes that were free for it."""
        room = f"{free / GB:.1f} GB free, some {self.need / GB:.1f} needed"
        return f"memory plan {self.name}: {self.sentence or 'nothing is given up'} ({room})"


def plans(
    weights: WeightBytes, step: StepBytes, parameters: PersonaLiveLoadParameters
) -> tuple[MemoryPlan, ...]:
    """All plans for a CUDA device, each needing less than the one before."""
    found: list[MemoryPlan] = []
    for plan in _in_order(weights, parameters):
        session = 2 * (1 + parameters.max_keyframes) * step.bank + step.bank
        counted = replace(plan, need=_need(plan, weights, step, parameters), session=session)
        if not found or counted.need < found[-1].need:
            found.append(counted)
    return tuple(found)


def plans_of(models: Models, parameters: PersonaLiveLoadParameters) -> tuple[MemoryPlan, ...]:
    """All plans for networks that are loaded, wherever they are."""
    networks = models.networks()
    kept = {
        (network, entry): tensor.dtype
        for network, module in networks.items()
        for entry, tensor in module.state_dict().items()
    }
    return plans_for(networks, lambda *names: kept[names], parameters, models.dtype, models.device)


def plans_for(
    networks: Mapping[str, nn.Module],
    kept_as: KeptAs,
    parameters: PersonaLiveLoadParameters,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[MemoryPlan, ...]:
    """All plans for networks by name, which may be on the meta device; `dtype`: what they compute in."""
    found = plans(weight_bytes(networks, kept_as), step_bytes(networks, parameters, dtype), parameters)
    if device.type == "cuda":
        return found
    # There is nothing to save where the device's memory is the host's, unless it is asked for.
    return (replace(found[0], waiting=()), *found[1:])


def _in_order(weights: WeightBytes, parameters: PersonaLiveLoadParameters) -> Iterator[MemoryPlan]:
    most = parameters.batch_sessions
    everything = MemoryPlan("off", RARE, None, most, (), recorded=True, references=_REFERENCES)
    yield everything
    waiting = replace(
        everything, name="on", waiting=(*RARE, SELDOM), frames_at_once=1, references=_FEW_REFERENCES
    )
    yield waiting
    if most > 1:
        waiting = replace(waiting, batch_sessions=1, in_turn=True)
        yield waiting
    if parameters.compile == "full":
        return  # what is compiled cannot be streamed
    for name, share in _STREAMED.items():
        units = evenly(weights.units, share)
        waiting = replace(waiting, name=name, streamed=units, share=_share(units, weights))
        yield waiting
    yield replace(waiting, name="least", recorded=False)


def _share(numbers: Sequence[int], weights: WeightBytes) -> float:
    return sum(weights.units[number] for number in numbers) / max(sum(weights.units), 1)


def _need(
    plan: MemoryPlan, weights: WeightBytes, step: StepBytes, parameters: PersonaLiveLoadParameters
) -> int:
    sessions = plan.batch_sessions
    attended = (1 + parameters.max_keyframes) * step.bank
    # Of a session that gets a keyframe, what it attends to is there twice for a moment.
    lasting = _weights(plan, weights) + _OTHER + plan.references * step.bank + (sessions + 1) * attended
    stepping = _stepping(plan, step, parameters)
    fusing = _fusing(plan, weights, step)
    if not plan.recorded or parameters.compile == "off":
        joined = sessions * attended if sessions > 1 else 0
        return lasting + max(stepping + joined, fusing)
    # Recordings keep their memory, and what they attend to has a place of its own.
    return lasting + sessions * attended + stepping + fusing


def _weights(plan: MemoryPlan, weights: WeightBytes) -> int:
    there = sum(nbytes for name, nbytes in weights.networks.items() if name not in plan.waiting)
    if not plan.streamed:
        return there
    sizes = [weights.units[number] for number in plan.streamed]
    return there - sum(sizes) + PLACES * max(sizes)


def _stepping(plan: MemoryPlan, step: StepBytes, parameters: PersonaLiveLoadParameters) -> int:
    """The most that any stage takes."""
    frames = plan.batch_sessions * parameters.temporal_window_size
    # Two of 512×512 fill a device; see `decoding.py`.
    at_once = plan.frames_at_once or max(2 * 512 * 512 // (parameters.height * parameters.width), 1)
    decoding = min(at_once, frames) * step.decoded + plan.batch_sessions * step.shown
    return max(plan.batch_sessions * max(step.unet, step.see, step.pose), decoding)


def _fusing(plan: MemoryPlan, weights: WeightBytes, step: StepBytes) -> int:
    """The most that fusing a reference takes."""
    brought = weights.reference_unit if SELDOM in plan.waiting else 0
    return max(
        weights.networks["image_encoder"],
        weights.networks["vae.encoder"] + step.encoded,
        2 * step.bank + step.referred + brought,
    )


def candidates(found: Sequence[MemoryPlan], wanted: str, free: int | None = None) -> tuple[MemoryPlan, ...]:
    """The plans to try in turn where `free` bytes are: from the fastest that fits to the leanest.

    None: there is room for all. `wanted` names one that is forced: then it is the only one, whether it fits or not.
    Raises `PipelineUnavailableError` where none fits or none has that name.
    """
    if wanted != "auto":
        forced = [plan for plan in found if plan.name == wanted]
        if not forced:
            raise PipelineUnavailableError(
                f"low_vram={wanted} would save nothing here, or does not go with compile=full: take auto."
            )
        return (forced[0],)
    fitting = tuple(plan for plan in found if free is None or plan.need <= free)
    if not fitting:
        assert free is not None
        raise PipelineUnavailableError(too_little(found[-1].need, free))
    return fitting


def too_little(need: int, free: int, reason: str = "") -> str:
    """The sentence for a device on which nothing runs; `reason` is what a library said at last."""
    said = f" ({reason})" if reason else ""
    return (
        f"There is too little GPU memory: some {need / GB:.1f} GB are needed as set and {free / GB:.1f} GB are "
        f"free{said}. Close other programs that use the GPU, or load with a smaller height and width."
    )
