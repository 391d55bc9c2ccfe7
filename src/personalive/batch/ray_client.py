"""Imports Ray and connects to it, with its defaults adapted to a command line."""

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
    """Import and return the `ray` module. Raises `InputError` where it is not installed."""
    # Ray reports its usage over the network by default.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # This will be Ray's default: a worker without GPUs keeps the devices that its environment names.
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
    """Connect to the cluster at `address` and yield the `ray` module. Raises `ClusterError` where there is none.

    `address` is "auto", HOST:PORT or ray://HOST:PORT. None starts a cluster on this machine, for at least `cores`
    CPUs.
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
                f"No Ray cluster can be reached at {address or 'this machine'}: "
                f"{str(error).rstrip('.')}. Start one with `ray start --head`, name its address, or if it asks "
                "for a token, set RAY_AUTH_MODE=token."
            ) from error
        begin()
        with _quiet_ray(ray):
            try:
                yield ray
            finally:
                ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise `OSError` where nothing listens: Ray would try for a minute, and then end this process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()


@contextmanager
def _quiet_ray(ray: Any) -> Iterator[None]:
    """Keep Ray from printing a paragraph when a worker dies: the batch has its own message for that."""
    # Ray has no setting for this; its debugger does the same.
    internals = ray._private.worker
    internals._worker_logs_enabled = False
    try:
        yield
    finally:
        internals._worker_logs_enabled = True


@contextmanager
def _keep_signal_handlers() -> Iterator[Callable[[], None]]:
    """Handle SIGTERM as before the block, with the same exit code; `begin` must be called once Ray runs.

    Ray installs its own handler when it starts, and turns the exit code of any handler into 1 where the signal
    arrives during one of its calls.
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
