"""The server's settings. Flags override the environment, which overrides a TOML file, which overrides defaults."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
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


def _check_stun_urls(given: tuple[str, ...]) -> tuple[str, ...]:
    return _check_urls(given, ("stun:", "stuns:"))


def _check_turn_urls(given: tuple[str, ...]) -> tuple[str, ...]:
    return _check_urls(given, ("turn:", "turns:"))


def _check_urls(given: tuple[str, ...], schemes: tuple[str, ...]) -> tuple[str, ...]:
    for url in given:
        if not url.startswith(schemes) or len(url.split(":")[1]) == 0:
            raise ValueError(f"{url!r} is no address such as {schemes[0]}{schemes[0][:4]}.example.com:3478")
    return given


_Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
_List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]


class Settings(BaseSettings):
    """All settings of the server. Times are in seconds. `read_settings` makes it; tests make it by name.

    It is invalid to listen beyond this machine with neither a key nor `insecure`.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen at; 0.0.0.0 is every one.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    api_key: _Secret | None = Field(None, description="Key that clients send as `Authorization: Bearer KEY`.")
    insecure: bool = Field(False, description="Serve without a key even beyond this machine.")
    cors_origins: Annotated[_List, AfterValidator(_check_origins)] = Field(
        (), description="Web origins whose pages may call the server; none by default."
    )
    max_sessions: int = Field(1, ge=1, le=256, description="Sessions at a time, on each GPU.")
    max_viewers: int = Field(16, ge=0, le=1024, description="Viewers by WHEP at a time, of all sessions.")
    gpus: Annotated[_List, AfterValidator(_check_gpus)] = Field(
        (), description="GPUs to serve from, by number, or all; the first by default. Each has its sessions."
    )
    pipeline: str | None = Field(None, min_length=1, description="Pipeline to load at the start.")
    load_params: dict[str, Any] = Field(default_factory=dict, description="Its load parameters, by name.")
    reference: Path | None = Field(None, description="Portrait to begin with; goes with a pipeline.")
    stun_urls: Annotated[_List, AfterValidator(_check_stun_urls)] = Field(
        (), description="STUN servers, as stun:HOST:PORT."
    )
    turn_urls: Annotated[_List, AfterValidator(_check_turn_urls)] = Field(
        (), description="TURN servers, as turn:HOST:PORT."
    )
    turn_username: str | None = Field(None, min_length=1, description="User of the TURN servers.")
    turn_password: _Secret | None = Field(None, description="That user's password, if it is a fixed one.")
    turn_secret: _Secret | None = Field(
        None, description="Secret shared with the TURN servers, to make credentials that end."
    )
    turn_ttl_s: int = Field(
        3600, ge=60, le=86_400, description="Seconds for which such credentials are valid."
    )
    udp_ports: Annotated[str, AfterValidator(_parse_port_range)] | None = Field(
        None, description="UDP ports for media, as A-B; any by default."
    )
    public_ip: Annotated[str, AfterValidator(_parse_ip_address)] | None = Field(
        None, description="Public IP address of the server, if the machine has a different one."
    )
    recordings_dir: Path = Field(
        default_factory=lambda: cache_dir() / "recordings", description="Folder of the recordings."
    )
    watermark: bool = Field(False, description='Write "AI generated" into a corner of every frame.')
    log_format: Literal["text", "json"] = Field("text", description="How log lines look.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    connect_timeout_s: float = Field(
        20, gt=0, le=600, description="Seconds after which a session that is not connected ends."
    )
    idle_timeout_s: float = Field(
        30, gt=0, le=86_400, description="Seconds without video after which a session ends."
    )
    body_timeout_s: float = Field(
        20,
        gt=0,
        le=600,
        description="Seconds within which a request's body must begin, and its longest pause.",
    )
    header_timeout_s: float = Field(
        10, gt=0, le=600, description="Seconds within which a request's headers must arrive."
    )
    max_connections: int = Field(
        128, ge=4, le=4096, description="HTTP connections at a time from one address; idle ones make room."
    )
    drain_s: float = Field(
        7, ge=0.5, le=600, description="Seconds that sessions have to end when the server stops."
    )
    debug_stalls: bool = Field(False, description="Measure how long the event loop is blocked.")

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources by priority: flags, then the environment."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings


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
