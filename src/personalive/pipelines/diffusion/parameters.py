"""The load and run parameters of the PersonaLive pipeline, and their validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from personalive.pipelines.base import DriverFace, LoadParameters, RunParameters

TRAINED_CHUNK_FRAMES, TRAINED_LEVELS = 4, 4
TRAINED_SIDE = 512
_MAX_WINDOW_FRAMES = 32
"""The temporal modules have positional encodings for no more frames."""

SKIPPED_LEVELS = {"quality": 0, "balanced": 1, "low": 2, "lowest": 3}
"""The number of noise levels that each latency mode skips."""


Side = Annotated[int, Field(ge=64, le=1024, multiple_of=64)]


def _upgrade_low_vram(value: object) -> object:
    """Convert a boolean, which the parameter was before it had more than two values."""
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        value = value.lower() == "true"
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


LowVram = Annotated[
    Literal["auto", "off", "on", "half", "most", "stream", "least"], BeforeValidator(_upgrade_low_vram)
]


Float8Layers = Literal["feed-forwards", "unet", "decoder", "all"]


class PersonaLiveLoadParameters(LoadParameters):
    """The parameters that are fixed when the pipeline is loaded."""

    height: Side = Field(
        TRAINED_SIDE, description="Height of the animated frames in pixels, a multiple of 64."
    )
    width: Side = Field(TRAINED_SIDE, description="Width of the animated frames in pixels, a multiple of 64.")
    weights: Path | None = Field(
        None, description="The folder of the weights. Default: where `personalive download` puts them."
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1 or mps."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16", "float8"] = Field(
        "auto",
        description="The type that the networks compute in; auto is float16 on a GPU and float32 "
        "elsewhere. float8: parts of them compute in 8 bits, see float8_layers, and the rest in float16; "
        "needs a GPU that supports it, and costs some quality.",
    )
    float8_layers: Float8Layers = Field(
        "feed-forwards",
        description="With dtype=float8, the layers that compute in 8 bits where that is faster: "
        "feed-forwards is the denoising UNet's widest ones, unet all of its feed-forwards and its "
        "convolutions, decoder the decoder's convolutions too, all the UNet's projections too. Each is "
        "faster than the one before, and less exact.",
    )
    kernels: Literal["auto", "pytorch"] = Field(
        "auto",
        description="The implementation of norms, gates, residuals and attention; auto measures fused "
        "kernels and PyTorch's at the first start on a CUDA device and uses the faster for each shape; "
        "pytorch uses PyTorch's only, as on other devices.",
    )
    compile: Literal["auto", "off", "graphs", "full"] = Field(
        "auto",
        description="graphs records each step on a CUDA device once and replays it; full also compiles the "
        "networks before, which needs a C++ compiler, and takes minutes the first time; auto is graphs on "
        "CUDA and off elsewhere.",
    )
    batch_sessions: int = Field(
        1,
        ge=1,
        le=4,
        description="How many sessions may share one call of the networks where steps are compiled or "
        "recorded. Each number up to it is prepared while loading; more sessions are stepped in turn.",
    )
    low_vram: LowVram = Field(
        "auto",
        description="What is given up to save GPU memory; auto decides by the memory that is free when "
        "loading. off: nothing. on (or true): what only a new reference or keyframe needs waits on the "
        "host, and frames are decoded one by one. half, most, stream: half, 70 % or all of the denoising "
        "UNet comes from the host at every step. least: all of it, and steps are not recorded.",
    )
    vae: Literal["full", "tiny"] = Field(
        "full", description="The autoencoder that decodes frames; tiny is faster and a little worse."
    )
    attention: Literal["auto", "math", "flash", "efficient", "cudnn"] = Field(
        "auto",
        description="PyTorch's attention kernel, where no fused kernel is used; auto is the fastest for "
        "each shape where kernels=auto measures, and otherwise lets PyTorch choose.",
    )
    latency: Literal["quality", "balanced", "low", "lowest"] = Field(
        "quality",
        description="How many noise levels are skipped to show frames earlier: 0, 1, 2 or 3, for a delay "
        "of 12, 8, 4 or 0 frames with four levels.",
    )
    temporal_window_size: int = Field(
        TRAINED_CHUNK_FRAMES, ge=1, le=8, description="The number of frames in a chunk."
    )
    temporal_adaptive_step: int = Field(
        TRAINED_LEVELS, ge=2, le=8, description="The number of noise levels in the window."
    )
    num_inference_steps: int = Field(
        TRAINED_LEVELS,
        ge=1,
        le=8,
        description="The number of denoising steps of each chunk, which equals the number of levels.",
    )
    max_keyframes: int = Field(
        3, ge=0, le=3, description="How many history keyframes a session may keep beside the reference."
    )
    face_detection: bool = Field(
        True, description="Detect the face in driving frames; False takes every whole frame as one face."
    )
    experimental: bool = Field(
        False, description="Allow window settings that the released weights were not trained for."
    )

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        chunk, levels = self.temporal_window_size, self.temporal_adaptive_step
        if self.num_inference_steps != levels:
            raise ValueError(
                f"num_inference_steps ({self.num_inference_steps}) must equal temporal_adaptive_step ({levels}): "
                "every step takes a chunk down by one noise level"
            )
        if chunk * levels > _MAX_WINDOW_FRAMES:
            raise ValueError(
                f"a window of {levels} × {chunk} frames is longer than the {_MAX_WINDOW_FRAMES} that the "
                "networks take"
            )
        if (chunk, levels) != (TRAINED_CHUNK_FRAMES, TRAINED_LEVELS) and not self.experimental:
            raise ValueError(
                f"the released weights were distilled for {TRAINED_LEVELS} levels of {TRAINED_CHUNK_FRAMES} "
                "frames; others show artefacts: say experimental=true to try"
            )
        if SKIPPED_LEVELS[self.latency] >= levels:
            raise ValueError(
                f"latency {self.latency} needs more than {SKIPPED_LEVELS[self.latency]} noise levels"
            )
        return self

    @property
    def skipped_levels(self) -> int:
        """The number of noise levels that are skipped."""
        return SKIPPED_LEVELS[self.latency]

    @property
    def delay_frames(self) -> int:
        """The number of frames by which the output trails the input."""
        return self.temporal_window_size * (self.temporal_adaptive_step - 1 - self.skipped_levels)


class PersonaLiveRunParameters(RunParameters):
    """How the driver's motion is transferred to the reference; may change while a session runs."""

    expression: float = Field(
        1.0, ge=0.0, le=2.0, description="Strength of the expression: 0 is the reference's, 1 the driver's."
    )
    pose: float = Field(
        1.0, ge=0.0, le=1.5, description="Strength of head turns: 0 is the reference's pose, 1 the driver's."
    )
    translation: float = Field(
        0.5, ge=0.0, le=1.0, description="How much the output follows the head's shifts."
    )
    scale: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="How much the output follows the head as it comes nearer or moves away.",
    )
    smoothing: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Smooths turns, shifts and changes of size: 0 not at all, 1 most, with the longest lag.",
    )
    keyframe_threshold: float = Field(
        17.0,
        ge=0.0,
        description="How different an expression must be from all before to become a history keyframe.",
    )
    driver_face: DriverFace = "auto"
