from __future__ import annotations

import pytest
import pyvirtualcam

from tests.live.targets.events import MemoryCamera


@pytest.fixture
def memory_camera(monkeypatch: pytest.MonkeyPatch) -> type[MemoryCamera]:
    """The only virtual camera that there is: it keeps what is sent to it."""
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {})
    pyvirtualcam.register_backend("memory", MemoryCamera)
    MemoryCamera.reset()
    return MemoryCamera
