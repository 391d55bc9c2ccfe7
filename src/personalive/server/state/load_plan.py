"""A requested load, with checked parameters, and the status of the pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field

from personalive.errors import InputError, PipelineUnavailableError, UnknownPipelineError
from personalive.pipelines import registry
from personalive.pipelines.base import Availability, LoadParameters
from personalive.pipelines.parameters import build_parameters
from personalive.pipelines.registry import AnyPipeline


class PipelineStatus(BaseModel):
    """The pipeline that is loaded or being loaded. An error remains until the next load."""

    status: Literal["not_loaded", "loading", "loaded", "error"]
    pipeline_id: str | None = Field(
        None, description="The pipeline that is loaded, is being loaded, or failed to load."
    )
    load_params: dict[str, Any] | None = Field(
        None, description="All of its load parameters, defaults included."
    )
    stage: str | None = Field(None, description="The current stage of the loading.")
    progress: float | None = Field(None, ge=0, le=1, description="How much of the loading is done.")
    error: str | None = Field(None, description="Why the last load failed.")
    warnings: list[str] = Field(
        default_factory=list, description="Possible problems with the results, given how it was loaded."
    )
    notes: list[str] = Field(
        default_factory=list,
        description="How it runs on this machine, such as restrictions because of its memory.",
    )


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A pipeline and its checked load parameters."""

    id: str
    pipeline: AnyPipeline
    parameters: LoadParameters
    availability: Availability


def require_known_pipeline(pipeline_id: str) -> None:
    """Raise `UnknownPipelineError` for anything but a registered name."""
    if pipeline_id not in registry.pipeline_names():
        known = ", ".join(registry.pipeline_names())
        raise UnknownPipelineError(f"There is no pipeline {pipeline_id!r}. Known: {known}.")


def plan_load(
    pipeline_id: str, load_params: Mapping[str, object], path_values: Mapping[str, object]
) -> LoadPlan:
    """Return a load that can be tried. Imports the pipeline, which may take seconds.

    `path_values` are the load parameters that name files or folders, which only the settings may choose.
    Raises `UnknownPipelineError`, and `InputError` for parameters that are not valid.
    """
    require_known_pipeline(pipeline_id)
    pipeline = registry.get_pipeline(pipeline_id)
    own = _list_path_fields(pipeline)
    for name in own & set(load_params):
        if load_params[name] != path_values.get(name):
            raise InputError(
                f"{name} is a place on the server: it is chosen with personalive serve --set {name}=DIR."
            )
    given = {name: value for name, value in path_values.items() if name in own}
    parameters = build_parameters(pipeline.load_parameters, {**load_params, **given})
    try:
        availability = pipeline.availability_with(parameters.model_dump())
    except (OSError, RuntimeError, ValueError) as error:
        # Such as the home folder of an unknown user, or a path that is too long.
        raise InputError(f"The {pipeline_id} pipeline cannot be loaded with these: {error}.") from error
    return LoadPlan(pipeline_id, pipeline, parameters, availability)


def list_path_parameters() -> list[str]:
    """Return the load parameters of all pipelines that name files or folders. Imports every pipeline."""
    names: dict[str, None] = {}
    for pipeline_id in registry.pipeline_names():
        with contextlib.suppress(PipelineUnavailableError):
            names.update(dict.fromkeys(sorted(_list_path_fields(registry.get_pipeline(pipeline_id)))))
    return list(names)


def _list_path_fields(pipeline: AnyPipeline) -> set[str]:
    """Return the load parameters that name files or folders."""
    fields = pipeline.load_parameters.model_fields
    return {name for name, field in fields.items() if Path in (field.annotation, *get_args(field.annotation))}
