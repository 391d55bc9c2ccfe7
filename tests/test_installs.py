"""The wheel alone, installed as strangers do: by today's versions and by the lowest that it asks for.

One environment each; every one animates the sample and serves. Prereleases and sources are not taken: who installs
has no compiler.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PATIENCE = 420

pytestmark = [pytest.mark.installs, pytest.mark.slow, pytest.mark.timeout(900)]


def python(version: str) -> str:
    """That Python, on the path or among those of pyenv; this test's own counts too."""
    found = shutil.which(f"python{version}")
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for candidate in (*map(str, kept), *([found] if found else [])):
        done = subprocess.run(
            [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.stdout.strip() == version:
            return candidate
    pytest.skip(f"there is no Python {version} here")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([python("3.11"), "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])
    (found,) = folder.glob("personalive-*.whl")
    return found


def run(command: list[str], **settings: object) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=PATIENCE, **settings  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return str(done.stdout + done.stderr)


def lowest(wheel: Path, version: str, folder: Path) -> Path:
    """Constraints to the lowest version of everything that the wheel names for that Python."""
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    lines = []
    for text in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        for extra in ("", "server"):
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": extra, "python_version": version}):
                (least,) = [each.version for each in requirement.specifier if each.operator == ">="]
                lines.append(f"{requirement.name}=={least}")
                break
    path = folder / "lowest.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(
    params=[("3.11", "lowest"), ("3.12", "newest"), ("3.13", "lowest"), ("3.13", "newest")], ids="-".join
)
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> Iterator[Path]:
    """The commands' folder of an environment with the wheel and what its server needs."""
    version, bounds = request.param
    run([python(version), "-m", "venv", str(tmp_path / "venv")])
    commands = tmp_path / "venv" / "bin"
    pip = [str(commands / "python"), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    constraints = ["-c", str(lowest(wheel, version, tmp_path))] if bounds == "lowest" else []
    run([*pip, *constraints, f"{wheel}[server]"])
    yield commands
    shutil.rmtree(tmp_path / "venv")


def test_it_animates_and_serves(installed: Path, tmp_path: Path) -> None:
    personalive = str(installed / "personalive")
    environment = {**os.environ, "PERSONALIVE_HOME": str(tmp_path / "home")}
    environment.pop("PYTHONPATH", None)
    settings = {"cwd": tmp_path, "env": environment}
    assert "Portraits can be animated here." in run([personalive, "doctor"], **settings)
    samples = next((tmp_path / "venv").glob("lib/*/site-packages/personalive/samples"))
    clip = [str(samples / "portrait.jpg"), str(samples / "driving.mp4")]
    said = run([personalive, "animate", *clip, "-o", "out.mp4"], **settings)
    assert re.search(r"out\.mp4: 225 frames \(225 animated\), 512×512", said)
    assert (tmp_path / "out.mp4").stat().st_size > 100_000
    _serves(personalive, settings)


def _serves(personalive: str, settings: dict[str, object]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [personalive, "serve", "--pipeline", "preview", "--port", str(port)]
    with subprocess.Popen(command, **settings) as server:  # type: ignore[call-overload]
        try:
            assert _healthy(port)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def _healthy(port: int) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.5)
    return False
