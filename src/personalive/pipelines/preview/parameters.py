"""The parameters of the preview pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from personalive.pipelines.base import DriverFace, LoadParameters, RunParameters


class PreviewLoadParameters(LoadParameters):
    """Size and seed alone; nothing in the preview is random, so the seed has no effect."""


class PreviewRunParameters(RunParameters):
    """How the driver's motion is transferred to the portrait; may change while a session runs."""

    motion: Literal["relative", "absolute"] = Field(
        "relative",
        description="relative: the driver's changes since their first frame; absolute: pose and expression as is.",
    )
    expression: float = Field(
        1.0, ge=0.0, le=2.0, description="Strength of the expression; 1 is the driver's own."
    )
    pose: float = Field(1.0, ge=0.0, le=1.5, description="Strength of head turning, nodding and tilting.")
    translation: float = Field(0.5, ge=0.0, le=1.0, description="How much the head's shifting is followed.")
    smoothing: float = Field(
        0.5, ge=0.0, le=1.0, description="0 is unfiltered, 1 is the steadiest; more smoothing lags more."
    )
    driver_face: DriverFace = "auto"
