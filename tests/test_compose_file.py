"""`compose.yaml` and `.env.example` say what the server and the image understand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from personalive.server.settings import ENV_PREFIX, Settings, read_settings

ROOT = Path(__file__).parents[1]
SERVERS = ("cpu", "gpu")


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    return found


def example() -> dict[str, str]:
    """All that `.env.example` shows, what stands behind # too."""
    lines = [line.removeprefix("# ") for line in (ROOT / ".env.example").read_text("utf-8").splitlines()]
    pairs = [line.partition("=") for line in lines if line.partition("=")[0].isupper()]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("name", SERVERS)
def test_ports_are_those_of_the_server(services: dict[str, Any], name: str) -> None:
    command, ports = services[name]["command"], services[name]["ports"]
    udp = command[command.index("--udp-ports") + 1]
    assert f"{udp}:{udp}/udp" in ports
    assert any(port.endswith(":8000:8000") for port in ports)


@pytest.mark.parametrize("name", SERVERS)
def test_servers_have_no_rights(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["env_file"] == ".env"


def test_the_gpu_is_reserved(services: dict[str, Any]) -> None:
    devices = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert services["gpu"]["build"]["args"] == {"VARIANT": "cuda"}


def test_the_example_names_settings_and_profiles(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = example()
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert {name for name in given if name.startswith(ENV_PREFIX)} <= known
    profiles = {profile for service in services.values() for profile in service["profiles"]}
    assert set(given["COMPOSE_PROFILES"].split(",")) <= profiles
    given |= {f"{ENV_PREFIX}API_KEY": "a-key", f"{ENV_PREFIX}TURN_SECRET": "a-secret"}
    for name in known & set(given):
        monkeypatch.setenv(name, given[name])
    settings = read_settings({"host": "0.0.0.0"})
    assert settings.turn_secret is not None


def test_a_relay_without_a_secret_does_not_start(services: dict[str, Any]) -> None:
    ran = begin_relay(services, {})
    assert ran.returncode == 1
    assert "PERSONALIVE_TURN_SECRET" in ran.stderr


def begin_relay(services: dict[str, Any], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What the relay's start comes to, with compose's `$$` read as compose does."""
    shell, flags, script = services["coturn"]["entrypoint"]
    words = [shell, flags, script.replace("$$", "$")]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        words, env=path | environment, capture_output=True, text=True, timeout=20, check=False
    )


def test_the_image_is_given_nothing_but_what_it_copies() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert kept == set(copied)
    assert all((ROOT / name).exists() for name in kept)
