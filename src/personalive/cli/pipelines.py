"""`personalive pipelines`: lists the registered pipelines, whether they can run here, and their parameters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalive.cli.text_layout import format_definition, terminal_width, wrap

if TYPE_CHECKING:
    from personalive.pipelines.base import Parameters
    from personalive.pipelines.registry import AnyPipeline


def pipelines(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """List the pipelines with their parameters.

    Run parameters may change while a session runs; load parameters are fixed when the pipeline is loaded.
    Both are set with `--set NAME=VALUE` in `animate`.
    """
    import json
    import warnings

    from personalive.cli import console
    from personalive.pipelines import registry

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = registry.all_pipelines()
    for warning in caught:
        console.print_status(f"warning: {warning.message}")
    cards = [_pipeline_info(name, pipeline) for name, pipeline in found.items()]
    if as_json:
        typer.echo(json.dumps(cards, indent=2))
        return
    typer.echo("\n\n".join(_format_info(card) for card in cards) or "No pipeline is registered.")


def _pipeline_info(name: str, pipeline: AnyPipeline) -> dict[str, Any]:
    state = pipeline.availability()
    info = pipeline.info
    return {
        "id": name,
        "name": info.name,
        "description": info.description,
        "ready": state.ready,
        "reason": state.reason,
        "remedy": state.remedy,
        "generative": info.generative,
        "chunk_frames": info.chunk_frames,
        "exact_chunks": info.exact_chunks,
        "delay_frames": info.delay_frames,
        "run_parameters": _parameter_schemas(pipeline.run_parameters),
        "load_parameters": _parameter_schemas(pipeline.load_parameters),
    }


def _parameter_schemas(model: type[Parameters]) -> dict[str, Any]:
    """Return each parameter's JSON schema: type or choices, default, bounds, description."""
    properties: dict[str, Any] = model.model_json_schema()["properties"] if model.model_fields else {}
    return {name: {k: v for k, v in schema.items() if k != "title"} for name, schema in properties.items()}


def _format_info(card: dict[str, Any]) -> str:
    lines = [
        f"{card['id']}: {card['name']}",
        f"  {card['description']}",
        f"  {'ready' if card['ready'] else 'not available'}: {card['reason']}",
    ]
    if card["remedy"]:
        lines.append(f"  to fix: {card['remedy']}")
    lines = [wrap(line, terminal_width(sys.stdout), hanging=2) for line in lines]
    for title in ("run_parameters", "load_parameters"):
        lines.append(f"  {title.replace('_', ' ')}:")
        lines += [_format_parameter(name, schema) for name, schema in card[title].items()] or ["    none"]
    return "\n".join(lines)


def _format_parameter(name: str, schema: dict[str, Any]) -> str:
    default = f"{name} = {schema['default']}" if "default" in schema else name
    head = f"    {default:<23} {_format_bounds(schema)}"
    return format_definition(head, schema.get("description", ""), terminal_width(sys.stdout), indent=52)


def _format_bounds(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_format_bounds(option) for option in schema["anyOf"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return str(schema.get("type", ""))
    return f"{'' if low is None else low}…{'' if high is None else high}"
