"""The image, run as a machine would that trusts it little; `.ci/image` builds it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from personalive.media import open_driving, read_provenance
from tests.server.camera import Camera
from tests.server.client import streaming
from tests.server.running import free_port

pytestmark = [pytest.mark.container, pytest.mark.slow]

STATE = Path(__file__).parents[1] / "build" / "containers"
SAMPLES = Path(str(files("personalive") / "samples"))
IMAGE = "localhost/personalive:cpu"
KEY = "a-key-of-the-test"
LOCKED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
PATIENCE_S = 60
STREAMED_FRAMES = 20


def podman(*words: str) -> subprocess.CompletedProcess[str]:
    """What `podman` with these words came to; its storage and settings are those of `.ci/image`."""
    settings = {
        "CONTAINERS_CONF": str(STATE / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(STATE / "storage.conf"),
    }
    return subprocess.run(
        ["podman", *words],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def done(*words: str) -> str:
    """What a command that has to succeed prints."""
    ran = podman(*words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """A container that ends without being stopped. Without systemd nothing could ask for its health."""
    return podman("run", "--rm", "--no-healthcheck", *words)


@pytest.fixture(scope="module", autouse=True)
def image() -> Iterator[None]:
    """CI, which builds the image before, may not go without it. No container is left in the end."""
    there = STATE.exists() and shutil.which("podman") and podman("image", "exists", IMAGE).returncode == 0
    if not there:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell("There is no image to test: run .ci/image.")
    yield
    podman("rm", "--all", "--force", "--time", "0", "--volumes")
    podman("volume", "prune", "--force")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sample in a folder that belongs to the image's user."""
    for name in ("portrait.jpg", "driving.mp4"):
        shutil.copy(SAMPLES / name, tmp_path / name)
    shutil.chown(tmp_path, 1000, 0)
    tmp_path.chmod(0o775)
    for outer in list(tmp_path.parents)[:2]:
        outer.chmod(0o755)
    return tmp_path


@contextmanager
def served(
    *words: str, command: tuple[str, ...] = ("serve", "--pipeline", "preview")
) -> Iterator[tuple[str, str]]:
    """The name and the address of a server in a container, which is ready. It is removed in the end."""
    name, port = f"test-{uuid.uuid4().hex[:8]}", free_port()
    publish = ("--publish", f"127.0.0.1:{port}:8000")
    key = ("--env", f"PERSONALIVE_API_KEY={KEY}")
    done("run", "--detach", "--no-healthcheck", "--name", name, *publish, *key, *words, IMAGE, *command)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, name)
        yield name, url
    finally:
        podman("rm", "--force", "--time", "0", "--volumes", name)


def await_ready(url: str, name: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"The server did not get ready: {podman('logs', name)}")


async def stream(url: str) -> None:
    async with streaming(url, Camera(30), key=KEY) as client:
        await client.frames(STREAMED_FRAMES)


def assert_animated(result: Path) -> None:
    with open_driving(result) as frames:
        assert sum(1 for _ in frames) > 0
    assert read_provenance(result) is not None


def test_it_serves_and_ends_when_it_is_told() -> None:
    with served() as (name, url):
        assert httpx.get(f"{url}/health").json()["status"] == "healthy"
        assert httpx.get(f"{url}/api/v1/pipeline/status").status_code == 401
        asyncio.run(stream(url))
        health = json.loads(done("image", "inspect", IMAGE))[0]["Healthcheck"]
        assert health["Test"][0] == "CMD"
        done("exec", name, *health["Test"][1:])
        assert done("exec", name, "id", "-u") == "1000"
        # After two seconds it would be killed, and its code be 137.
        done("stop", "--time", "2", name)
        assert done("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
        assert "server_stopped" in podman("logs", name).stderr


def test_it_ends_when_it_is_told_before_it_listens() -> None:
    name = done("run", "--detach", IMAGE)
    try:
        done("stop", "--time", "2", name)
        assert done("inspect", "--format", "{{.State.ExitCode}}", name) in {"0", "143"}
    finally:
        podman("rm", "--force", "--time", "0", "--volumes", name)


@pytest.mark.parametrize("user", ["1000:0", "12345:0"])
def test_it_serves_without_rights(user: str) -> None:
    with served(*LOCKED, "--user", user) as (name, url):
        asyncio.run(stream(url))
        assert done("exec", name, "id", "-u") == user.partition(":")[0]
        assert podman("exec", name, "touch", "/opt/personalive/new").returncode != 0
        done("exec", name, "touch", "/data/new")


@pytest.mark.parametrize("user", ["1000:0", "12345:0"])
def test_it_animates_in_a_folder_of_the_host(folder: Path, user: str) -> None:
    words = ("animate", "portrait.jpg", "driving.mp4", "-o", "result.mp4", "--end", "0.5")
    ran = run(*LOCKED, "--user", user, "--volume", f"{folder}:/files", IMAGE, *words)
    assert ran.returncode == 0, ran.stderr
    assert_animated(folder / "result.mp4")
    assert (folder / "result.mp4").stat().st_uid == int(user.partition(":")[0])


def test_without_a_key_it_says_what_to_do() -> None:
    ran = run(IMAGE)
    assert ran.returncode == 2
    assert "PERSONALIVE_API_KEY" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_doctor_finds_it_whole() -> None:
    ran = run(*LOCKED, IMAGE, "doctor", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_nothing_of_the_build_is_left() -> None:
    assert run("--entrypoint", "ls", IMAGE, "/build").returncode != 0
    left = run("--entrypoint", "find", IMAGE, "/run/secrets", "/etc/pip.conf", "/opt/personalive/pip.conf")
    assert left.stdout == ""
