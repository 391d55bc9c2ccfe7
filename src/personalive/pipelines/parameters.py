"""Converts a user's `name=value` to a pipeline's checked parameters, with messages a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from personalive.errors import InputError
from personalive.pipelines.base import RunParameters
from personalive.pipelines.presets import expand_preset
from personalive.pipelines.registry import AnyPipeline

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=RunParameters)


def split_parameters(
    pipeline: AnyPipeline, values: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Split values by name into run parameters and load parameters. A `preset` becomes what it sets.

    Raises `InputError` for a name that the pipeline does not know.
    """
    values = expand_preset(values, pipeline.run_parameters)
    run, load = pipeline.run_parameters.model_fields, pipeline.load_parameters.model_fields
    for name in values:
        if name not in run and name not in load:
            known = ", ".join([*run, *(field for field in load if field not in run)])
            raise InputError(f"The {pipeline.info.id} pipeline has no parameter {name!r}. It has: {known}.")
    return (
        {name: value for name, value in values.items() if name in run},
        {name: value for name, value in values.items() if name not in run},
    )


def build_run_parameters(model: type[R], values: Mapping[str, object], now: RunParameters | None = None) -> R:
    """Return the checked run parameters: `now`, by default the pipeline's own, changed by `values`.

    Among these, `preset` stands for what it sets. Raises `InputError`, one sentence for all that is wrong.
    """
    return build_parameters(model, {**(now.model_dump() if now else {}), **expand_preset(values, model)})


def build_parameters(model: type[M], values: Mapping[str, object]) -> M:
    """Return the checked parameter set. Raises `InputError`, one sentence for all that is wrong."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        found = error.errors(include_url=False)
        unknown = [".".join(map(str, item["loc"])) for item in found if item["type"] == "extra_forbidden"]
        wrong = [
            f"{'.'.join(map(str, item['loc'])) or 'parameters'} = {item['input']!r}: {item['msg']}"
            for item in found
            if item["type"] != "extra_forbidden"
        ]
        if unknown:
            wrong.append(f"There {_format_names(unknown)}; there are: {', '.join(model.model_fields)}")
        raise InputError("; ".join(wrong) + ".") from None


def _format_names(unknown: list[str]) -> str:
    """Format up to eight names, shortened: they may come from an unknown client."""
    shown = ", ".join(repr(name[:40]) for name in unknown[:8])
    return f"is no parameter {shown}" if len(unknown) == 1 else f"are no parameters {shown}"
