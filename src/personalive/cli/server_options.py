"""The flags of the commands that start a server, made from the server's options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from personalive.server.options import OptionSpec

CONFIG = OptionSpec(Path, "TOML file of settings. Also PERSONALIVE_CONFIG.", metavar="FILE")

Command = Callable[..., None]


def with_options(options: Mapping[str, OptionSpec]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command these options by name; those not given are None."""

    def decorate(command: Command) -> Command:
        hints = {name: _annotate(name, spec) for name, spec in options.items()}
        command.__annotations__ = {**hints, "return": None}
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
                for name, hint in hints.items()
            ]
        )
        return command

    return decorate


def _annotate(name: str, spec: OptionSpec) -> Any:
    flag = spec.flag or f"--{name.removesuffix('_s').replace('_', '-')}"
    if spec.type is bool and spec.flag is None:
        flag += f"/--no-{flag.removeprefix('--')}"
    flags = [flag] if spec.short_flag is None else [flag, spec.short_flag]
    option = typer.Option(*flags, metavar=spec.metavar, help=spec.help, hidden=spec.hidden)
    return Annotated[spec.type | None, option]


def read_flags(given: Mapping[str, Any]) -> dict[str, object]:
    """Return the options that were given, as settings: `load_params` and `gpus` are parsed."""
    from personalive.cli.set_options import parse_settings

    flags = {name: value for name, value in given.items() if value is not None and value != []}
    if "load_params" in flags:
        flags["load_params"] = parse_settings(flags["load_params"])
    if "gpus" in flags:
        flags["gpus"] = ",".join(flags["gpus"])
    return flags
