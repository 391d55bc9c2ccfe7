from __future__ import annotations

import contextlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from personalive.cli.serve import serve
from personalive.errors import InputError
from personalive.server.settings import Settings, read_settings

KEY = "a-key-of-32-letters-and-so-on-123"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(
        'port = 1111\nmax_sessions = 2\nlog_level = "debug"\ncors_origins = ["https://a.example"]\n'
        "[load_params]\nwidth = 256\nheight = 256\n"
    )
    return path


def test_flags_weigh_more_than_the_environment_than_the_file_than_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONALIVE_PORT", "2222")
    monkeypatch.setenv("PERSONALIVE_MAX_SESSIONS", "3")
    found = read_settings({"port": 3333}, file)
    assert (found.port, found.max_sessions, found.log_level, found.host) == (3333, 3, "debug", "127.0.0.1")
    assert found.cors_origins == ("https://a.example",)


def test_the_environment_names_the_file_unless_a_flag_does(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONALIVE_CONFIG", str(file))
    assert read_settings().port == 1111
    other = tmp_path / "other.toml"
    other.write_text("port = 4444")
    assert read_settings(config=other).port == 4444


def test_load_parameters_come_together_from_all_places(file: Path) -> None:
    assert read_settings({"load_params": {"width": 512}}, file).load_params == {"width": 512, "height": 256}


def test_the_environment_takes_lists_with_commas_and_parameters_as_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERSONALIVE_CORS_ORIGINS", "https://a.example, http://b.example:3000")
    monkeypatch.setenv("PERSONALIVE_LOAD_PARAMS", '{"seed": 7}')
    found = read_settings()
    assert found.cors_origins == ("https://a.example", "http://b.example:3000")
    assert found.load_params == {"seed": 7}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ports = 1", ["has no setting of the server named 'ports'"]),
        ("port = ", ["is not TOML"]),
        ("port = 70000", ["port:", "65535"]),
        ('port = "many"\nmax_sessions = 0', ["port:", "max_sessions:"]),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "server.toml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_settings(config=path)
    assert str(caught.value).count("\n") == 0
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_settings(config=tmp_path / "none.toml")


def test_parameters_that_are_not_json_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONALIVE_LOAD_PARAMS", "seed=7")
    with pytest.raises(InputError, match=r"load_params.*as JSON"):
        read_settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_beyond_this_machine_it_wants_a_key_or_to_be_told(host: str) -> None:
    with pytest.raises(InputError):
        read_settings({"host": host})
    if host:
        assert read_settings({"host": host, "insecure": True}).api_key is None
        assert read_settings({"host": host, "api_key": KEY}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    assert read_settings({"host": host}).on_loopback


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Settings(
        api_key=SecretStr(KEY),
        turn_urls=("turn:t.example:3478",),
        turn_secret=SecretStr("hush-hush"),
    )
    shown = f"{found!r} {found} {found.describe()} {found.model_dump()} {found.model_dump_json()}"
    assert KEY not in shown
    assert "hush-hush" not in shown
    assert found.describe()["api_key"] == "(set, not shown)"
    monkeypatch.setenv("PERSONALIVE_API_KEY", KEY + " with spaces")
    with pytest.raises(InputError) as caught:
        read_settings()
    assert KEY not in str(caught.value)
    with pytest.raises(ValidationError) as invalid:
        Settings()
    assert KEY not in str(invalid.value)


@pytest.mark.parametrize("key", ["", " ", "two words", "naïve", "a\nb"])
def test_keys_that_no_header_can_carry_are_refused(key: str) -> None:
    with pytest.raises(InputError, match="api_key"):
        read_settings({"api_key": key})


@pytest.mark.parametrize(
    "flags",
    [
        {"turn_urls": ("turn:t.example",)},
        {"turn_urls": ("turn:t.example",), "turn_username": "me"},
        {"turn_urls": ("turn:t.example",), "turn_secret": "x", "turn_password": "y"},
        {"turn_urls": ("stun:t.example",), "turn_secret": "x"},
        {"stun_urls": ("t.example:3478",)},
        {"stun_urls": ("stun:",)},
        {"cors_origins": ("a.example",)},
        {"cors_origins": ("https://a.example/path",)},
        {"public_ip": "example.com"},
        {"udp_ports": "50000"},
        {"udp_ports": "50100-50000"},
        {"udp_ports": "80-90"},
        {"udp_ports": "60000-70000"},
        {"reference": "portrait.jpg"},
        {"max_sessions": 0},
        {"body_timeout_s": 0},
        {"idle_timeout_s": float("nan")},
        {"log_level": "loud"},
        {"nonesuch": 1},
    ],
)
def test_settings_that_cannot_be_are_refused(flags: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        read_settings(flags)
    assert str(caught.value).endswith(".")


@given(low=st.integers(1024, 65535), more=st.integers(0, 1000))
def test_port_ranges(low: int, more: int) -> None:
    high = min(low + more, 65535)
    assert read_settings({"udp_ports": f"{low}-{high}"}).udp_port_range == range(low, high + 1)


@given(st.text())
def test_any_text_for_a_range_or_an_address_is_taken_or_refused_in_words(text: str) -> None:
    for name in ("udp_ports", "public_ip", "host", "api_key"):
        with contextlib.suppress(InputError):
            read_settings({name: text})


def test_every_setting_is_documented_with_its_flag_variable_and_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(--[\w-]+)[^`]*`[^|]*\| `(\w+)` \| (.*?) \|", page, re.MULTILINE)
    flags = {parameter.name: parameter.opts for parameter in command().params}
    shown = Settings().describe() | {"recordings_dir": "`recordings` in `PERSONALIVE_HOME`"}
    del shown["debug_stalls"]
    assert {name: default for name, _, _, default in rows} == shown
    for name, flag, variable, _ in rows:
        assert flag in flags[name]
        assert variable == f"PERSONALIVE_{name.upper()}"


def command() -> Any:
    application = typer.Typer()
    application.command()(serve)
    return typer.main.get_command(application)


def test_every_setting_has_a_flag() -> None:
    assert {*inspect.signature(serve).parameters} == {*Settings.model_fields, "config"}
