"""What Scope publishes of its plugin interface, restated from its guides of plugins and of pipelines.

Scope itself needs an NVIDIA GPU's libraries and Python 3.12. `modules()` returns stand-ins for the modules that a
plugin imports, with what the documents promise of them and nothing else.
"""

from __future__ import annotations

from enum import StrEnum
from types import ModuleType
from typing import Any, ClassVar

import pluggy
from pydantic import BaseModel, ConfigDict, Field

GROUP = "scope"
hookspec = pluggy.HookspecMarker(GROUP)


class HookSpecification:
    """The hooks of a plugin; a plugin implements any of them."""

    @hookspec
    def register_pipelines(self, register: Any) -> None:
        """Call `register` with every pipeline class."""

    @hookspec
    def register_nodes(self, register: Any) -> None:
        """Call `register` with every node class."""


class Category(StrEnum):
    """The panel of the page in which a field is shown."""

    CONFIGURATION = "configuration"
    INPUT = "input"


def ui_field_config(
    *,
    order: int | None = None,
    component: str | None = None,
    modes: list[str] | None = None,
    is_load_param: bool = False,
    label: str | None = None,
    category: str | None = None,
) -> dict[str, Any]:
    """Return a field's extra for the JSON schema, from which the page is built."""
    shown = {"order": order, "component": component, "modes": modes, "label": label}
    panel = Category(category or Category.CONFIGURATION)
    known = {name: value for name, value in shown.items() if value is not None}
    return {"ui": {"category": panel.value, "is_load_param": is_load_param, **known}}


class ModeDefaults(BaseModel):
    """A mode's own defaults; one mode is the default."""

    model_config = ConfigDict(extra="forbid")

    default: bool = False


class BasePipelineConfig(BaseModel):
    """The base of every pipeline's configuration: its description, and fields that each has."""

    model_config = ConfigDict(extra="forbid")

    pipeline_id: ClassVar[str] = "base"
    pipeline_name: ClassVar[str] = "Base"
    pipeline_description: ClassVar[str] = ""
    pipeline_version: ClassVar[str] = "1.0.0"
    supports_prompts: ClassVar[bool] = True
    modes: ClassVar[dict[str, ModeDefaults]] = {"text": ModeDefaults(default=True)}

    height: int = Field(512, ge=1)
    width: int = Field(512, ge=1)
    base_seed: int = Field(42, ge=0)
    input_size: int | None = Field(1, ge=1)


class Requirements(BaseModel):
    """What a call of a pipeline takes."""

    input_size: int


class Pipeline:
    """The base of every pipeline: loaded by its constructor, called with chunks, shut down."""

    def __init__(self, node_id: str = "", config: dict[str, Any] | None = None) -> None:
        self.node_id, self.config = node_id, config or {}


def modules() -> dict[str, ModuleType]:
    """Return the modules by name."""
    contents: dict[str, dict[str, Any]] = {
        "scope": {},
        "scope.core": {},
        "scope.core.plugins": {},
        "scope.core.plugins.hookspecs": {"hookimpl": pluggy.HookimplMarker(GROUP)},
        "scope.core.pipelines": {},
        "scope.core.pipelines.base_schema": {
            "BasePipelineConfig": BasePipelineConfig,
            "ModeDefaults": ModeDefaults,
            "ui_field_config": ui_field_config,
        },
        "scope.core.pipelines.interface": {"Pipeline": Pipeline, "Requirements": Requirements},
    }
    found = {}
    for name, values in contents.items():
        found[name] = ModuleType(name)
        vars(found[name]).update(values)
    return found
