"""`personalive cluster serve`: deploy the service, wait until it answers, and remove it at a signal."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from personalive.errors import InputError, PersonaLiveError
from personalive.media import read_image
from personalive.server.cluster.application import APPLICATION_NAME, build_application
from personalive.server.cluster.config import ClusterConfig
from personalive.server.cluster.messages import ReplicaStatus
from personalive.server.run import local_url
from personalive.server.settings import Settings
from personalive.server.state.startup import check_load_parameters
from personalive.signals import stop_at_signal

ReportProgress = Callable[[str], None]

_POLL_S = 0.5
_REPORT_INTERVAL_S = 10.0
_HEALTH_TIMEOUT_S = 10
_REFERENCE_TIMEOUT_S = 120


class DeployError(PersonaLiveError):
    """The cluster could not start the service."""


def serve_cluster(
    config: ClusterConfig, settings: Settings, address: str | None, report: ReportProgress
) -> None:
    """Serve on a Ray cluster until a signal comes.

    Args:
        config: How many replicas there are, and what each takes of its machine.
        settings: Settings of the service and of its replicas' servers.
        address: Address of the cluster; None for the one of this machine.
        report: Called with sentences about the progress.

    Raises:
        InputError: There is no cluster, or the pipeline or portrait of the settings cannot be used.
        DeployError: The replicas cannot be started.
    """
    check_settings(settings)
    connect_to_ray(address)
    try:
        told = threading.Event()
        # On another thread: the signal may come while this one holds the event's lock.
        with stop_at_signal(lambda: threading.Thread(target=told.set).start()):
            _deploy(config, settings)
            try:
                if _wait_until_up(config, told, report):
                    _report_ready(settings, report)
                    told.wait()
                report("stopping: clients are told, sessions end")
            finally:
                remove_service(settings.drain_s)
    finally:
        ray.shutdown()


def check_settings(settings: Settings) -> None:
    """Raise a `PersonaLiveError` for settings that no replica could load; weights depend on the machine."""
    if settings.port == 0:
        raise InputError(
            "A cluster's port cannot be 0: name one that is free on the head, such as --port 8000."
        )
    check_load_parameters(settings)
    if settings.reference is not None:
        read_image(settings.reference)


def connect_to_ray(address: str | None) -> None:
    """Join a running Ray cluster. Raises `InputError` if none answers."""
    try:
        ray.init(address=address or "auto", namespace=APPLICATION_NAME)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"at {address}" if address else "on this machine"
        raise InputError(
            f"No Ray cluster answers {where}: start one with `ray start --head`, or name one of its nodes with "
            "--address HOST:6379. If it wants Ray's token, set RAY_AUTH_MODE=token here as well."
        ) from error


def _deploy(config: ClusterConfig, settings: Settings) -> None:
    serve.start(
        proxy_location="EveryNode" if config.every_node else "HeadOnly",
        http_options={"host": settings.host, "port": settings.port},
    )
    application = build_application(config, settings, awaits_reference=settings.reference is not None)
    target = serve.RunTarget(target=application, name=APPLICATION_NAME, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)


def _wait_until_up(config: ClusterConfig, stop_event: threading.Event, report: ReportProgress) -> bool:
    """Return True once the service is up, and False if a signal came first. Raises `DeployError`."""
    tell_at = time.monotonic() + _REPORT_INTERVAL_S
    while not stop_event.wait(_POLL_S):
        application = serve.status().applications.get(APPLICATION_NAME)
        if application is None:
            continue
        if application.status == ApplicationStatus.RUNNING:
            return True
        if application.status == ApplicationStatus.DEPLOY_FAILED:
            raise DeployError(f"The cluster could not start it: {_describe_state(application)}")
        if time.monotonic() > tell_at:
            tell_at += _REPORT_INTERVAL_S
            report(f"waiting for {config.min_replicas} replica(s): {_describe_state(application)}")
    return False


def _describe_state(application: ApplicationStatusOverview) -> str:
    told = [application.message, *(part.message for part in application.deployments.values())]
    lines = [line.strip() for text in told for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "they are being started"


def remove_service(timeout: float) -> None:
    """Notify the clients, end all sessions and remove the service. Ray keeps running."""
    with contextlib.suppress(Exception):  # a service that is only partly deployed has no controller
        asyncio.run(_drain_replicas(timeout))
    with contextlib.suppress(RayActorError):  # another such command has removed it, and Serve with it
        serve.delete(APPLICATION_NAME)
        if not serve.status().applications:
            serve.shutdown()


async def _drain_replicas(timeout: float) -> None:
    controller: Any = serve.get_deployment_handle("Controller", APPLICATION_NAME)
    await controller.drain.remote()
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        members: list[ReplicaStatus] = await controller.list_replicas.remote()
        if not any(member.sessions for member in members):
            return
        await asyncio.sleep(_POLL_S)


def _report_ready(settings: Settings, report: ReportProgress) -> None:
    url = local_url(settings.host, settings.port)
    if not _is_reachable(url):
        # Serve belongs to the cluster: its first start sets the port, and it need not run on this machine.
        report(f"it runs, but not at {url}: Ray Serve listens on the head, where it was first started to")
        return
    _upload_reference(settings, url, report)
    report(f"page {url}/   API {url}/docs   stop with Ctrl-C")


def _is_reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/live", timeout=_HEALTH_TIMEOUT_S):
            return True
    except OSError:
        return False


def _upload_reference(settings: Settings, url: str, report: ReportProgress) -> None:
    if settings.reference is None:
        return
    request = urllib.request.Request(
        f"{url}/api/v1/personalive/reference", Path(settings.reference).read_bytes(), method="POST"
    )
    if settings.api_key is not None:
        request.add_header("Authorization", f"Bearer {settings.api_key.get_secret_value()}")
    try:
        with urllib.request.urlopen(request, timeout=_REFERENCE_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        report(f"the reference was refused: {error.read().decode(errors='replace')}")
    except OSError as error:
        report(f"the reference was not taken: {error}")
