"""The hardware that the server runs on."""

from __future__ import annotations

from fastapi import APIRouter

from personalive.server.state.hardware import HardwareInfo, read_hardware_info

router = APIRouter(prefix="/api/v1/hardware", tags=["hardware"])


@router.get("/info")
def get_hardware_info() -> HardwareInfo:
    """Return the server's GPU, memory and cores."""
    return read_hardware_info()
