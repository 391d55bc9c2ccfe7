"""The figures in `data/`: what the released networks' entries are, and what their outputs must be.

Figures are of synthetic weights and inputs (`recipe`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion, MotionExtractor
from tests.pipelines.diffusion import recipe

DATA = Path(__file__).parent / "data"
TOLERANCE = 5e-5
"""Relative error per frame that a right implementation stays below, in float32."""

CONSTANTS = ("pe", "idx_tensor", "position_ids")
"""Last parts of the names of entries that are computed, not learned."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Case:
    """A session whose figures are known: `arrays` by name, its inputs made on demand."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def load(cls, path: Path) -> Case:
        """From a JSON file beside its arrays."""
        facts = json.loads(path.read_text())
        with np.load(path.with_name(facts["data"])) as arrays:
            return cls(facts, dict(arrays))

    @property
    def height(self) -> int:
        return int(self.facts["height"])

    @property
    def width(self) -> int:
        return int(self.facts["width"])

    @property
    def salt(self) -> str:
        return str(self.facts["salt"])

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def reference(self, height: int, width: int) -> Tensor:
        """The reference at that size, (1, 3, height, width) in 0…255."""
        size = [int(self.facts.get(f"reference_{side}", self.facts[side])) for side in ("height", "width")]
        image = Image.fromarray(recipe.image(self.facts["reference"], *size))
        return _planes(np.array(image.resize((width, height), Image.Resampling.LANCZOS))[None])

    def driving(self) -> Tensor:
        """The driving frames, (N, 3, height, width) in [-1, 1]."""
        frames = recipe.video(self.facts["driving"], 4 * self.facts["chunks"], self.height, self.width)
        return _planes(frames) / 127.5 - 1


class Motions(NamedTuple):
    """Head motion of a case's reference, and of some of its driving frames, the session's first in front."""

    reference: HeadMotion
    driving: HeadMotion
    frames: tuple[int, ...]

    @property
    def first(self) -> HeadMotion:
        return HeadMotion(*(part[:1] for part in self.driving))


def extract(case: Case, extractor: MotionExtractor, frames: tuple[int, ...]) -> Motions:
    """What the extractor tells of a case, as a session asks it."""
    size = (extractor.params.image_size,) * 2
    resized = F.interpolate(case.driving()[list(frames)], size, mode="bilinear", align_corners=False)
    return Motions(extractor(case.reference(*size) / 255), extractor((resized + 1) / 2), frames)


@cache
def released_entries() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the released files' entries, per network."""
    entries: dict[str, dict[str, list[int]]] = json.loads((DATA / "checkpoints.json").read_text())
    return entries


def entries(network: nn.Module) -> dict[str, list[int]]:
    """Names and shapes of a network's entries."""
    return {key: list(value.shape) for key, value in network.state_dict().items()}


def filled(build: Callable[[], Network], name: str) -> Network:
    """The network that `build` makes, with the synthetic weights of that name, salt in front."""
    with torch.device("meta"):
        network = build()
    state = {
        key: value
        if key.rpartition(".")[2] in CONSTANTS
        else torch.from_numpy(np.asarray(recipe.weight(name, key, value.shape)))
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()


def relative_errors(ours: Tensor, theirs: Tensor) -> Tensor:
    """‖ours - theirs‖ / ‖theirs‖ per frame, the first axis."""
    assert ours.shape == theirs.shape
    ours, theirs = ours.flatten(1).double(), theirs.flatten(1).double()
    errors: Tensor = torch.linalg.vector_norm(ours - theirs, dim=1) / torch.linalg.vector_norm(theirs, dim=1)
    return errors


def assert_near(ours: Tensor, theirs: Tensor, largest: float = 0.0) -> None:
    """Compare two ways to compute the same float32 values.

    Processors sum in different orders, and what they round has the size of the terms, not of a small sum of them.
    So a value may be off by a share of the tensor's largest, or of the `largest` term where results are smaller.
    """
    bound = max(largest, float(theirs.detach().abs().max()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * bound)


def on_meta(network: nn.Module, constants: Sequence[str]) -> bool:
    """Whether everything but those constants lies on the meta device, and they on the CPU."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    real = {name for name, tensor in tensors if not tensor.is_meta}
    return real == set(constants)


def _planes(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()
