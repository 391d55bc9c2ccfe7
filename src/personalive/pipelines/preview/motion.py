"""The motion that a driver asks of a portrait, independent of the driver's face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from personalive.face.face import LANDMARK_COUNT
from personalive.face.pose import Double

_ARRAY_FIELDS = ("rotation", "translation", "shape", "closure", "gaze")


def _identity() -> Double:
    return np.eye(3)


@dataclass(frozen=True, slots=True, eq=False)
class PortraitMotion:
    """The motion of one frame, relative to the portrait. The default, without motion, leaves it unchanged.

    `rotation` float64 (3, 3), applied after the portrait's own; `translation` float64 (3,), cm of the head's
    own size, y up; `scale` ratio of head sizes. `shape` float64 (478, 3): displacement of each landmark in the
    head's frame, cm of the canonical face, the lids left out. `closure` float64 (2,), subject's right eye first:
    0 as open as in the portrait, 1 closed, below 0 opened wider. `gaze` float64 (2, 2): displacement of each iris,
    in widths of its eye, x to the picture's right, y up.
    """

    rotation: Double = field(default_factory=_identity)
    translation: Double = field(default_factory=lambda: np.zeros(3))
    scale: float = 1.0
    shape: Double = field(default_factory=lambda: np.zeros((LANDMARK_COUNT, 3)))
    closure: Double = field(default_factory=lambda: np.zeros(2))
    gaze: Double = field(default_factory=lambda: np.zeros((2, 2)))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {"scale": float(self.scale), **{name: getattr(self, name).tolist() for name in _ARRAY_FIELDS}}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> PortraitMotion:
        """Create the motion whose `to_dict` this is."""
        arrays = {name: np.array(state[name], np.float64) for name in _ARRAY_FIELDS}
        return cls(scale=float(state["scale"]), **arrays)
