"""Acceleration that leaves the algorithm as it is: stages recorded as CUDA graphs, and compiled if asked for.

A step launches thousands of kernels, and a GPU waits for many of the launches. So each stage has a graph per shape,
which is one per number of history keyframes and of sessions stepped together; see `cuda_graphs.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.paths import cache_dir
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import summarize_error
from personalive.pipelines.diffusion.stages.compile_cache import enable_compile_cache
from personalive.pipelines.diffusion.stages.cuda_graphs import (
    MAX_GRAPHS,
    CudaGraphCapturer,
    GraphCapturer,
    GraphedCallable,
    TensorFunction,
)
from personalive.pipelines.diffusion.stages.motion_features import MotionFeatures
from personalive.pipelines.diffusion.stages.stages import (
    EagerStages,
    Stages,
    flatten_features,
    unflatten_features,
)

_MAX_VARIANTS = 4 * MAX_GRAPHS


class GraphedStages:
    """Stages that are recorded separately, except those named in `uncaptured`; see `Stages`."""

    def __init__(self, eager: EagerStages, capturer: GraphCapturer, uncaptured: Collection[str] = ()) -> None:
        self._capturer = capturer
        self._is_warming_up = False
        functions: dict[str, tuple[str, TensorFunction]] = {
            "encode_motion": (
                "looking at driving frames",
                lambda *given: flatten_features(eager.encode_motion(*given)),
            ),
            "encode_pose": ("drawing poses", lambda points: (eager.encode_pose(points),)),
            "denoise": ("denoising", lambda *given: (eager.denoise_batch(*given),)),
            "decode": ("decoding", lambda latents: (eager.decode(latents),)),
        }
        self._graphed = {
            name: GraphedCallable(description, function, capturer, free_memory=self._drop_all_graphs)
            for name, (description, function) in functions.items()
        }
        self._uncaptured = frozenset(uncaptured)

    @contextmanager
    def raising_out_of_memory(self) -> Iterator[None]:
        """Have stages raise out-of-memory errors within the block, instead of running unrecorded."""
        for each in self._graphed.values():
            each.raise_out_of_memory = True
        try:
            yield
        finally:
            for each in self._graphed.values():
                each.raise_out_of_memory = False

    @contextmanager
    def warming_up(self) -> Iterator[None]:
        """Run stages unrecorded within the block, so that later recordings need no run before them.

        The memory that such runs need and the memory that recordings keep are then not held at the same time.
        """
        try:
            self._is_warming_up = True
            yield
        finally:
            self._is_warming_up = False
            self._capturer.release_unused()

    def _drop_all_graphs(self) -> bool:
        """Drop every stage's recordings, since their shared memory is freed only when no recording is left."""
        dropped = [each.drop_graphs() for each in self._graphed.values()]
        return any(dropped)

    def _run_stage(
        self, name: str, inputs: Sequence[Tensor], resident: Sequence[Sequence[Tensor]] = ()
    ) -> tuple[Tensor, ...]:
        replayed = self._graphed[name]
        if self._is_warming_up:
            return replayed.warm_up(inputs, resident)
        if name in self._uncaptured:
            return replayed.run_eager(inputs, resident)
        return replayed(inputs, resident)

    def encode_motion(self, frames: Tensor, has_face: Tensor) -> MotionFeatures:
        """See `Stages`."""
        return unflatten_features(self._run_stage("encode_motion", [frames, has_face]))

    def encode_pose(self, keypoints: Tensor) -> Tensor:
        """See `Stages`."""
        return self._run_stage("encode_pose", [keypoints])[0]

    def denoise(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attention: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """See `Stages`."""
        return self._run_stage("denoise", [latents, motion, pose], attention)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """See `Stages`."""
        return self._run_stage("decode", [latents])[0]

    def count_graphs(self) -> dict[str, int]:
        """Return how many recordings each stage keeps."""
        return {name: len(replayed) for name, replayed in self._graphed.items()}


def resolve_mode(mode: str, device: torch.device) -> str:
    """Resolve auto: to graphs on CUDA, which need no compiler and give the same numbers, otherwise to off.

    Raises `InputError` where graphs are asked for without CUDA.
    """
    if mode == "auto":
        return "graphs" if device.type == "cuda" else "off"
    if mode == "graphs" and device.type != "cuda":
        raise InputError(f"compile=graphs needs a CUDA device, and this is {device}: take off, full or auto.")
    return mode


def check_compiler(mode: str, device: torch.device) -> tuple[str, str | None]:
    """Return the mode; if it is full and nothing can be compiled here, what auto resolves to, and a warning why.

    One small function is compiled as a test. PyTorch needs a C++ compiler for a CPU and a C compiler for CUDA.
    Raises `InputError` where compiled code cannot be kept safely.
    """
    if mode != "full":
        return mode, None
    enable_compile_cache(cache_dir(), device)
    reason = _find_compile_error(device)
    if reason is None:
        return mode, None
    instead = resolve_mode("auto", device)
    return instead, (
        f"Nothing can be compiled here ({reason}): compile=full runs as {instead}, with the same result. Install a "
        "C++ compiler (gcc or clang; on Windows the Build Tools for Visual Studio)."
    )


def _find_compile_error(device: torch.device) -> str | None:
    from torch._inductor import config

    def probe(values: Tensor) -> Tensor:
        return torch.relu(values * 2 + 1)

    try:
        # Code that an earlier start compiled would prove nothing about this one.
        with torch.inference_mode(), config.patch(force_disable_caches=True):
            torch.compile(probe, dynamic=False)(torch.zeros(16, device=device))
    except Exception as error:  # each compiler and its library raise errors of different types
        return summarize_error(error).rstrip(".:")
    return None


def accelerate(eager: EagerStages, mode: str, uncaptured: Collection[str] = ()) -> Stages:
    """Return the stages accelerated by `mode`: off, graphs or full; see `PersonaLiveLoadParameters.compile`.

    Stages named in `uncaptured` are not recorded.
    """
    device = eager.components.device
    if mode == "full":
        compile_stages(eager)
    if mode == "off" or device.type != "cuda":
        return eager
    return GraphedStages(eager, CudaGraphCapturer(device), uncaptured=uncaptured)


def compile_stages(eager: EagerStages, backend: str = "inductor") -> None:
    """Have PyTorch compile the denoising UNet and the decoder, each shape when it first runs."""
    # Each number of keyframes and of sessions is a variant of the same code; by default PyTorch refuses a ninth.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_VARIANTS)
    eager.unet = torch.compile(eager.unet, backend=backend, dynamic=False)
    eager.decoder = torch.compile(eager.decoder, backend=backend, dynamic=False)
