from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Call

PROGRAM = "import sys; from personalive.cli.app import main; sys.argv[0] = 'personalive'; main()"
KEY = "a-key-that-nobody-sees"

ENDINGS = [signal.SIGTERM, signal.SIGINT]
if sys.platform != "win32":
    ENDINGS.append(signal.SIGHUP)


@contextlib.contextmanager
def server(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], list[str], str]]:
    """A server on a free port: its process, the lines it said until it began, its address."""
    command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | variables
    )
    try:
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if "server_started" in line:
                break
        address = next(
            word for word in said[-1].replace('"', " ").replace("=", " ").split() if word[:4] == "http"
        )
        wait_until_live(address.rstrip("},"))
        yield process, said, address.rstrip("},")
    finally:
        process.kill()
        process.communicate()


def wait_until_live(address: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address + "/health/live", timeout=5):
                return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_help_teaches(personalive: Call) -> None:
    done = personalive("serve", "--help")
    assert done.code == 0
    for word in ("--api-key", "--udp-ports", "--config", "Examples:", "PERSONALIVE_API_KEY", "server.toml"):
        assert word in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], ["--api-key", "--insecure"]),
        (["--port", "99999"], ["port"]),
        (["--config", "nonesuch.toml"], ["nonesuch.toml cannot be read"]),
        (["--turn-url", "turn:t.example"], ["--turn-secret"]),
        (["--set", "width"], ["NAME=VALUE"]),
        (["--log-level", "loud"], ["log_level"]),
        (["--api-key", "two words"], ["api_key"]),
    ],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(
    personalive: Call, arguments: list[str], words: list[str]
) -> None:
    done = personalive("serve", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err
    assert "two words" not in done.err


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(personalive: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = personalive("serve", "--port", taken.getsockname()[1])
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "is taken" in done.err


def test_without_its_packages_it_says_how_to_get_them(
    personalive: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    done = personalive("serve")
    assert done.code == 2
    assert re.search(r"Run: .*pip install .*\[server\]", done.err)


@pytest.mark.parametrize("module", ["fastapi", "aiortc", "uvicorn", "pydantic_settings", "prometheus_client"])
def test_the_command_line_works_without_them(module: str) -> None:
    check = (
        f"import sys; sys.modules[{module!r}] = None; import personalive, personalive.cli.app; "
        "from personalive.cli.diagnostics import run_all_checks"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDINGS)
def test_it_starts_says_where_and_leaves_when_told(number: signal.Signals) -> None:
    with server(PERSONALIVE_API_KEY=KEY) as (process, said, address):
        text = "".join(said)
        assert f"page {address}/" in text
        assert "(set, not shown)" in text
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}/metrics?key={KEY}", timeout=5)
        begun = time.monotonic()
        process.send_signal(number)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert time.monotonic() - begun < 10
    assert "server_stopping" in rest
    assert "path=/metrics status=401" in rest
    assert KEY not in text + rest
    assert "Traceback" not in rest


def test_a_log_of_json_is_json_only(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f'log_format = "json"\napi_key = "{KEY}"\nmax_sessions = 3\n')
    with server("--config", str(file), "--max-sessions", "2") as (process, said, _):
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
    lines = [json.loads(line) for line in "".join([*said, rest]).splitlines()]
    assert {"settings", "server_started", "server_stopping", "server_stopped"} <= {
        line["event"] for line in lines
    }
    settings = next(line["settings"] for line in lines if line["event"] == "settings")
    assert settings["max_sessions"] == "2"
    assert settings["api_key"] == "(set, not shown)"
    assert all(line["time"] and line["level"] for line in lines)


@pytest.mark.slow
def test_doctor_lists_the_server(personalive: Call) -> None:
    assert "ok       server                aiortc " in personalive("doctor").out
