"""Conversion of a session's state to bytes and back, so that a stopped run can be continued to the same result.

The format is a SHA-256 hash followed by safetensors, whose header holds everything that is not a tensor as JSON.
The hash is checked first, so damage is noticed before anything is parsed. What can be computed from the rest is
left out: the reference, and the keys and values of history keyframes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from personalive.errors import InputError
from personalive.pipelines.base import FrameState
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.networks.denoising_unet import concat_banks
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveRunParameters
from personalive.pipelines.diffusion.sampling.engine import SessionState
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.sampling.window import WindowState, compute_keyframe_banks
from personalive.pipelines.diffusion.stages.motion_features import DriverState

FORMAT_VERSION = 1
_DIGEST_BYTES = 32
_HEADS = ("first", "head", "calm")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A session's whole state. `reference` is its id; `tracker` is what `Prefetcher.restore_state` takes."""

    reference: str
    state: SessionState
    parameters: PersonaLiveRunParameters
    pending: tuple[tuple[float, FrameState], ...]
    noise: Tensor
    next_noise: Tensor | None
    tracker: dict[str, Any]


def serialize(snapshot: Snapshot) -> bytes:
    """Return the snapshot as bytes."""
    facts = {
        "format": FORMAT_VERSION,
        "reference": snapshot.reference,
        "parameters": snapshot.parameters.model_dump(mode="json"),
        "chunk": snapshot.state.window.chunk,
        "waiting": snapshot.pending,
        "watch": snapshot.tracker,
    }
    tensors = {name: tensor.contiguous().cpu() for name, tensor in _collect_tensors(snapshot).items()}
    body = save_tensors(tensors, {"session": json.dumps(facts)})
    return hashlib.sha256(body).digest() + body


def _collect_tensors(snapshot: Snapshot) -> dict[str, Tensor]:
    window, driver = snapshot.state.window, snapshot.state.driver
    tensors = {"latents": window.latents, "expressions": window.expressions, "noise": snapshot.noise}
    optional = {
        "motion": window.motion,
        "pose": window.pose,
        "next_noise": snapshot.next_noise,
        "tokens": None if driver is None else driver.tokens,
    }
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    tensors |= {f"keyframe.{index}": latents.clone() for index, latents in enumerate(window.keyframes)}
    if driver is not None:
        for name in _HEADS:
            head = cast("HeadMotion", getattr(driver, name))
            tensors |= {f"{name}.{part}": value.clone() for part, value in head._asdict().items()}
    return tensors


@torch.inference_mode()
def deserialize(data: bytes, components: Components, reference: FusedReference) -> Snapshot:
    """Return the snapshot of a session on `reference` that the bytes hold.

    Raises `InputError` for bytes that are no snapshot, or one with another reference, size, weights or version.
    """
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise InputError("These bytes are no snapshot of a session, or were damaged.")
    try:
        facts = _read_metadata(body, reference)
        tensors = {name: tensor.to(components.device) for name, tensor in load_tensors(body).items()}
        return Snapshot(
            reference=reference.id,
            state=SessionState(
                _restore_window(tensors, facts["chunk"], components, reference), _restore_driver(tensors)
            ),
            parameters=PersonaLiveRunParameters.model_validate(facts["parameters"]),
            pending=tuple((float(time), FrameState(state)) for time, state in facts["waiting"]),
            noise=tensors["noise"].cpu(),
            next_noise=tensors["next_noise"].cpu() if "next_noise" in tensors else None,
            tracker=facts["watch"],
        )
    except InputError:
        raise
    except Exception as error:  # any bytes may be given
        raise InputError("These bytes are no snapshot of a session.") from error


def _read_metadata(data: bytes, reference: FusedReference) -> dict[str, Any]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts: dict[str, Any] = json.loads(header["__metadata__"]["session"])
    if facts["format"] != FORMAT_VERSION or facts["reference"] != reference.id:
        raise InputError("This snapshot is of a session with another reference, size, weights or version.")
    return facts


def _restore_window(
    tensors: dict[str, Tensor], chunk: int, components: Components, reference: FusedReference
) -> WindowState:
    keyframes = tuple(tensors[f"keyframe.{index}"] for index in range(len(tensors["expressions"]) - 1))
    sources = [
        reference.banks,
        *(compute_keyframe_banks(components, reference, latents) for latents in keyframes),
    ]
    return WindowState(
        latents=tensors["latents"],
        motion=tensors.get("motion"),
        pose=tensors.get("pose"),
        keyframes=keyframes,
        expressions=tensors["expressions"],
        banks=concat_banks(sources) if keyframes else reference.banks,
        chunk=chunk,
    )


def _restore_driver(tensors: dict[str, Tensor]) -> DriverState | None:
    if "tokens" not in tensors:
        return None
    first, head, calm = (
        HeadMotion(*(tensors[f"{name}.{part}"] for part in HeadMotion._fields)) for name in _HEADS
    )
    return DriverState(first, head, tensors["tokens"], calm)
