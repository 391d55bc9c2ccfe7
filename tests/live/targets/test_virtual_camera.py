from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
import pyvirtualcam

from personalive.live.targets.target import TargetError
from personalive.live.targets.virtual_camera import VirtualCameraTarget, describe_missing_camera
from tests.live.targets.events import Events, MemoryCamera, grey_frame


def make(events: Events, device: str | None = None) -> VirtualCameraTarget:
    return VirtualCameraTarget(events, size=(64, 48), fps=30, device=device)


def test_frames_reach_the_camera_as_planes(memory_camera: type[MemoryCamera]) -> None:
    events = Events()

    async def act() -> None:
        target = make(events, "/dev/video9")
        await target.open()
        assert memory_camera.options["device"] == "/dev/video9"
        assert (memory_camera.options["width"], memory_camera.options["height"]) == (64, 48)
        target.put(grey_frame(77))
        assert await asyncio.to_thread(memory_camera.received.wait, 20)
        await target.close()

    asyncio.run(act())
    assert np.array_equal(memory_camera.frames[0].reshape(72, 64), grey_frame(77).planes)
    assert memory_camera.closed == 1
    assert [frame.planes[0, 0] for frame in events.delivered] == [77]
    assert "memory" in events.notices[0]
    assert events.ended == []


def test_a_camera_that_breaks_ends_the_target_with_a_reason(memory_camera: type[MemoryCamera]) -> None:
    memory_camera.reset(limit=0)
    events = Events()

    async def act() -> None:
        target = make(events)
        await target.open()
        target.put(grey_frame(1))
        async with asyncio.timeout(20):
            while not events.ended:
                await asyncio.sleep(0.01)
        await target.close()

    asyncio.run(act())
    assert events.ended == [
        "The virtual camera memory takes no more frames (the device is gone): start again when it is back."
    ]
    assert memory_camera.closed == 1


def test_no_camera_is_an_error_that_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyvirtualcam.camera, "BACKENDS", {})
    with pytest.raises(TargetError, match="There is no virtual camera"):
        asyncio.run(make(Events()).open())


@pytest.mark.parametrize(
    ("platform", "name"), [("linux", "v4l2loopback"), ("win32", "OBS"), ("darwin", "OBS")]
)
def test_each_system_has_its_own_advice(platform: str, name: str) -> None:
    assert name in describe_missing_camera("none found", platform)
    assert "--to" in describe_missing_camera("none found", platform)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hidden:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "pyvirtualcam":
                raise ModuleNotFoundError("No module named 'pyvirtualcam'", name="pyvirtualcam")

    monkeypatch.delitem(sys.modules, "pyvirtualcam")
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    with pytest.raises(TargetError, match=r"needs pyvirtualcam, which is not installed\. Run: .*install"):
        asyncio.run(make(Events()).open())
