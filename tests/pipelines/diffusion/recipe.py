"""Weights and inputs made from their names alone, so that networks can be checked without released weights.

Every array is a pure function of its name and shape. The figures in `data/` were computed with these arrays;
changing anything here makes them worthless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Image = NDArray[np.uint8]

CLIP_KEYS = 5
CLIP_PACE = 0.29


def generator(name: str) -> np.random.Generator:
    """The random stream of that name, seeded from the start of the name's SHA-256."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def weight(model: str, key: str, shape: Sequence[int]) -> NDArray[Any]:
    """State-dict entry `key` of network `model` (its salt in front): float32, int64 where it counts batches."""
    shape = tuple(shape)
    module, _, leaf = key.rpartition(".")
    random = generator(f"{model}/{key}")
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "running_var":
        return 1.0 + 0.2 * random.random(shape, dtype=np.float32)
    special = _extractor_head(model, module) or _encoder_end(model, module)
    if special is not None and leaf == "bias":
        low, high = special[1]
        return random.uniform(low, high, shape).astype(np.float32)
    if leaf == "weight" and len(shape) > 1:
        gain = special[0] if special is not None else 1.0
        return np.float32(gain / sqrt(prod(shape[1:]))) * _normal(random, shape)
    mean, deviation = {"running_mean": (0.0, 0.1), "weight": (1.0, 0.1)}.get(leaf, (0.0, 0.05))
    return np.float32(mean) + np.float32(deviation) * _normal(random, shape)


def array(name: str, shape: Sequence[int]) -> Float:
    """Standard-normal input, float32."""
    return _normal(generator(f"input/{name}"), tuple(shape))


def image(name: str, height: int, width: int, cells: int = 6) -> Image:
    """Smooth RGB picture, uint8 (height, width, 3): random colours at cells × cells nodes, bilinear between."""
    nodes = generator(f"image/{name}").uniform(0, 255, (cells, cells, 3))
    (top, down), (left, right) = _between(cells, height), _between(cells, width)
    across, down = right[None, :, None], down[:, None, None]
    rows = [nodes[row][:, left] * (1 - across) + nodes[row][:, left + 1] * across for row in (top, top + 1)]
    return np.asarray((rows[0] * (1 - down) + rows[1] * down).round().astype(np.uint8))


def video(name: str, frames: int, height: int, width: int) -> Image:
    """Clip, uint8 (frames, height, width, 3): a slow blend through a ring of smooth pictures."""
    keys = [image(f"{name}/{key}", height, width).astype(np.float64) for key in range(CLIP_KEYS)]
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        key, share = divmod(index * CLIP_PACE, 1.0)
        before, after = keys[int(key) % CLIP_KEYS], keys[(int(key) + 1) % CLIP_KEYS]
        clip[index] = ((1 - share) * before + share * after).round()
    return clip


def _extractor_head(model: str, module: str) -> tuple[float, tuple[float, float]] | None:
    """Weight gain and bias range of heads whose raw random outputs would leave the picture."""
    if not model.endswith("motion_extractor"):
        return None
    # Salts that begin with "off" put the face partly out of the frame.
    spread = (-1.3, 0.5) if model.startswith("off") else (-0.22, 0.22)
    heads = {
        "detector.fc_kp": (0.15, spread),
        "detector.fc_scale": (0.05, (1.0, 1.0)),
        "detector.fc_t": (0.10, (0.0, 0.0)),
    }
    return heads.get(module)


def _encoder_end(model: str, module: str) -> tuple[float, tuple[float, float]] | None:
    """Weight gain and bias range of the last layers, which keep motion tokens of order one.

    With larger tokens a random UNet amplifies rounding errors until no two implementations agree.
    """
    if not model.endswith("motion_encoder"):
        return None
    return {"model.conv6": (0.05, (0.5, 0.5)), "final_proj": (3.0, (0.0, 0.0))}.get(module)


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Float:
    return np.asarray(random.standard_normal(shape, dtype=np.float32))


def _between(nodes: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For `count` places spread evenly over the nodes: the node before each, and how far behind it it lies."""
    places = np.linspace(0, nodes - 1, count)
    before = np.minimum(places.astype(np.int64), nodes - 2)
    return before, places - before
