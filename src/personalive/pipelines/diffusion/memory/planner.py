"""Memory plans from the fastest to the leanest, and the bytes that each needs.

All plans give the same frames, except that the first differs from the others by rounding: it decodes two frames at
a time, and its reference UNet, which does not wait on the host, is laid out for our kernels. Two savings are not
used. Recording fewer numbers of history keyframes would save nothing, as recordings of one stage share their memory
and its peak does not depend on keyframes. Weights in 8 bits would change the frames, which streaming does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from personalive.pipelines.diffusion.checkpoints.network_specs import NETWORKS, TINY_VAE
from personalive.pipelines.diffusion.device.unet_streaming import BUFFER_COUNT, select_evenly
from personalive.pipelines.diffusion.memory.footprint import (
    EntryDtype,
    StepBytes,
    WeightBytes,
    count_step_bytes,
    count_weight_bytes,
)
from personalive.pipelines.diffusion.memory.plan import MemoryPlan
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.stages.frame_decoder import frames_at_once

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.components import Components

REFERENCE_NETWORKS = ("image_encoder", "vae.encoder")
"""The networks that only a new reference needs."""
KEYFRAME_NETWORK = "reference_unet"
"""The network that only a new reference or keyframe needs."""
_MAX_REFERENCES, _MIN_REFERENCES = 8, 2
_STREAMED_SHARES = {"half": 0.5, "most": 0.7, "stream": 1.0}
"""The share of the denoising UNet that is streamed, by the plan's name."""
_UNCOUNTED_BYTES = 160 << 20
"""Bytes of what is not counted: cuBLAS's workspaces, recordings' inputs and results, a step's small tensors."""


def make_plans(
    weights: WeightBytes, step: StepBytes, parameters: PersonaLiveLoadParameters
) -> tuple[MemoryPlan, ...]:
    """Return all plans for a CUDA device; each needs less memory than the one before."""
    found: list[MemoryPlan] = []
    for plan in _iterate_plans(weights, parameters):
        session = 2 * (1 + parameters.max_keyframes) * step.bank + step.bank
        counted = replace(plan, need=_estimate_need(plan, weights, step, parameters), session=session)
        if not found or counted.need < found[-1].need:
            found.append(counted)
    return tuple(found)


def make_plans_for_components(
    components: Components, parameters: PersonaLiveLoadParameters
) -> tuple[MemoryPlan, ...]:
    """Return all plans for networks that are loaded, on any device."""
    networks = components.networks()
    kept = {
        (network, entry): tensor.dtype
        for network, module in networks.items()
        for entry, tensor in module.state_dict().items()
    }
    return make_plans_for_networks(
        networks, lambda *names: kept[names], parameters, components.dtype, components.device
    )


def make_plans_for_networks(
    networks: Mapping[str, nn.Module],
    entry_dtype: EntryDtype,
    parameters: PersonaLiveLoadParameters,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[MemoryPlan, ...]:
    """Return all plans for networks by name, which may be on the meta device; `dtype`: the type they compute in."""
    found = make_plans(
        count_weight_bytes(networks, entry_dtype), count_step_bytes(networks, parameters, dtype), parameters
    )
    if device.type == "cuda":
        return found
    # Where the device's memory is the host's, waiting on the host saves nothing, so only named plans do it.
    return (replace(found[0], waiting=()), *found[1:])


def make_plans_for_set(
    networks: Mapping[str, nn.Module],
    parameters: PersonaLiveLoadParameters,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[MemoryPlan, ...]:
    """Return all plans for the networks of a set by name, before any weights are read."""
    specs = {network.name: network for network in (*NETWORKS, TINY_VAE)}
    return make_plans_for_networks(
        networks, lambda name, entry: specs[name].resolve_dtype(entry, dtype), parameters, dtype, device
    )


def _iterate_plans(weights: WeightBytes, parameters: PersonaLiveLoadParameters) -> Iterator[MemoryPlan]:
    most = parameters.batch_sessions
    everything = MemoryPlan(
        "off", REFERENCE_NETWORKS, None, most, (), recorded=True, references=_MAX_REFERENCES
    )
    yield everything
    waiting = replace(
        everything,
        name="on",
        waiting=(*REFERENCE_NETWORKS, KEYFRAME_NETWORK),
        frames_at_once=1,
        references=_MIN_REFERENCES,
    )
    yield waiting
    if most > 1:
        waiting = replace(waiting, batch_sessions=1, in_turn=True)
        yield waiting
    if parameters.compile == "full":
        return  # compiled networks cannot be streamed
    for name, share in _STREAMED_SHARES.items():
        units = select_evenly(weights.units, share)
        waiting = replace(waiting, name=name, streamed=units, share=_streamed_share(units, weights))
        yield waiting
    yield replace(waiting, name="least", recorded=False)


def _streamed_share(units: Sequence[int], weights: WeightBytes) -> float:
    return sum(weights.units[number] for number in units) / max(sum(weights.units), 1)


def _estimate_need(
    plan: MemoryPlan, weights: WeightBytes, step: StepBytes, parameters: PersonaLiveLoadParameters
) -> int:
    sessions = plan.batch_sessions
    attended = (1 + parameters.max_keyframes) * step.bank
    # While a session gets a keyframe, its keys and values exist twice for a moment.
    lasting = (
        _resident_weight_bytes(plan, weights)
        + _UNCOUNTED_BYTES
        + plan.references * step.bank
        + (sessions + 1) * attended
    )
    stepping = _peak_step_bytes(plan, step, parameters)
    fusing = _peak_fuse_bytes(plan, weights, step)
    if not plan.recorded or parameters.compile == "off":
        joined = sessions * attended if sessions > 1 else 0
        return lasting + max(stepping + joined, fusing)
    # Recordings keep their memory, and have separate buffers for keys and values.
    return lasting + sessions * attended + stepping + fusing


def _resident_weight_bytes(plan: MemoryPlan, weights: WeightBytes) -> int:
    there = sum(nbytes for name, nbytes in weights.networks.items() if name not in plan.waiting)
    if not plan.streamed:
        return there
    sizes = [weights.units[number] for number in plan.streamed]
    return there - sum(sizes) + BUFFER_COUNT * max(sizes)


def _peak_step_bytes(plan: MemoryPlan, step: StepBytes, parameters: PersonaLiveLoadParameters) -> int:
    """Return the bytes of the stage that takes most."""
    frames = plan.batch_sessions * parameters.temporal_window_size
    at_once = plan.frames_at_once or frames_at_once("full", parameters.height * parameters.width)
    decoding = min(at_once, frames) * step.decode + plan.batch_sessions * step.output
    return max(plan.batch_sessions * max(step.unet, step.motion, step.pose), decoding)


def _peak_fuse_bytes(plan: MemoryPlan, weights: WeightBytes, step: StepBytes) -> int:
    """Return the largest number of bytes that fusing a reference takes."""
    brought = weights.reference_unit if KEYFRAME_NETWORK in plan.waiting else 0
    return max(
        weights.networks["image_encoder"],
        weights.networks["vae.encoder"] + step.encode,
        2 * step.bank + step.reference + brought,
    )
