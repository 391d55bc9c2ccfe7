"""Dependencies of the routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from personalive.server.server import Server


def _get_server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


ServerDep = Annotated[Server, Depends(_get_server)]
