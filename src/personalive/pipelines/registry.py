"""Finds pipelines by name. All are registered in the same way, as entry points.

A package adds a pipeline by naming its class in the package's metadata:

    [project.entry-points."personalive.pipelines"]
    mine = "my_package.pipeline:MyPipeline"
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from personalive.errors import PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines.base import Pipeline

ENTRY_POINT_GROUP = "personalive.pipelines"
DIFFUSION = "personalive"
FALLBACK = "preview"

AnyPipeline = type[Pipeline[Any, Any]]


@dataclass(frozen=True, slots=True)
class PipelineChoice:
    """A pipeline chosen for the user, and the reason, as a sentence to show."""

    pipeline: AnyPipeline
    reason: str


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def pipeline_names() -> list[str]:
    """Return every registered name, in alphabetical order."""
    return sorted(_entry_points())


def get_pipeline(name: str) -> AnyPipeline:
    """Return the pipeline class of that name. Raises `UnknownPipelineError` or `PipelineUnavailableError`."""
    try:
        point = _entry_points()[name]
    except KeyError:
        known = ", ".join(["auto", *pipeline_names()])
        raise UnknownPipelineError(f"There is no pipeline {name!r}. Known: {known}.") from None
    try:
        loaded = point.load()
    except Exception as error:  # other packages may fail in any way
        raise PipelineUnavailableError(
            f"Pipeline {name!r} cannot be imported from {point.value}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Pipeline)):
        raise PipelineUnavailableError(
            f"{point.value}, registered as pipeline {name!r}, is not a Pipeline class."
        )
    return loaded


def all_pipelines() -> dict[str, AnyPipeline]:
    """Return every pipeline that can be imported; warn about one that cannot, and leave it out."""
    found: dict[str, AnyPipeline] = {}
    for name in pipeline_names():
        try:
            found[name] = get_pipeline(name)
        except PipelineUnavailableError as error:  # the others must still be found
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return found


def choose_pipeline(name: str = "auto", parameters: Mapping[str, object] | None = None) -> PipelineChoice:
    """Return the pipeline to run: the named one if it is ready, or for "auto" the best that is.

    `parameters` are parameters by name that may decide whether a pipeline is ready: where its weights are, say.
    Raises `UnknownPipelineError` or `PipelineUnavailableError`; the message says how to fix it.
    """
    parameters = parameters or {}
    if name != "auto":
        pipeline = get_pipeline(name)
        state = pipeline.availability_with(parameters)
        if not state.ready:
            raise PipelineUnavailableError(f"Pipeline {name!r} cannot run here: {state.message}")
        return PipelineChoice(pipeline, "asked for")
    try:
        diffusion = get_pipeline(DIFFUSION)
    except (UnknownPipelineError, PipelineUnavailableError) as error:
        return PipelineChoice(get_pipeline(FALLBACK), str(error))
    state = diffusion.availability_with(parameters)
    if state.ready:
        return PipelineChoice(diffusion, state.reason)
    if parameters.get("weights") is not None:
        raise PipelineUnavailableError(f"Pipeline {DIFFUSION!r} cannot run here: {state.message}")
    return PipelineChoice(get_pipeline(FALLBACK), f"the diffusion pipeline cannot run here: {state.message}")
