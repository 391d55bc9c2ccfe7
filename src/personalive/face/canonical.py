"""The canonical face: the neutral head that landmarks and head pose refer to.

Read from the geometry metadata inside the landmark model, so that mesh, triangles and model always agree.
Axes: x to the viewer's right, y up, z towards the viewer; unit centimetre; origin inside the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from personalive.face.model_bundle import read_bundle_member

_METADATA = "geometry_pipeline_metadata_landmarks.binarypb"


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalFace:
    """The neutral head as a mesh.

    `vertices` float64 (468, 3) cm; `triangles` int32 (898, 3); `rigid_weights` float64 (468,).
    The triangles close the eyes and the mouth; `rigid_weights` are large where expressions move little: a
    rigid head pose is fitted with them.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int32]
    rigid_weights: NDArray[np.float64]


@cache
def load_canonical_face() -> CanonicalFace:
    """Load the canonical face from the vendored model."""
    numbers: list[float] = []
    corners: list[int] = []
    weights = np.zeros(468)
    for field, value in _parse_fields(read_bundle_member(_METADATA)):
        if field == 1 and isinstance(value, bytes):
            for part, entry in _parse_fields(value):
                if part == 3 and isinstance(entry, bytes):
                    numbers.append(_decode_float(entry))
                elif part == 4 and isinstance(entry, int):
                    corners.append(entry)
        elif field == 2 and isinstance(value, bytes):
            basis = dict(_parse_fields(value))
            index, weight = basis[1], basis[2]
            assert isinstance(index, int)
            assert isinstance(weight, bytes)
            weights[index] = _decode_float(weight)
    vertices = np.asarray(numbers).reshape(468, 5)[:, :3].copy()
    for array in (vertices, weights):
        array.setflags(write=False)
    return CanonicalFace(vertices, np.asarray(corners, np.int32).reshape(898, 3), weights)


def _decode_float(entry: bytes) -> float:
    return float(np.frombuffer(entry, "<f4")[0])


def _parse_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protocol-buffer message as (number, value): varints as int, the rest as bytes.

    See: https://protobuf.dev/programming-guides/encoding/
    """
    position = 0
    while position < len(data):
        key, position = _decode_varint(data, position)
        kind = key & 7
        if kind == 0:
            number, position = _decode_varint(data, position)
            yield key >> 3, number
            continue
        if kind == 2:
            length, position = _decode_varint(data, position)
        else:
            length = {1: 8, 5: 4}[kind]
        yield key >> 3, data[position : position + length]
        position += length


def _decode_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
