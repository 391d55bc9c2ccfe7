"""Animate a portrait with the expressions and head motion of a video or a webcam.

    import personalive

    report = personalive.animate("portrait.jpg", "driving.mp4", "result.mp4")
    print(report.frames, report.states)

To animate your own frames, load a pipeline and step a session:

    with personalive.load_pipeline() as pipeline:
        reference = pipeline.fuse(image)
        with pipeline.open_session(reference) as session:
            animated = session.step(chunk)

The diffusion pipeline has a second interface, which takes any number of frames: `PersonaLive`.

Importing this package is cheap; heavy modules are imported by the calls that need them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalive.errors import (
    FaceChoiceError,
    InputError,
    MediaError,
    MediaTooLargeError,
    NoFaceError,
    OutputExistsError,
    PersonaLiveError,
    PipelineUnavailableError,
    SessionClosedError,
    UnknownPipelineError,
    UnsupportedMediaError,
)

if TYPE_CHECKING:
    from personalive.api import LiveSession, PersonaLive
    from personalive.jobs import ProgressCallback, Report
    from personalive.pipelines.base import Pipeline

    __version__: str

__all__ = [
    "FaceChoiceError",
    "InputError",
    "LiveSession",
    "MediaError",
    "MediaTooLargeError",
    "NoFaceError",
    "OutputExistsError",
    "PersonaLive",
    "PersonaLiveError",
    "PipelineUnavailableError",
    "SessionClosedError",
    "UnknownPipelineError",
    "UnsupportedMediaError",
    "__version__",
    "animate",
    "load_pipeline",
]


def animate(
    reference: str | os.PathLike[str],
    driving: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Report:
    """Animate the portrait `reference` with the clip `driving` and write `output`.

    `options` are the fields of `personalive.jobs.AnimateJob`: `size`, `crop`, `paste_back`, `fps`,
    `parameters={"expression": 1.2}` and so on; an unknown one raises `TypeError`. `progress` is called with
    the stage's name, the frames done, and the total or None.

    Raises a `PersonaLiveError`: its message says what cannot be used and what to do.
    """
    from personalive.jobs import AnimateJob, run

    job = AnimateJob(reference=Path(reference), driving=Path(driving), output=Path(output), **options)
    return run(job, progress)


def load_pipeline(name: str = "auto", **parameters: Any) -> Pipeline[Any, Any]:
    """Load a pipeline by name, or for "auto" the best that can run here; close it when done.

    `parameters` are the fields of its `load_parameters`, such as `width`, `height` and `seed`.

    Raises `UnknownPipelineError`, `PipelineUnavailableError`, or `InputError` for a parameter out of bounds.
    """
    from personalive.pipelines import registry
    from personalive.pipelines.parameters import build_parameters

    pipeline = registry.choose_pipeline(name, parameters).pipeline
    return pipeline.load(build_parameters(pipeline.load_parameters, parameters))


if not TYPE_CHECKING:  # a type checker would take every name for a string

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("personalive")
        if name in {"LiveSession", "PersonaLive"}:
            from personalive import api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
