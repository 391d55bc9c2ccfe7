"""Weights: their status and their download."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from personalive.server.dependencies import ServerDep
from personalive.server.errors import error_responses
from personalive.server.routes.pipeline import MessageResponse
from personalive.server.state.download_manager import ModelsStatus

router = APIRouter(prefix="/api/v1/models", tags=["models"])


class DownloadRequest(BaseModel):
    """The pipeline whose weights to download."""

    model_config = ConfigDict(extra="forbid")

    pipeline_id: StrictStr = Field(max_length=200, examples=["personalive"])
    tiny: StrictBool = Field(False, description="Download the tiny autoencoder too, for `vae` = tiny.")


@router.get("/status", responses=error_responses(404, 409, 422))
async def get_models_status(pipeline_id: str, server: ServerDep, tiny: bool = False) -> ModelsStatus:
    """Return whether a pipeline's weights are there (with `tiny`, the tiny autoencoder's too), and any progress."""
    return await asyncio.to_thread(server.downloads.get_status, pipeline_id, tiny=tiny)


@router.post("/download", responses=error_responses(400, 404, 409, 422))
async def download_models(request: DownloadRequest, server: ServerDep) -> MessageResponse:
    """Download the missing weights in the background. An earlier download is resumed."""
    message = await asyncio.to_thread(server.downloads.start, request.pipeline_id, tiny=request.tiny)
    return MessageResponse(message=message)
