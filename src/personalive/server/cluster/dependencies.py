"""What the ingress's routes are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request, Response
from ray.serve.handle import DeploymentHandle

from personalive.server.cluster.admission import Slots
from personalive.server.cluster.replica_client import LINKS, Answered, Asked, Wire
from personalive.server.cluster.replica_set import RETRY_AFTER_S, Fleet
from personalive.server.errors import BusyError
from personalive.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """Of one ingress."""

    settings: Settings
    ledger: DeploymentHandle[Any]
    wire: Wire
    fleet: Fleet
    slots: Slots

    @classmethod
    def of(cls, settings: Settings, ledger: DeploymentHandle[Any], replicas: DeploymentHandle[Any]) -> Parts:
        """Made on the event loop that uses them."""
        wire = Wire()
        return cls(settings, ledger, wire, Fleet(ledger, wire), Slots(replicas))

    async def require_reference(self) -> None:
        """Raise `BusyError` where the portrait that the service was started with has not been taken yet."""
        if await self.ledger.awaits_reference.remote():
            raise BusyError(
                "The portrait that the service was started with has not been taken yet.",
                retry_after=RETRY_AFTER_S,
            )


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


async def _asked(request: Request) -> Asked:
    return Asked(
        request.method,
        quote(request.scope["path"]),
        request.scope["query_string"].decode("latin-1"),
        dict(request.headers),
        await request.body(),
    )


PartsDep = Annotated[Parts, Depends(_parts)]
AskedDep = Annotated[Asked, Depends(_asked)]
"""The request, to be passed on as it came."""


def passed_on(answer: Answered) -> Response:
    """A replica's answer as the ingress's own."""
    headers = dict(answer.headers)
    links = headers.pop("Link", "")
    response = Response(answer.body, answer.status, headers)
    for link in links.split(LINKS):  # a field each, as broadcasters read them
        if link:
            response.headers.append("Link", link)
    return response
