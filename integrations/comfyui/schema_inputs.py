"""Conversion of a parameter model's fields to ComfyUI's inputs, and of the inputs' values back to parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

InputSpec = tuple[Any, dict[str, Any]]
"""ComfyUI's description of an input: its type, or the choices of a combo box, and options."""

_MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer that the page, which counts in doubles, keeps exactly."""
_UNBOUNDED = 10_000.0
"""The upper bound of a number that has none: without one, the page would take a bound that is its default."""
_FLOAT_STEP = 0.05


def build_inputs(model: type[BaseModel], leave_out: Collection[str] = ()) -> dict[str, InputSpec]:
    """Return an input for every field of the model, in its order, except for those in `leave_out`."""
    properties = model.model_json_schema()["properties"]
    return {name: _build_input(schema) for name, schema in properties.items() if name not in leave_out}


def read_inputs(model: type[BaseModel], values: Mapping[str, object]) -> dict[str, object]:
    """Return the inputs' values as the model takes them: an empty text stands for no value."""
    properties = model.model_json_schema()["properties"]
    return {
        name: None if value == "" and "anyOf" in properties.get(name, {}) else value
        for name, value in values.items()
    }


def _build_input(schema: Mapping[str, Any]) -> InputSpec:
    options: dict[str, Any] = {"tooltip": schema.get("description", "")}
    default = schema.get("default")
    if "enum" in schema:
        return list(schema["enum"]), {**options, "default": default}
    match schema.get("type"):
        case "boolean":
            return "BOOLEAN", {**options, "default": default}
        case "integer":
            limits = {
                "min": schema.get("minimum", 0),
                "max": min(schema.get("maximum", _MAX_SAFE_INTEGER), _MAX_SAFE_INTEGER),
                "step": schema.get("multipleOf", 1),
            }
            return "INT", {**options, "default": default, **limits}
        case "number":
            limits = {
                "min": schema.get("minimum", 0.0),
                "max": schema.get("maximum", _UNBOUNDED),
                "step": _FLOAT_STEP,
                "round": 0.001,
            }
            return "FLOAT", {**options, "default": default, **limits}
    return "STRING", {**options, "default": "" if default is None else str(default)}
