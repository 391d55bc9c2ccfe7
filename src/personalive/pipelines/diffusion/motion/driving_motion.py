"""A driver's motion without the pictures: extracted once, kept in a file, and applied to any reference."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from personalive.errors import InputError
from personalive.file_replace import replace_file
from personalive.media.partial_files import PartialFileLock, partial_path, remove_stale_partials
from personalive.media.user_paths import check_is_file
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.stages.motion_features import MotionFeatures

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
_HEAD_SHAPES, _TOKENS_SHAPE = ((21, 3), (1,), (), (), (), (3,)), (32, 16)
"""The shapes of each frame's `HeadMotion` fields, and of its motion tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class DrivingMotion:
    """The motion of N driving frames, on the CPU and in float32.

    `head`: their head motion; `tokens` (N, 32, 16); `valid` (N,) bool: whether there was a face; `times` float64
    (N,) seconds; `fps` of the clip; `weights`: the hash of the weights that extracted it, which alone can use it.
    """

    head: HeadMotion
    tokens: Tensor
    valid: Tensor
    times: NDArray[np.float64]
    fps: float
    weights: str

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, frames: slice | NDArray[np.intp]) -> DrivingMotion:
        """Return the motion of some of the frames."""
        own = (self.tokens[frames], self.valid[frames], self.times[frames])
        return DrivingMotion(self.head.select(frames), *own, self.fps, self.weights)

    def pad(self, frames: int) -> DrivingMotion:
        """Return the motion of that number of frames: the first ones, then the last one repeated as needed."""
        return self.select(np.arange(frames).clip(max=len(self) - 1))

    def to_features(self, device: torch.device, dtype: torch.dtype) -> MotionFeatures:
        """Return the motion as the features that a session takes, on the device and in that type."""
        head = self.head.map(lambda value: value.to(device))
        boxes = torch.zeros(len(self), 4, dtype=torch.int64, device=device)
        return MotionFeatures(head, self.tokens.to(device, dtype), boxes, self.valid.to(device))

    @classmethod
    def concatenate(
        cls, parts: list[MotionFeatures], times: NDArray[np.float64], fps: float, weights: str
    ) -> DrivingMotion:
        """Join the features of a clip that were extracted in parts; frames beyond `times` are dropped."""
        count = len(times)

        def together(values: list[Tensor]) -> Tensor:
            whole = torch.cat(values)[:count].cpu()
            return whole.float() if whole.dtype.is_floating_point else whole

        heads = zip(*(part.head for part in parts), strict=True)
        return cls(
            head=HeadMotion(*(together(list(values)) for values in heads)),
            tokens=together([part.tokens for part in parts]),
            valid=together([part.valid for part in parts]),
            times=times,
            fps=fps,
            weights=weights,
        )

    def save(self, path: Path) -> None:
        """Write the motion to a file. Raises `InputError` where it cannot be written."""
        tensors = {f"head.{name}": value for name, value in self.head._asdict().items()}
        tensors |= {"tokens": self.tokens, "valid": self.valid, "times": torch.from_numpy(self.times)}
        facts = {"format": FORMAT_VERSION, "fps": self.fps, "weights": self.weights}
        remove_stale_partials(path.absolute().parent)
        partial = partial_path(path)
        hold: PartialFileLock | None = None
        try:
            owned = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
            # Not by `save_file`, whose files only their owner may read.
            partial.touch()
            hold = PartialFileLock(partial)
            partial.write_bytes(save(owned, {"motion": json.dumps(facts)}))
            replace_file(partial, path)
        except OSError as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{path} cannot be written: {reason.rstrip('.')}.") from error
        finally:
            partial.unlink(missing_ok=True)
            if hold is not None:
                hold.release()

    @classmethod
    def load(cls, path: Path) -> DrivingMotion:
        """Read a motion from a file. Raises `InputError` for a file that does not exist or holds no motion."""
        check_is_file(path)
        try:
            with safe_open(path, framework="pt") as file:
                facts: dict[str, Any] = json.loads(file.metadata()["motion"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return cls._from_tensors(tensors, facts)
        except Exception as error:  # any file may be given
            raise InputError(
                f"{path} holds no motion. Extract one: personalive motion extract CLIP"
            ) from error

    @classmethod
    def _from_tensors(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> DrivingMotion:
        if facts["format"] != FORMAT_VERSION:
            raise ValueError("written by another version")
        head = HeadMotion(*(tensors[f"head.{name}"].float() for name in HeadMotion._fields))
        tokens, valid, times = tensors["tokens"].float(), tensors["valid"].bool(), tensors["times"].double()
        fitting = [(len(tokens), *shape) for shape in (*_HEAD_SHAPES, _TOKENS_SHAPE, (), ())]
        if not len(tokens) or [tuple(value.shape) for value in (*head, tokens, valid, times)] != fitting:
            raise ValueError("these are other shapes than a motion's")
        return cls(head, tokens, valid, times.numpy(), float(facts["fps"]), str(facts["weights"]))
