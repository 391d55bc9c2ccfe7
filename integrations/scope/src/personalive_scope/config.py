"""The configuration class of a pipeline, made from its parameter models: Scope's page is built from it."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo
from scope.core.pipelines.base_schema import BasePipelineConfig, ModeDefaults, ui_field_config

import personalive
from personalive.pipelines import registry
from personalive.pipelines.registry import AnyPipeline

REFERENCE_FIELD = "reference_image"
SEED_FIELD = "base_seed"
"""Scope's own name for the load parameter `seed`."""
_NOT_OFFERED = frozenset({"seed", "batch_sessions"})
"""Load parameters without a field: Scope has another for the seed, and never more than one session."""


def load_fields(pipeline: AnyPipeline) -> list[str]:
    """Return the names of the load parameters that the configuration has under the same name."""
    return [name for name in pipeline.load_parameters.model_fields if name not in _NOT_OFFERED]


def make_pipeline_id(name: str) -> str:
    """Return Scope's id for the pipeline that is registered as `name`."""
    return name if name == registry.DIFFUSION else f"personalive-{name}"


def make_config(name: str, pipeline: AnyPipeline) -> type[BasePipelineConfig]:
    """Return the configuration class of the pipeline that is registered as `name`."""
    about = {
        "__module__": __name__,
        "pipeline_id": make_pipeline_id(name),
        "pipeline_name": f"PersonaLive: {name}",
        "pipeline_description": pipeline.info.description,
        "pipeline_version": personalive.__version__,
        "supports_prompts": False,
        "modes": {"video": ModeDefaults(default=True)},
    }
    base = type("PersonaLiveConfig", (BasePipelineConfig,), about)
    fields: dict[str, Any] = {REFERENCE_FIELD: (str | None, _reference_field())}
    for field in pipeline.run_parameters.model_fields:
        fields[field] = _copy_field(
            pipeline.run_parameters.model_fields[field], field, len(fields), load=False
        )
    for field in load_fields(pipeline):
        fields[field] = _copy_field(
            pipeline.load_parameters.model_fields[field], field, len(fields), load=True
        )
    return create_model(f"PersonaLiveConfig_{name}", __base__=base, **fields)


def _reference_field() -> Any:
    return Field(
        default=None,
        description="The portrait that follows the input video.",
        json_schema_extra=ui_field_config(order=0, component="image", label="Portrait", category="input"),
    )


def _copy_field(field: FieldInfo, name: str, order: int, *, load: bool) -> tuple[Any, FieldInfo]:
    copied = copy.copy(field)
    copied.json_schema_extra = ui_field_config(
        order=order, is_load_param=load, label=name.replace("_", " ").capitalize()
    )
    return field.annotation, copied
