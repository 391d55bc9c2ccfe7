"""Ray, imported and connected to: what of its habits does not suit a command line is kept out here."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from personalive.errors import ClusterError, InputError
from personalive.installation import install_command

_CONNECT_TIMEOUT_S = 10.0


def import_ray() -> Any:
    """The `ray` module. Raises `InputError` where it is not installed."""
    # Ray reports its use over the network unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The coming default, chosen now: a worker without GPUs keeps the environment's own choice of devices.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            f"More than one worker needs Ray, which is not installed. Run: {install_command('cluster')}"
        ) from None
    return ray


@contextmanager
def connect(address: str | None, cores: int) -> Iterator[Any]:
    """Ray, connected to the cluster at `address` for the time of a block. Raises `ClusterError` without one.

    `address` is "auto", HOST:PORT or ray://HOST:PORT. None starts one on this machine, for `cores` at least.
    """
    ray = import_ray()
    wanted: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None:
        wanted |= {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, cores),
            "include_dashboard": False,
        }
    else:
        wanted |= {"address": address}
    with _keep_signal_handlers() as begin:
        try:
            if address is not None:
                _check_reachable(address)
            ray.init(**wanted)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ClusterError(
                f"There is no Ray cluster to be reached at {address or 'this machine'}: "
                f"{str(error).rstrip('.')}. Start one with `ray start --head`, name its address, or where it asks "
                "for a token, set RAY_AUTH_MODE=token."
            ) from error
        begin()
        with _quiet_ray(ray):
            try:
                yield ray
            finally:
                ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray would try for a minute, and then end this process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()


@contextmanager
def _quiet_ray(ray: Any) -> Iterator[None]:
    """Keep Ray from printing a paragraph whenever a worker dies: the batch says it in its own words."""
    # There is no setting for it; this is how Ray's own debugger does it.
    internals = ray._private.worker
    internals._worker_logs_enabled = False
    try:
        yield
    finally:
        internals._worker_logs_enabled = True


@contextmanager
def _keep_signal_handlers() -> Iterator[Callable[[], None]]:
    """Answer SIGTERM as before the block, and with the same exit code; `begin` must be called once Ray runs.

    Ray puts a handler of its own in place when it starts, and turns the exit code of any into 1 where the signal
    comes during one of its calls.
    """
    before = signal.getsignal(signal.SIGTERM)
    codes: list[Any] = []

    def leave(number: int, frame: FrameType | None) -> None:
        assert callable(before)
        try:
            before(number, frame)
        except SystemExit as leaving:
            codes.append(leaving.code)
            raise

    def begin() -> None:
        if ours:
            signal.signal(signal.SIGTERM, leave if callable(before) else before)

    ours = threading.current_thread() is threading.main_thread()
    try:
        yield begin
    except SystemExit:
        if codes:
            raise SystemExit(codes[0]) from None
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)
