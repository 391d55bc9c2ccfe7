"""A replica as Ray Serve runs it: one engine, the calls that are its sessions, and its talk with the ledger."""

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
from personalive.server.cluster.messages import Kept, Member, Orders, Wanted, mark_of
from personalive.server.cluster.replica_client import Answered, Asked, Wire, session_in
from personalive.server.cluster.replica_settings import settings_here
from personalive.server.cluster.server_thread import Engine
from personalive.server.cluster.shared_references import SharedReferences
from personalive.server.server import Server
from personalive.server.state.pipeline_manager import PipelineHost
from personalive.server.telemetry import logs

BEAT_S = 1.0
_LOOK_S = 0.1
_HEALTH_S = 5.0
_LEAVE_S = 2.0
_STOP_S = 12.0
_FORGOTTEN_S = 20.0
"""Serve asks for the health of replicas that it sends calls to, every few seconds: one that it has not asked for so
long is being drained. It tells a replica itself only when the last call has ended."""


class Replica:
    """Holds one pipeline and its sessions. `session` is a call that lasts as long as its session."""

    def __init__(self, given: Mapping[str, Any], ledger: DeploymentHandle[Any]) -> None:
        """`given` are the settings that were deployed; what is a host's own may come from its environment."""
        self._id = serve.get_replica_context().replica_id.unique_id
        self._key = secrets.token_urlsafe(32)
        node = ray.util.get_node_ip_address()
        self._settings = settings_here(given, host=node, key=self._key)
        logs.configure(self._settings.log_format, self._settings.log_level)
        self._ledger = ledger
        self._wire = Wire()
        self._stage: Literal["starting", "serving", "leaving"] = "starting"
        self._asked_at = time.monotonic()
        self._applied = Wanted()
        self._refused: str | None = None
        self._elsewhere = False
        self._engine = Engine(
            self._settings, partial(Server, references=self._references, mark=mark_of(self._id))
        )
        self._engine.start()
        self._address = f"http://{_bracketed(node)}:{self._engine.port}"
        self._applying: asyncio.Task[None] | None = None
        self._beating = self._engine.submit(self._beat_on())
        self._wait_until_loaded()

    async def session(self, asked: Asked, default: str | None) -> AsyncIterator[str | Answered]:
        """Open a session by this request: this replica's id at once, the answer, then nothing until it has ended.

        `default` is the reference for an offer that names none.
        """
        yield self._id
        references = self._engine.server.references
        assert isinstance(references, SharedReferences)
        references.tell_default(default)
        answer = await self._wire.ask(self._address, self._key, asked)
        yield answer
        session = session_in(answer)
        if session is not None:
            await asyncio.wrap_future(self._engine.submit(self._engine.ended(session)))

    async def check_health(self) -> None:
        """Raises where the engine does not answer: Serve then replaces this replica."""
        self._asked_at = time.monotonic()
        if not self._engine.alive or self._beating.done():
            raise RuntimeError("the replica's server has ended")
        self._require_use()
        answers = self._engine.server.host.answers(_HEALTH_S)
        if not await asyncio.wrap_future(self._engine.submit(answers)):
            if self._engine.server.host.status().status == "loading":
                return  # the worker loads, and answers when it is done
            raise RuntimeError("the replica's worker does not answer")

    async def __del__(self) -> None:
        """Serve calls it when the replica is drained and no call is left."""
        self._stage = "leaving"
        with contextlib.suppress(Exception):
            await asyncio.wrap_future(self._engine.submit(self._engine.empty()))
        self._beating.cancel()
        with contextlib.suppress(Exception):  # the ledger may have gone first: nobody would ever answer
            async with asyncio.timeout(_LEAVE_S):
                await self._ledger.leave.remote(self._id)
        await self._wire.close()
        await asyncio.to_thread(self._engine.stop, _STOP_S)

    def _wait_until_loaded(self) -> None:
        """Serve sends calls to a replica that is made: not before the pipeline is loaded, or could not be."""
        while self._applied.version == 0 or self._engine.server.host.status().status == "loading":
            time.sleep(_LOOK_S)
        self._require_use()
        self._asked_at = time.monotonic()
        self._stage = "serving"
        self._engine.submit(self._beat()).result(_HEALTH_S)

    def _require_use(self) -> None:
        """Raises where others have what is wanted and this one could not load it: empty, it would get every call.

        Where nobody could, all of them stay, to say why, and to load what is asked for next.
        """
        error = self._refused or self._engine.server.host.status().error
        if error is not None and self._elsewhere:
            raise RuntimeError(f"this replica cannot load what others have loaded: {error}")

    # -- on the engine's event loop

    def _references(self, host: PipelineHost) -> SharedReferences:
        return SharedReferences(host, self._fetch)

    async def _fetch(self, id: str) -> Kept | None:
        kept: Kept | None = await self._ledger.reference.remote(id)
        return kept

    async def _beat_on(self) -> None:
        """Tell the ledger every second, and do what it says."""
        while True:
            try:
                await self._beat()
            except Exception as error:  # the ledger is being started anew, say
                logs.event("ledger_silent", level=logging.WARNING, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(BEAT_S)

    async def _beat(self) -> None:
        orders: Orders = await self._ledger.beat.remote(self._told())
        self._elsewhere = orders.elsewhere
        if orders.stopping:
            await self._engine.send_off()
        elif orders.wanted.version != self._applied.version and self._applying is None:
            self._applying = asyncio.create_task(self._apply(orders.wanted), name="apply")

    def _told(self) -> Member:
        server = self._engine.server
        forgotten = self._stage == "serving" and time.monotonic() - self._asked_at > _FORGOTTEN_S
        stage = "leaving" if forgotten else self._stage
        return Member(
            id=self._id,
            node=self._settings.host,
            address=self._address,
            key=self._key,
            stage=stage,
            status=server.host.status().status,
            sessions=len(server.streams),
            slots=len(server.streams) if stage == "leaving" else self._settings.max_sessions,
            wanted=self._applied,
            refused=self._refused,
        )

    async def _apply(self, wanted: Wanted) -> None:
        """Load or unload as wanted, also under sessions: the ingress has asked whether that may be."""
        host = self._engine.server.host
        self._refused = None
        try:
            if wanted.pipeline_id is not None:
                # The replica that was asked first has begun already, and then finds that it is done.
                while host.status().status == "loading":
                    await asyncio.sleep(_LOOK_S)
                await host.load(wanted.pipeline_id, wanted.load_params, force=True)
            else:
                await host.unload()
        except PersonaLiveError as error:
            self._refused = str(error)
            logs.event("pipeline_refused", level=logging.ERROR, pipeline=wanted.pipeline_id, error=str(error))
            await host.unload()  # what was there before is not what is wanted
        self._applied, self._applying = wanted, None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
