"""The server's settings. Flags override the environment, which overrides a TOML file, which overrides defaults."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from personalive.errors import InputError
from personalive.paths import cache_dir, expand_user
from personalive.server.options import SERVER_OPTIONS, make_field

ENV_PREFIX = "PERSONALIVE_"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"

_PORTS = re.compile(r"(\d{1,5})-(\d{1,5})")
_ORIGIN = re.compile(r"\*|https?://[^\s/?#@]+")
_GPU = re.compile(r"\d{1,3}|(GPU|MIG)-[0-9a-fA-F-]+")
ALL_GPUS = "all"
_MASKED = "(set, not shown)"


def _split_list(value: object) -> object:
    """Split a list that the environment gives as text with commas."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


def _parse_port_range(text: str) -> str:
    found = _PORTS.fullmatch(text.strip())
    low, high = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1024 <= low <= high <= 65535:
        raise ValueError("give a range such as 50000-50100, within 1024-65535")
    return f"{low}-{high}"


def _parse_ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError("give an IP address such as 203.0.113.7") from None


def _check_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("it must have printable ASCII characters without spaces, at least one")
    return value


def _check_origins(given: tuple[str, ...]) -> tuple[str, ...]:
    for origin in given:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin such as https://example.com")
    return given


def _check_gpus(given: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(given)) < len(given):
        raise ValueError("each GPU can be named once")
    if given != (ALL_GPUS,) and not all(_GPU.fullmatch(gpu) for gpu in given):
        raise ValueError("give numbers such as 0,1 (nvidia-smi shows them), or all")
    return given


def _check_urls(given: tuple[str, ...], schemes: tuple[str, ...]) -> tuple[str, ...]:
    for url in given:
        if not url.startswith(schemes) or len(url.split(":")[1]) == 0:
            raise ValueError(f"{url!r} is no address such as {schemes[0]}{schemes[0][:4]}.example.com:3478")
    return given


_Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
_List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]


_field = partial(make_field, SERVER_OPTIONS)


class Settings(BaseSettings):
    """All settings of the server. Times are in seconds. `read_settings` makes it; tests make it by name.

    It is invalid to listen beyond this machine with neither a key nor `insecure`.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False
    )

    host: str = _field("host", min_length=1)
    port: int = _field("port", ge=0, le=65535)
    api_key: _Secret | None = _field("api_key")
    insecure: bool = _field("insecure")
    cors_origins: Annotated[_List, AfterValidator(_check_origins)] = _field("cors_origins")
    max_sessions: int = _field("max_sessions", ge=1, le=256)
    max_viewers: int = _field("max_viewers", ge=0, le=1024)
    gpus: Annotated[_List, AfterValidator(_check_gpus)] = _field("gpus")
    pipeline: str | None = _field("pipeline", min_length=1)
    load_params: dict[str, Any] = _field("load_params", default_factory=dict)
    reference: Path | None = _field("reference")
    stun_urls: Annotated[_List, AfterValidator(partial(_check_urls, schemes=("stun:", "stuns:")))] = _field(
        "stun_urls"
    )
    turn_urls: Annotated[_List, AfterValidator(partial(_check_urls, schemes=("turn:", "turns:")))] = _field(
        "turn_urls"
    )
    turn_username: str | None = _field("turn_username", min_length=1)
    turn_password: _Secret | None = _field("turn_password")
    turn_secret: _Secret | None = _field("turn_secret")
    turn_ttl_s: int = _field("turn_ttl_s", ge=60, le=86_400)
    udp_ports: Annotated[str, AfterValidator(_parse_port_range)] | None = _field("udp_ports")
    public_ip: Annotated[str, AfterValidator(_parse_ip_address)] | None = _field("public_ip")
    recordings_dir: Path = _field("recordings_dir", default_factory=lambda: cache_dir() / "recordings")
    watermark: bool = _field("watermark")
    log_format: Literal["text", "json"] = _field("log_format")
    log_level: Literal["debug", "info", "warning", "error"] = _field("log_level")
    connect_timeout_s: float = _field("connect_timeout_s", gt=0, le=600)
    idle_timeout_s: float = _field("idle_timeout_s", gt=0, le=86_400)
    body_timeout_s: float = _field("body_timeout_s", gt=0, le=600)
    header_timeout_s: float = _field("header_timeout_s", gt=0, le=600)
    max_connections: int = _field("max_connections", ge=4, le=4096)
    drain_s: float = _field("drain_s", ge=0.5, le=600)
    debug_stalls: bool = _field("debug_stalls")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.reference is not None and self.pipeline is None:
            raise ValueError("a reference needs a pipeline to prepare it: name one with --pipeline")
        if self.turn_secret is not None and self.turn_password is not None:
            raise ValueError("TURN takes a password or a secret, not both")
        if self.turn_urls and self.turn_secret is None and None in {self.turn_username, self.turn_password}:
            raise ValueError("TURN servers need --turn-secret, or --turn-username and --turn-password")
        if not (self.on_loopback or self.insecure or self.api_key is not None):
            raise ValueError(
                f"anybody who reaches {self.host} could use the server: set PERSONALIVE_API_KEY or --api-key, "
                "or say --insecure if that is meant"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def udp_port_range(self) -> range | None:
        """The UDP ports that media may use; None for any."""
        if self.udp_ports is None:
            return None
        low, high = map(int, self.udp_ports.split("-"))
        return range(low, high + 1)

    def describe(self) -> dict[str, str]:
        """Return every setting by name, for display; secrets are hidden."""
        return {name: _format_value(getattr(self, name)) for name in type(self).model_fields}


def read_settings(flags: Mapping[str, object] | None = None, config: Path | None = None) -> Settings:
    """Return the settings. `flags` are those given, by name; `config` is a TOML file.

    If `config` is None, the variable PERSONALIVE_CONFIG may name the file. Raises `InputError` with one sentence.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    config = config or (Path(named) if named else None)
    contents = {} if config is None else _read_toml(config)

    class _WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            above = super().settings_customise_sources(settings_cls, *sources, **named)
            return *above, InitSettingsSource(settings_cls, contents)

    try:
        return _WithFile(**dict(flags or {}))  # type: ignore[arg-type]
    except ValidationError as error:
        raise InputError(_format_errors(error, contents, config)) from None
    except SettingsError as error:
        raise InputError(f"{error}: give it as JSON.") from None


def _read_toml(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(expand_user(config).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{config} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{config} is not TOML: {error}.") from None


def _format_errors(error: ValidationError, contents: Mapping[str, object], config: Path | None) -> str:
    """Return one sentence about all errors, without the values, which may be secret."""
    wrong = []
    for item in error.errors(include_url=False, include_input=False):
        name = ".".join(map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            where = f"{config} has" if item["loc"][0] in contents else "There is"
            message, name = f"{where} no setting of the server named {name!r}", ""
        wrong.append(f"{name}: {message}" if name else message)
    text = "; ".join(wrong)
    return f"{text[0].upper() if not error.errors(include_input=False)[0]['loc'] else text[0]}{text[1:]}."


def _format_value(value: object) -> str:
    if isinstance(value, SecretStr):
        return _MASKED
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
