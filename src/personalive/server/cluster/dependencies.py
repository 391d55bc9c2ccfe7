"""The dependencies of the ingress's routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request, Response
from ray.serve.handle import DeploymentHandle

from personalive.server.cluster.admission import SessionAdmission
from personalive.server.cluster.replica_client import (
    LINK_SEPARATOR,
    ProxyRequest,
    ProxyResponse,
    ReplicaClient,
)
from personalive.server.cluster.replica_set import RETRY_AFTER_S, ReplicaSet
from personalive.server.errors import ServiceUnavailableError
from personalive.server.settings import Settings


@dataclass(frozen=True, slots=True)
class IngressDependencies:
    """The parts of one ingress."""

    settings: Settings
    controller: DeploymentHandle[Any]
    client: ReplicaClient
    replicas: ReplicaSet
    admission: SessionAdmission

    @classmethod
    def create(
        cls, settings: Settings, controller: DeploymentHandle[Any], replicas: DeploymentHandle[Any]
    ) -> IngressDependencies:
        """Make the parts. Call it on the event loop that uses them."""
        client = ReplicaClient()
        return cls(settings, controller, client, ReplicaSet(controller, client), SessionAdmission(replicas))

    async def require_reference(self) -> None:
        """Raise `ServiceUnavailableError` while the portrait that the service was started with is not added yet."""
        if await self.controller.is_awaiting_reference.remote():
            raise ServiceUnavailableError(
                "The portrait that the service was started with has not been taken yet.",
                retry_after=RETRY_AFTER_S,
            )


def _get_dependencies(request: Request) -> IngressDependencies:
    parts: IngressDependencies = request.app.state.parts
    return parts


async def _read_proxy_request(request: Request) -> ProxyRequest:
    return ProxyRequest(
        request.method,
        quote(request.scope["path"]),
        request.scope["query_string"].decode("latin-1"),
        dict(request.headers),
        await request.body(),
    )


DependenciesDep = Annotated[IngressDependencies, Depends(_get_dependencies)]
ProxyRequestDep = Annotated[ProxyRequest, Depends(_read_proxy_request)]
"""The request, unchanged, to be passed on to a replica."""


def make_response(answer: ProxyResponse) -> Response:
    """Return a replica's answer as a response of the ingress."""
    headers = dict(answer.headers)
    links = headers.pop("Link", "")
    response = Response(answer.body, answer.status, headers)
    for link in links.split(LINK_SEPARATOR):  # one field each, as broadcasting programs expect
        if link:
            response.headers.append("Link", link)
    return response
