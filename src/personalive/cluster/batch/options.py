"""What a row or a flag says of a job besides its files: fields of `AnimateJob`, and the pipeline's parameters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from personalive.errors import InputError, PipelineUnavailableError
from personalive.offline import AnimateJob
from personalive.pipelines import registry
from personalive.pipelines.parameters import build, split

_NOT_OPTIONS = {"reference", "driving", "output", "overwrite", "resume", "parameters"}


@cache
def fields() -> dict[str, TypeAdapter[Any]]:
    """The fields of `AnimateJob` that a table may set, and what they may be."""
    hints = {name: kind for name, kind in get_type_hints(AnimateJob).items() if name not in _NOT_OPTIONS}
    return {name: TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)) for name, kind in hints.items()}


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, sorted into fields of `AnimateJob`, with all others in `parameters`.

    Text is read as what the field takes: "0.5", "true", "none"; as a parameter it is JSON where it is that, else
    a word. Raises `InputError` for a name nobody knows, or a value that cannot be, as far as that is known before
    the pipeline is loaded.
    """
    options: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    for name, value in given.items():
        if name in fields():
            options[name] = _field(name, value)
        elif name in _NOT_OPTIONS:
            raise InputError(
                f"{name!r} is no option of a job: it is a flag of the command, or goes by itself."
            )
        else:
            parameters[name] = _plain(value)
    _check_parameters(options.get("pipeline", "auto"), parameters)
    made = {**options, "parameters": parameters}
    # The files are looked at by the worker; numbers and combinations can be judged here.
    nowhere = Path("/nowhere")
    AnimateJob(reference=nowhere / "a", driving=nowhere / "b", output=nowhere / "c", **made).check()
    return made


def loading(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a pipeline's parameters that matter for loading it, as far as pipelines known here have them."""
    pipelines = registry.all_pipelines().values()
    run = {name for one in pipelines for name in one.run_parameters.model_fields}
    load = {name for one in pipelines for name in one.load_parameters.model_fields}
    return {name: value for name, value in parameters.items() if name in load or name not in run}


def _field(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.lower() in {"none", "null"}:
        value = None
    try:
        return fields()[name].validate_python(value)
    except ValidationError as error:
        raise InputError(f"{name} = {value!r}: {error.errors()[0]['msg']}.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:  # a word such as `quality`
            return value
        return value if isinstance(found, float) and not math.isfinite(found) else found
    return value


def _check_parameters(pipeline: str, parameters: Mapping[str, Any]) -> None:
    """What can be known without the machine that the job will run on, which may have other pipelines than this."""
    if pipeline != "auto":
        if pipeline not in registry.names():
            registry.get(pipeline)
        try:
            one = registry.get(pipeline)
        except PipelineUnavailableError:
            return
        run, _ = split(one, parameters)
        build(one.run_parameters, run)
        return
    known: set[str] = set()
    for one in registry.all_pipelines().values():
        known |= {*one.run_parameters.model_fields, *one.load_parameters.model_fields}
    for name in parameters:
        if name not in known:
            offered = ", ".join([*fields(), *sorted(known - set(fields()))])
            raise InputError(f"There is no option {name!r}. There are: {offered}.")
