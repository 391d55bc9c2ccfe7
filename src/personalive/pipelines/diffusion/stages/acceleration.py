"""Speed without touching the algorithm: stages recorded as CUDA graphs, and compiled before where asked.

A step launches thousands of kernels, and a GPU waits for many of them. So each stage has a graph per shape, which
is a graph per number of history keyframes and of sessions stepped together; see `recording`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.paths import cache_folder
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import summary
from personalive.pipelines.diffusion.stages.compile_cache import keep_in
from personalive.pipelines.diffusion.stages.cuda_graphs import (
    MOST_GRAPHS,
    CudaRecorder,
    Function,
    Recorder,
    Replayed,
)
from personalive.pipelines.diffusion.stages.motion_features import Perceived
from personalive.pipelines.diffusion.stages.stages import PlainStages, Stages, flat, perceived

_MOST_VARIANTS = 4 * MOST_GRAPHS


class ReplayedStages:
    """Stages that are recorded, each on its own; see `Stages`. Those named in `as_they_are` are not."""

    def __init__(
        self,
        plain: PlainStages,
        recorder: Recorder,
        limit: int = MOST_GRAPHS,
        as_they_are: Collection[str] = (),
    ) -> None:
        self._recorder = recorder
        self._trying = False
        functions: dict[str, tuple[str, Function]] = {
            "see": ("looking at driving frames", lambda *given: flat(plain.see(*given))),
            "pose": ("drawing poses", lambda points: (plain.pose(points),)),
            "predict": ("denoising", lambda *given: (plain.predict_joined(*given),)),
            "show": ("decoding", lambda latents: (plain.show(latents),)),
        }
        self._replayed = {
            name: Replayed(said, function, recorder, limit, self._make_room)
            for name, (said, function) in functions.items()
        }
        self._as_they_are = frozenset(as_they_are)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """In the block, a stage for which memory runs out raises that error instead of making do."""
        try:
            self._prepare(True)
            yield
        finally:
            self._prepare(False)

    @contextmanager
    def trying_out(self) -> Iterator[None]:
        """In the block, stages run unrecorded; what is recorded afterwards needs no run before.

        While nothing is recorded, what a run needs and what recordings keep are not held at the same time.
        """
        try:
            self._trying = True
            yield
        finally:
            self._trying = False
            self._recorder.give_back()

    def _prepare(self, preparing: bool) -> None:
        for each in self._replayed.values():
            each.preparing = preparing

    def _make_room(self) -> bool:
        """Drop every stage's recordings: their common memory is free only when none is left."""
        dropped = [each.drop() for each in self._replayed.values()]
        return any(dropped)

    def _run(
        self, name: str, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        replayed = self._replayed[name]
        if self._trying:
            return replayed.try_out(inputs, resident)
        if name in self._as_they_are:
            return replayed.as_it_is(inputs, resident)
        return replayed(inputs, resident)

    def see(self, pixels: Tensor, found: Tensor) -> Perceived:
        """See `Stages`."""
        return perceived(self._run("see", [pixels, found]))

    def pose(self, points: Tensor) -> Tensor:
        """See `Stages`."""
        return self._run("pose", [points])[0]

    def predict(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attended: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """See `Stages`."""
        return self._run("predict", [latents, motion, pose], attended)[0]

    def show(self, latents: Tensor) -> Tensor:
        """See `Stages`."""
        return self._run("show", [latents])[0]

    def counts(self) -> dict[str, int]:
        """How many recordings each stage keeps."""
        return {name: len(replayed) for name, replayed in self._replayed.items()}


def chosen(mode: str, device: torch.device) -> str:
    """What auto stands for: graphs on CUDA, which need no compiler and give the same numbers, else off.

    Raises `InputError` where graphs are asked for without CUDA.
    """
    if mode == "auto":
        return "graphs" if device.type == "cuda" else "off"
    if mode == "graphs" and device.type != "cuda":
        raise InputError(f"compile=graphs needs a CUDA device, and this is {device}: take off, full or auto.")
    return mode


def compiling_or_less(mode: str, device: torch.device) -> tuple[str, str | None]:
    """The mode, or where it is full and nothing can be compiled here what auto stands for, with a warning why.

    Tried out on one small function: PyTorch compiles for a CPU with a C++ compiler, for CUDA with a C compiler.
    Raises `InputError` where compiled code cannot be kept safely.
    """
    if mode != "full":
        return mode, None
    keep_in(cache_folder(), device)
    reason = _objection_to_compiling(device)
    if reason is None:
        return mode, None
    instead = chosen("auto", device)
    return instead, (
        f"Nothing can be compiled here ({reason}): compile=full runs as {instead}, with the same result. Install a "
        "C++ compiler (gcc or clang; on Windows the Build Tools for Visual Studio)."
    )


def _objection_to_compiling(device: torch.device) -> str | None:
    from torch._inductor import config

    def probe(values: Tensor) -> Tensor:
        return torch.relu(values * 2 + 1)

    try:
        # What an earlier start has left compiled would say nothing of this one.
        with torch.inference_mode(), config.patch(force_disable_caches=True):
            torch.compile(probe, dynamic=False)(torch.zeros(16, device=device))
    except Exception as error:  # each compiler and its library have their own
        return summary(error).rstrip(".:")
    return None


def accelerated(plain: PlainStages, mode: str, as_they_are: Collection[str] = ()) -> Stages:
    """The stages as `mode` wants them: off, graphs or full; see `PersonaLiveLoadParameters.compile`.

    Those named in `as_they_are` are not recorded.
    """
    device = plain.models.device
    if mode == "full":
        compile_stages(plain)
    if mode == "off" or device.type != "cuda":
        return plain
    return ReplayedStages(plain, CudaRecorder(device), as_they_are=as_they_are)


def compile_stages(plain: PlainStages, backend: str = "inductor") -> None:
    """Have PyTorch compile the denoising UNet and the decoder; each shape is compiled when it is first run."""
    # Each number of keyframes and of sessions is a variant of the same code; the default refuses a ninth.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_VARIANTS)
    plain.unet = torch.compile(plain.unet, backend=backend, dynamic=False)
    plain.decoder = torch.compile(plain.decoder, backend=backend, dynamic=False)
