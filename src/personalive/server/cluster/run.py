"""`personalive cluster serve` as it runs: deploy, wait until it answers, and take it down at a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from personalive.errors import InputError, PersonaLiveError
from personalive.media import read_image
from personalive.server.cluster.application import NAME, build
from personalive.server.cluster.config import Plan
from personalive.server.cluster.messages import Member
from personalive.server.settings import Settings
from personalive.server.state.startup import check_parameters

Say = Callable[[str], None]

_LOOK_S = 0.5
_TELL_S = 10.0
_ANSWER_S = 10
_REFERENCE_S = 120


class DeployError(PersonaLiveError):
    """The cluster could not bring the service up."""


def serve_cluster(plan: Plan, settings: Settings, address: str | None, say: Say) -> None:
    """Deploy on the Ray cluster at `address`, None for the one that this machine belongs to, until a signal comes.

    `say` is told how far it is. Raises `InputError` where there is no cluster, or what the settings name cannot be
    used, and `DeployError` where the replicas cannot be brought up.
    """
    check(settings)
    connect(address)
    try:
        with _signalled() as told:
            _deploy(plan, settings)
            try:
                if _wait_until_up(plan, told, say):
                    _welcome(settings, say)
                    told.wait()
                say("stopping: clients are told, sessions end")
            finally:
                take_down(settings.drain_s)
    finally:
        ray.shutdown()


def check(settings: Settings) -> None:
    """Raise a `PersonaLiveError` for what no replica could load; each machine has weights of its own."""
    if settings.port == 0:
        raise InputError(
            "A cluster's port cannot be 0: name one that is free on the head, such as --port 8000."
        )
    check_parameters(settings)
    if settings.reference is not None:
        read_image(settings.reference)


def connect(address: str | None) -> None:
    """Join a Ray cluster that runs. Raises `InputError` where none answers."""
    try:
        ray.init(address=address or "auto", namespace=NAME)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"at {address}" if address else "on this machine"
        raise InputError(
            f"No Ray cluster answers {where}: start one with `ray start --head`, or name one of its nodes with "
            "--address HOST:6379. If it wants Ray's token, set RAY_AUTH_MODE=token here as well."
        ) from error


def _deploy(plan: Plan, settings: Settings) -> None:
    serve.start(
        proxy_location="EveryNode" if plan.every_node else "HeadOnly",
        http_options={"host": settings.host, "port": settings.port},
    )
    application = build(plan, settings, awaits_reference=settings.reference is not None)
    target = serve.RunTarget(target=application, name=NAME, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)


def _wait_until_up(plan: Plan, told: threading.Event, say: Say) -> bool:
    """Returns whether it is up; False where a signal came first. Raises `DeployError`."""
    tell_at = time.monotonic() + _TELL_S
    while not told.wait(_LOOK_S):
        application = serve.status().applications.get(NAME)
        if application is None:
            continue
        if application.status == ApplicationStatus.RUNNING:
            return True
        if application.status == ApplicationStatus.DEPLOY_FAILED:
            raise DeployError(f"The cluster could not start it: {_reason(application)}")
        if time.monotonic() > tell_at:
            tell_at += _TELL_S
            say(f"waiting for {plan.min_replicas} replica(s): {_reason(application)}")
    return False


def _reason(application: ApplicationStatusOverview) -> str:
    told = [application.message, *(part.message for part in application.deployments.values())]
    lines = [line.strip() for text in told for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "they are being started"


def take_down(within: float) -> None:
    """End all sessions, their clients are told, and remove the service; Ray itself goes on."""
    with contextlib.suppress(Exception):  # a service that is half there has no ledger to tell
        asyncio.run(_send_off(within))
    with contextlib.suppress(RayActorError):  # another such command has removed it, and Serve with it
        serve.delete(NAME)
        if not serve.status().applications:
            serve.shutdown()


async def _send_off(within: float) -> None:
    ledger: Any = serve.get_deployment_handle("Ledger", NAME)
    await ledger.stop.remote()
    until = time.monotonic() + within
    while time.monotonic() < until:
        members: list[Member] = await ledger.members.remote()
        if not any(member.sessions for member in members):
            return
        await asyncio.sleep(_LOOK_S)


def _url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{host}:{settings.port}"


def _welcome(settings: Settings, say: Say) -> None:
    url = _url(settings)
    if not _answers(url):
        # Serve is the cluster's: whoever starts it first chooses its port, and it need not be on this machine.
        say(f"it runs, but not at {url}: Ray Serve listens on the head, where it was first started to")
        return
    _give_reference(settings, url, say)
    say(f"page {url}/   API {url}/docs   stop with Ctrl-C")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=_ANSWER_S):
            return True
    except OSError:
        return False


def _give_reference(settings: Settings, url: str, say: Say) -> None:
    if settings.reference is None:
        return
    request = urllib.request.Request(
        f"{url}/api/v1/personalive/reference", Path(settings.reference).read_bytes(), method="POST"
    )
    if settings.api_key is not None:
        request.add_header("Authorization", f"Bearer {settings.api_key.get_secret_value()}")
    try:
        with urllib.request.urlopen(request, timeout=_REFERENCE_S):
            pass
    except urllib.error.HTTPError as error:
        say(f"the reference was refused: {error.read().decode(errors='replace')}")
    except OSError as error:
        say(f"the reference was not taken: {error}")


@contextlib.contextmanager
def _signalled() -> Iterator[threading.Event]:
    """Set by the first SIGINT, SIGTERM, or SIGHUP of a closed terminal; the second ends the process at once."""
    told = threading.Event()
    ends = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as with nohup
        ends.append(signal.SIGHUP)
    before = {sign: signal.getsignal(sign) for sign in ends}

    def hear(number: int, frame: FrameType | None) -> None:
        del number, frame
        told.set()
        for sign in before:
            signal.signal(sign, signal.SIG_DFL)

    for sign in before:
        signal.signal(sign, hear)
    try:
        yield told
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
