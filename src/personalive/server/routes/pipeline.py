"""The pipeline: load it, read its status, and list the pipelines that can be loaded."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from personalive.errors import PipelineUnavailableError
from personalive.pipelines import registry
from personalive.pipelines.base import Availability, PipelineInfo
from personalive.pipelines.presets import list_presets
from personalive.pipelines.registry import AnyPipeline
from personalive.server.dependencies import ServerDep
from personalive.server.errors import error_responses
from personalive.server.state.load_plan import PipelineStatus

router = APIRouter(prefix="/api/v1", tags=["pipeline"])


class LoadRequest(BaseModel):
    """The pipeline to load, and its parameters."""

    model_config = ConfigDict(extra="forbid")

    pipeline_id: StrictStr = Field(max_length=200, examples=["personalive"])
    load_params: dict[str, Any] | None = Field(
        None,
        description="Load parameters by name, as in `/api/v1/pipelines/schemas`; omitted ones have their defaults.",
        examples=[{"height": 512, "width": 512, "seed": 42}],
    )
    force: StrictBool = Field(False, description="End sessions that stream, if there are any.")


class UnloadRequest(BaseModel):
    """Options for unloading the pipeline."""

    model_config = ConfigDict(extra="forbid")

    force: StrictBool = Field(False, description="End sessions that stream, if there are any.")


class MessageResponse(BaseModel):
    """A sentence that says what was done."""

    message: str


class PresetInfo(BaseModel):
    """A named set of run parameters, which is given as the parameter `preset`."""

    name: str
    description: str
    values: dict[str, float | str | bool] = Field(description="The run parameters that it sets.")


class PipelineSchema(BaseModel):
    """A pipeline and its parameters."""

    id: str
    name: str
    description: str
    ready: bool = Field(description="Whether it can be loaded on this machine now.")
    reason: str = Field(description="Why it is ready, or why it is not.")
    remedy: str | None = Field(description="How to make it ready.")
    generative: bool = Field(description="Whether a generative model makes the pixels.")
    chunk_frames: int
    delay_frames: int = Field(description="By how many frames the output trails the input.")
    load_parameters: dict[str, Any] = Field(description="JSON schema.")
    run_parameters: dict[str, Any] = Field(description="JSON schema.")
    presets: list[PresetInfo] = Field([], description="Named sets of run parameters.")


class PipelineSchemas(BaseModel):
    """Every registered pipeline, by id."""

    pipelines: dict[str, PipelineSchema]


@router.post("/pipeline/load", responses=error_responses(400, 404, 409, 422))
async def load_pipeline(request: LoadRequest, server: ServerDep) -> MessageResponse:
    """Load a pipeline in the background, in place of the one that is loaded.

    Nothing changes, and sessions go on, if the same pipeline is loaded with the same parameters.
    """
    message = await server.pipelines.load(request.pipeline_id, request.load_params, force=request.force)
    return MessageResponse(message=message)


@router.post("/pipeline/unload", responses=error_responses(400, 409, 422))
async def unload_pipeline(server: ServerDep, request: UnloadRequest | None = None) -> MessageResponse:
    """Close the pipeline and free its memory. A pipeline that is still loading is stopped with `force` only."""
    return MessageResponse(message=await server.pipelines.unload(force=request is not None and request.force))


@router.get("/pipeline/status")
async def get_pipeline_status(server: ServerDep) -> PipelineStatus:
    """Return which pipeline is loaded, how far its loading is, or why it failed."""
    return server.pipelines.get_status()


@router.get("/pipelines/schemas")
async def get_pipeline_schemas() -> PipelineSchemas:
    """Return every registered pipeline: whether it is ready, and the JSON schemas of its parameters."""
    return await asyncio.to_thread(_make_schemas)


def _make_schemas() -> PipelineSchemas:
    """Import every pipeline, which may take seconds the first time."""
    found: dict[str, PipelineSchema] = {}
    for name in registry.pipeline_names():
        try:
            pipeline = registry.get_pipeline(name)
        except PipelineUnavailableError as error:
            unknown = PipelineInfo(name, name, "", chunk_frames=1)
            found[name] = _make_schema(name, unknown, Availability(False, str(error)), {}, {}, [])
        else:
            found[name] = _make_schema(
                name,
                pipeline.info,
                _check_availability(pipeline),
                pipeline.load_parameters.model_json_schema(),
                pipeline.run_parameters.model_json_schema(),
                _make_presets(pipeline),
            )
    return PipelineSchemas(pipelines=found)


def _make_schema(
    name: str,
    info: PipelineInfo,
    state: Availability,
    load_parameters: dict[str, Any],
    run_parameters: dict[str, Any],
    presets: list[PresetInfo],
) -> PipelineSchema:
    return PipelineSchema(
        id=name,
        name=info.name,
        description=info.description,
        ready=state.ready,
        reason=state.reason,
        remedy=state.remedy,
        generative=info.generative,
        chunk_frames=info.chunk_frames,
        delay_frames=info.delay_frames,
        load_parameters=load_parameters,
        run_parameters=run_parameters,
        presets=presets,
    )


def _make_presets(pipeline: AnyPipeline) -> list[PresetInfo]:
    return [
        PresetInfo(name=preset.name, description=preset.description, values=values)
        for preset, values in list_presets(pipeline.run_parameters)
    ]


def _check_availability(pipeline: AnyPipeline) -> Availability:
    try:
        return pipeline.availability()
    except Exception as error:
        return Availability(False, f"checking whether it is ready failed: {type(error).__name__}: {error}")
