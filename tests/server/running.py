"""`personalive serve` in a separate process, on a free port, and what that process holds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

import httpx

from tests.server.report import Report

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests/plugin"
PROGRAM = "from personalive.cli.app import main; main()"
START_LIMIT = 60.0
LEAVE_LIMIT = 15.0
"""Seconds: the server has ten to close its sessions."""


@dataclass(frozen=True)
class Held:
    """What the server's processes hold: `sessions` as the server counts them, the rest as the system does, over the
    server and its pipeline's process; `rss` in bytes.
    """

    sessions: int
    processes: int
    threads: int
    handles: int
    rss: int


class RunningServer:
    """A server's process, and where to reach it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log
        # A connection that is kept may be closed by the server in the moment it is used again.
        once = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=url, timeout=60, limits=once)

    def identify(self, key: str) -> None:
        """Send this API key from now on."""
        self._http.headers["Authorization"] = f"Bearer {key}"

    @property
    def log(self) -> str:
        """All that it wrote until now."""
        return self._log.read_text(errors="replace")

    def get(self, path: str, **options: Any) -> httpx.Response:
        """What it answers."""
        return self._http.get(path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """What it answers."""
        return self._http.post(path, **options)

    def patch(self, path: str, **options: Any) -> httpx.Response:
        """What it answers."""
        return self._http.patch(path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        """What it answers."""
        return self._http.delete(path, **options)

    def load(self, pipeline: str, **wishes: Any) -> None:
        """Load that pipeline and wait until it is ready. `force` may be among the wishes."""
        force = {"force": wishes.pop("force")} if "force" in wishes else {}
        body = {"pipeline_id": pipeline, "load_params": wishes, **force}
        answer = self.post("/api/v1/pipeline/load", json=body)
        assert answer.status_code == 200, answer.text
        self.wait_until_loaded()

    def wait_until_loaded(self, limit: float = START_LIMIT) -> None:
        """Raises `RuntimeError` where loading fails, `TimeoutError` where it takes too long."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            status = self.get("/api/v1/pipeline/status").json()
            if status["status"] == "loaded":
                return
            if status["status"] == "error":
                raise RuntimeError(status["error"])
            time.sleep(0.05)
        raise TimeoutError(f"no pipeline was loaded within {limit:g} s: {status}")

    def sessions(self) -> list[dict[str, Any]]:
        """What streams."""
        found: list[dict[str, Any]] = self.get("/api/v1/sessions").json()["sessions"]
        return found

    def wait_for_sessions(self, count: int, limit: float = 60.0) -> None:
        """Wait until that number of sessions stream. Raises `TimeoutError`.

        A page that is torn away says no goodbye: its session ends when six checks of its connection, each after up
        to 6 s, went unanswered.
        """
        until = time.monotonic() + limit
        while len(self.sessions()) != count:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(self.sessions())} sessions after {limit:g} s, not {count}")
            time.sleep(0.1)

    def children(self) -> list[int]:
        """The ids of the processes that it has started: one for each pipeline."""
        tasks = (Path("/proc") / str(self.process.pid) / "task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]

    def held(self) -> Held:
        """What the processes hold now."""
        if sys.platform == "win32":
            raise OSError("there is no /proc")
        folders = [Path("/proc") / str(pid) for pid in (self.process.pid, *self.children())]
        pages = sum(int((folder / "statm").read_text().split()[1]) for folder in folders)
        return Held(
            sessions=len(self.sessions()),
            processes=len(folders),
            threads=sum(len(list((folder / "task").iterdir())) for folder in folders),
            handles=sum(len(list((folder / "fd").iterdir())) for folder in folders),
            rss=pages * os.sysconf("SC_PAGE_SIZE"),
        )

    def close(self) -> None:
        """End the connections to it."""
        self._http.close()

    def stop(self, with_signal: int = signal.SIGTERM, limit: float = LEAVE_LIMIT) -> int:
        """Ask it to leave; its exit code. Raises `TimeoutError` where it stays, and kills it."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"the server was still there {limit:g} s after it was told to leave") from None


@contextlib.contextmanager
def running(
    settings: Mapping[str, object] | None = None,
    *arguments: str,
    environment: Mapping[str, str | None] | None = None,
    command: Sequence[str] = ("serve",),
    start_limit: float = START_LIMIT,
    leave_limit: float = LEAVE_LIMIT,
) -> Iterator[RunningServer]:
    """A server with those settings, by their names, that leaves with exit code 0 in the end.

    `command` is what starts it. Any error meanwhile carries the end of the server's log with it.
    """
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        chosen = {"port": free_port(), "recordings_dir": str(Path(folder) / "recordings"), **(settings or {})}
        with log.open("wb") as output:
            process = start(chosen, *arguments, output=output, environment=environment, command=command)
        server = RunningServer(process, f"http://127.0.0.1:{chosen['port']}", log)
        try:
            _wait_until_live(server, start_limit)
            yield server
            code = server.stop(limit=leave_limit)
            assert code == 0, f"exit code {code}"
        except BaseException as error:
            error.add_note(f"the server's log ends with:\n{server.log[-6000:]}")
            raise
        finally:
            server.close()
            if process.poll() is None:
                process.kill()
                process.wait()


def start(
    settings: Mapping[str, object],
    *arguments: str,
    output: IO[bytes],
    environment: Mapping[str, str | None] | None = None,
    command: Sequence[str] = ("serve",),
) -> subprocess.Popen[bytes]:
    """The process, which writes all it says to `output`. A variable that is None in `environment` is not set."""
    path = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    inherited = {name: value for name, value in os.environ.items() if name not in _own(os.environ)}
    chosen = inherited | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | _variables(settings)
    wanted = {**chosen, **(environment or {})}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command, *arguments],
        env={name: value for name, value in wanted.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )


class ClientProcess:
    """`tests.server.client` in a separate process; `arguments` are its flags. Use it in a `with` block."""

    def __init__(self, url: str, *arguments: object) -> None:
        self._folder = TemporaryDirectory()
        self._json = Path(self._folder.name) / "report.json"
        self._said = Path(self._folder.name) / "said"
        command = [sys.executable, "-m", "tests.server.client", "--url", url, "--json", str(self._json)]
        with self._said.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_connected(self, limit: float = 30.0) -> None:
        """Raises `RuntimeError` where it ends before that, or takes too long."""
        until = time.monotonic() + limit
        while not self._said.read_bytes().startswith(b"connected"):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"a client did not connect:\n{self._said.read_text(errors='replace')}")
            time.sleep(0.05)

    def report(self, limit: float) -> Report:
        """What it saw, once it has ended. Raises `RuntimeError` where it broke down."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            code = -1
        if code != 0:
            raise RuntimeError(f"a client broke down:\n{self._said.read_text(errors='replace')}")
        return Report.load(self._json)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _own(environment: Mapping[str, str]) -> set[str]:
    """Settings of whoever runs the tests: none of them counts here. The home is where weights are looked for."""
    return {name for name in environment if name.startswith("PERSONALIVE_") and name != "PERSONALIVE_HOME"}


def _variables(settings: Mapping[str, object]) -> dict[str, str]:
    return {
        f"PERSONALIVE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }


def _wait_until_live(server: RunningServer, limit: float) -> None:
    until = time.monotonic() + limit
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended at once with exit code {server.process.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if server.get("/health/live").status_code == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"the server did not answer within {limit:g} s")
