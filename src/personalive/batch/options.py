"""The options of a job, from a row or a flag: fields of `AnimateJob`, and the pipeline's parameters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from personalive.errors import InputError, PipelineUnavailableError
from personalive.jobs import AnimateJob
from personalive.media.rotation import QUARTERS, Rotation
from personalive.pipelines import registry
from personalive.pipelines.parameters import build_parameters, split_parameters
from personalive.pipelines.presets import PRESET

_EXCLUDED_FIELDS = {"reference", "driving", "output", "overwrite", "resume", "parameters"}
_WORDS = {"int": "a whole number", "float": "a number", "finite": "a finite number", "bool": "true or false"}
"""What a value must be, by pydantic's error type up to its first underscore."""


@cache
def job_fields() -> dict[str, TypeAdapter[Any]]:
    """Return the fields of `AnimateJob` that a table may set, with their types."""
    hints = {name: kind for name, kind in get_type_hints(AnimateJob).items() if name not in _EXCLUDED_FIELDS}
    return {name: TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)) for name, kind in hints.items()}


@cache
def _known_columns() -> dict[str, str]:
    names = {*_EXCLUDED_FIELDS, *job_fields(), *_parameter_names(), "options"} - {
        "parameters",
        "overwrite",
        "resume",
    }
    return {_fold(name): name for name in names}


def match_column(text: str) -> str | None:
    """Return the file, option or parameter that a column name means, ignoring case, spaces and hyphens, or None."""
    return _known_columns().get(_fold(text))


def _fold(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip()).casefold()


@cache
def _parameter_names() -> frozenset[str]:
    """Return the names of the run and load parameters of all pipelines."""
    models = [
        model
        for one in registry.all_pipelines().values()
        for model in (one.run_parameters, one.load_parameters)
    ]
    return frozenset({PRESET, *(name for model in models for name in model.model_fields)})


def validate_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Validate options by name and return fields of `AnimateJob`, with all other options in `parameters`.

    Text is converted to the field's type: "0.5", "true", "none"; for a parameter it is parsed as JSON if it is
    that, else it stays text. Raises `InputError` for an unknown name or an invalid value, as far as that is known
    before the pipeline is loaded.
    """
    options: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    for name, value in values.items():
        if name in job_fields():
            options[name] = _validate_field(name, value)
        elif name in _EXCLUDED_FIELDS:
            raise InputError(
                f"{name!r} is not an option of a job: it is a flag of the command, or set automatically."
            )
        else:
            parameters[name] = _to_plain_value(value)
    _check_parameters(options.get("pipeline", "auto"), parameters)
    made = {**options, "parameters": parameters}
    # The worker checks the files; numbers and combinations can be checked here.
    nowhere = Path("/nowhere")
    AnimateJob(reference=nowhere / "a", driving=nowhere / "b", output=nowhere / "c", **made).check()
    return made


def select_load_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those parameters that are load parameters, as far as the pipelines installed here know them."""
    pipelines = registry.all_pipelines().values()
    run = {PRESET, *(name for one in pipelines for name in one.run_parameters.model_fields)}
    load = {name for one in pipelines for name in one.load_parameters.model_fields}
    return {name: value for name, value in parameters.items() if name in load or name not in run}


def _validate_field(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.lower() in {"none", "null"}:
        value = None
    elif isinstance(value, str) and value.lower() == "auto":  # spreadsheets capitalize words
        value = "auto"
    try:
        return job_fields()[name].validate_python(value)
    except ValidationError as error:
        takes = _takes(name, error)
        raise InputError(f"{name} cannot be {value!r}: {takes}.") from None


def _takes(name: str, error: ValidationError) -> str:
    """Describe what a field takes, as the end of a sentence; `error` is the one that validating it raised."""
    if get_type_hints(AnimateJob)[name] == Rotation:
        return f"it must be auto, {', '.join(map(str, QUARTERS[:-1]))} or {QUARTERS[-1]} degrees clockwise"
    kinds = {each["type"].partition("_")[0]: each for each in error.errors()}
    wanted = [words for kind, words in _WORDS.items() if kind in kinds]
    if "literal" in kinds:
        wanted.append(str(kinds["literal"].get("ctx", {}).get("expected")))
    if wanted:
        return f"it must be {' or '.join(wanted)}"
    message = str(error.errors()[0]["msg"])
    return message[0].lower() + message[1:]


def _to_plain_value(value: Any) -> Any:
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:  # a word such as `quality`
            return value
        return value if isinstance(found, float) and not math.isfinite(found) else found
    return value


def _check_parameters(pipeline: str, parameters: Mapping[str, Any]) -> None:
    """Check what does not depend on the machine that runs the job, which may have other pipelines than this one."""
    if pipeline != "auto":
        if pipeline not in registry.pipeline_names():
            registry.get_pipeline(pipeline)
        try:
            one = registry.get_pipeline(pipeline)
        except PipelineUnavailableError:
            return
        _validate_parameters(one, parameters)
        return
    for name in parameters:
        if name not in _parameter_names():
            offered = ", ".join([*job_fields(), *sorted(_parameter_names() - set(job_fields()))])
            raise InputError(f"There is no option {name!r}. Available: {offered}.")
    _check_for_auto(parameters)


def _check_for_auto(parameters: Mapping[str, Any]) -> None:
    """Check that the parameters fit a pipeline that "auto" may choose on the machine that runs the job."""
    wrong: list[InputError] = []
    for name in (registry.DIFFUSION, registry.FALLBACK):
        try:
            _validate_parameters(registry.get_pipeline(name), parameters)
        except PipelineUnavailableError:
            return
        except InputError as error:
            wrong.append(error)
        else:
            return
    # Where one pipeline does not know a name, the other's error is about a value and says more.
    raise min(wrong, key=lambda error: "has no parameter" in str(error))


def _validate_parameters(one: registry.AnyPipeline, parameters: Mapping[str, Any]) -> None:
    """Raise `InputError` for parameters that a pipeline does not have, or values that it does not take."""
    run, load = split_parameters(one, parameters)
    build_parameters(one.run_parameters, run)
    build_parameters(one.load_parameters, load)
