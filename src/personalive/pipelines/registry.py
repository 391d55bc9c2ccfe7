"""Names to pipelines. Ours and other people's are found the same way: entry points.

A package adds a pipeline by naming its class in its own metadata:

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

GROUP = "personalive.pipelines"
DIFFUSION = "personalive"
FALLBACK = "preview"

AnyPipeline = type[Pipeline[Any, Any]]


@dataclass(frozen=True, slots=True)
class Choice:
    """A pipeline picked for the user, and why, as a sentence to show."""

    pipeline: AnyPipeline
    why: str


@cache
def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """Every registered name, in alphabetical order."""
    return sorted(_registered())


def get(name: str) -> AnyPipeline:
    """The pipeline class of that name. Raises `UnknownPipelineError` or `PipelineUnavailableError`."""
    try:
        point = _registered()[name]
    except KeyError:
        known = ", ".join(["auto", *names()])
        raise UnknownPipelineError(f"There is no pipeline {name!r}. Known: {known}.") from None
    try:
        loaded = point.load()
    except Exception as error:  # a stranger's package may fail in any way
        raise PipelineUnavailableError(
            f"Pipeline {name!r} cannot be imported from {point.value}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Pipeline)):
        raise PipelineUnavailableError(
            f"{point.value}, registered as pipeline {name!r}, is no Pipeline class."
        )
    return loaded


def all_pipelines() -> dict[str, AnyPipeline]:
    """Every pipeline that can be imported; one that cannot is warned about and left out."""
    found: dict[str, AnyPipeline] = {}
    for name in names():
        try:
            found[name] = get(name)
        except PipelineUnavailableError as error:  # it must not take the rest down
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return found


def choose(name: str = "auto", given: Mapping[str, object] | None = None) -> Choice:
    """The pipeline to run: the named one if it is ready, or for "auto" the best that is.

    `given` are parameters by name, which may decide whether a pipeline is ready: where its weights are, say.
    Raises `UnknownPipelineError` or `PipelineUnavailableError`; the message says how to mend it.
    """
    given = given or {}
    if name != "auto":
        pipeline = get(name)
        state = pipeline.availability_with(given)
        if not state.ready:
            raise PipelineUnavailableError(f"Pipeline {name!r} cannot run here: {state.sentence}")
        return Choice(pipeline, "asked for")
    try:
        diffusion = get(DIFFUSION)
    except (UnknownPipelineError, PipelineUnavailableError) as error:
        return Choice(get(FALLBACK), str(error))
    state = diffusion.availability_with(given)
    if state.ready:
        return Choice(diffusion, state.reason)
    if given.get("weights") is not None:
        raise PipelineUnavailableError(f"Pipeline {DIFFUSION!r} cannot run here: {state.sentence}")
    return Choice(get(FALLBACK), f"the diffusion pipeline cannot run here: {state.sentence}")
