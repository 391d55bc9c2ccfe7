"""A replica as Ray Serve runs it: one server, one call per session, and heartbeats to the controller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Literal

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from personalive.errors import PersonaLiveError
from personalive.server.cluster.messages import (
    DesiredState,
    HeartbeatReply,
    ReplicaStatus,
    StoredClusterReference,
    make_id_prefix,
)
from personalive.server.cluster.replica_client import (
    ProxyRequest,
    ProxyResponse,
    ReplicaClient,
    get_session_id,
)
from personalive.server.cluster.replica_settings import make_replica_settings
from personalive.server.cluster.server_thread import ServerThread
from personalive.server.cluster.shared_references import SharedReferenceStore
from personalive.server.run import local_url
from personalive.server.server import Server
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.telemetry import logs

HEARTBEAT_INTERVAL_S = 1.0
_POLL_S = 0.1
_HEALTH_TIMEOUT_S = 5.0
_LEAVE_TIMEOUT_S = 2.0
_STOP_TIMEOUT_S = 12.0
_DRAIN_DETECTION_S = 20.0
"""Serve checks the health of replicas that get calls every few seconds: a replica that it has not checked for this
many seconds is being drained. Serve notifies the replica only after the last call has ended."""


class ServerReplica:
    """One pipeline and its sessions. `open_session` is a call that lasts as long as its session."""

    def __init__(self, given: Mapping[str, Any], controller: DeploymentHandle[Any]) -> None:
        """`given` are the deployed settings; the host's environment may override those that differ by host."""
        self._id = serve.get_replica_context().replica_id.unique_id
        self._key = secrets.token_urlsafe(32)
        node = ray.util.get_node_ip_address()
        self._settings = make_replica_settings(given, host=node, key=self._key)
        logs.configure_logging(self._settings.log_format, self._settings.log_level)
        self._controller = controller
        self._client = ReplicaClient()
        self._stage: Literal["starting", "serving", "leaving"] = "starting"
        self._last_health_check_at = time.monotonic()
        self._applied = DesiredState()
        self._load_error: str | None = None
        self._loaded_elsewhere = False
        self._server_thread = ServerThread(
            self._settings,
            partial(Server, make_references=self._make_references, id_prefix=make_id_prefix(self._id)),
        )
        self._server_thread.start()
        self._address = local_url(node, self._server_thread.port)
        self._apply_task: asyncio.Task[None] | None = None
        self._heartbeat_task = self._server_thread.submit(self._heartbeat_loop())
        self._wait_until_loaded()

    async def open_session(
        self, proxy_request: ProxyRequest, default: str | None
    ) -> AsyncIterator[str | ProxyResponse]:
        """Open a session: yield this replica's id at once, then the answer, and end when the session ends.

        `default` is the reference for an offer that names none.
        """
        yield self._id
        references = self._server_thread.server.references
        assert isinstance(references, SharedReferenceStore)
        references.set_cluster_default(default)
        answer = await self._client.request(self._address, self._key, proxy_request)
        yield answer
        session = get_session_id(answer)
        if session is not None:
            await asyncio.wrap_future(self._server_thread.submit(self._server_thread.wait_ended(session)))

    async def check_health(self) -> None:
        """Raise `RuntimeError` if the server does not answer: Serve then replaces this replica."""
        self._last_health_check_at = time.monotonic()
        if not self._server_thread.is_alive or self._heartbeat_task.done():
            raise RuntimeError("the replica's server has ended")
        self._require_usable()
        answers = self._server_thread.server.pipelines.is_responsive(_HEALTH_TIMEOUT_S)
        if not await asyncio.wrap_future(self._server_thread.submit(answers)):
            if self._server_thread.server.pipelines.get_status().status == "loading":
                return  # a worker that loads answers when it is done
            raise RuntimeError("the replica's worker does not answer")

    async def __del__(self) -> None:
        """Stop the server. Serve calls this when the replica is drained and no call is left."""
        self._stage = "leaving"
        with contextlib.suppress(Exception):
            await asyncio.wrap_future(self._server_thread.submit(self._server_thread.wait_empty()))
        self._heartbeat_task.cancel()
        with contextlib.suppress(Exception):  # the controller may be gone already and would never answer
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await self._controller.remove_replica.remote(self._id)
        await self._client.close()
        await asyncio.to_thread(self._server_thread.stop, _STOP_TIMEOUT_S)

    def _wait_until_loaded(self) -> None:
        """Wait until the pipeline is loaded or has failed to: Serve sends calls as soon as `__init__` returns."""
        while (
            self._applied.version == 0
            or self._server_thread.server.pipelines.get_status().status == "loading"
        ):
            time.sleep(_POLL_S)
        self._require_usable()
        self._last_health_check_at = time.monotonic()
        self._stage = "serving"
        self._server_thread.submit(self._send_heartbeat()).result(_HEALTH_TIMEOUT_S)

    def _require_usable(self) -> None:
        """Raise `RuntimeError` if others have loaded what this replica could not: empty, it would get every call.

        If no replica could load it, all of them stay to report the error and to load the next pipeline.
        """
        error = self._load_error or self._server_thread.server.pipelines.get_status().error
        if error is not None and self._loaded_elsewhere:
            raise RuntimeError(f"this replica cannot load what others have loaded: {error}")

    # -- on the server's event loop

    def _make_references(self, host: PipelineManager) -> SharedReferenceStore:
        return SharedReferenceStore(host, self._fetch_reference)

    async def _fetch_reference(self, id: str) -> StoredClusterReference | None:
        kept: StoredClusterReference | None = await self._controller.get_reference.remote(id)
        return kept

    async def _heartbeat_loop(self) -> None:
        """Send a heartbeat to the controller every second, and act on its answer."""
        while True:
            try:
                await self._send_heartbeat()
            except Exception as error:  # such as while the controller restarts
                logs.event(
                    "controller_unreachable", level=logging.WARNING, error=f"{type(error).__name__}: {error}"
                )
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def _send_heartbeat(self) -> None:
        orders: HeartbeatReply = await self._controller.heartbeat.remote(self._make_status())
        self._loaded_elsewhere = orders.loaded_elsewhere
        if orders.stopping:
            await self._server_thread.drain()
        elif orders.desired_state.version != self._applied.version and self._apply_task is None:
            self._apply_task = asyncio.create_task(self._apply_desired(orders.desired_state), name="apply")

    def _make_status(self) -> ReplicaStatus:
        server = self._server_thread.server
        forgotten = (
            self._stage == "serving" and time.monotonic() - self._last_health_check_at > _DRAIN_DETECTION_S
        )
        stage = "leaving" if forgotten else self._stage
        return ReplicaStatus(
            id=self._id,
            node=self._settings.host,
            address=self._address,
            key=self._key,
            stage=stage,
            status=server.pipelines.get_status().status,
            sessions=len(server.sessions),
            slots=len(server.sessions) if stage == "leaving" else self._settings.max_sessions,
            applied_state=self._applied,
            load_error=self._load_error,
        )

    async def _apply_desired(self, desired: DesiredState) -> None:
        """Load or unload the pipeline, even if sessions are open: the ingress has checked that this is allowed."""
        host = self._server_thread.server.pipelines
        self._load_error = None
        try:
            if desired.pipeline_id is not None:
                # The replica that the ingress asked first is loading already: the load below then does nothing.
                while host.get_status().status == "loading":
                    await asyncio.sleep(_POLL_S)
                await host.load(desired.pipeline_id, desired.load_params, force=True)
            else:
                await host.unload()
        except PersonaLiveError as error:
            self._load_error = str(error)
            logs.event(
                "pipeline_refused", level=logging.ERROR, pipeline=desired.pipeline_id, error=str(error)
            )
            await host.unload()  # the previous pipeline is not the desired one
        self._applied, self._apply_task = desired, None
