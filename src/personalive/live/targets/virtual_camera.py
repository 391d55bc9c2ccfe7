"""A virtual camera, which call programs list among the real ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from personalive.face.crop import ImageSize
from personalive.installation import install_command
from personalive.live.targets.target import TargetError, TargetEvents, TargetThread
from personalive.server.sessions.playout_buffer import SentFrame

if TYPE_CHECKING:
    import pyvirtualcam

_HOW_TO_GET = {
    "linux": (
        "Install v4l2loopback and load it: sudo apt install v4l2loopback-dkms && sudo modprobe v4l2loopback "
        "exclusive_caps=1 card_label=PersonaLive"
    ),
    "win32": "Install OBS Studio (https://obsproject.com), which brings one",
    "darwin": (
        "Install OBS Studio (https://obsproject.com), and press Start Virtual Camera in it once, then Stop "
        "Virtual Camera"
    ),
}


def describe_missing_camera(reason: str, platform: str = sys.platform) -> str:
    """Return what to do where no virtual camera can be opened."""
    how = _HOW_TO_GET.get(platform, "Virtual cameras work on Linux, Windows and macOS")
    return f"There is no virtual camera to send to. {how}. Or use another --to, such as window. ({reason})"


class VirtualCameraTarget(TargetThread):
    """Sends frames to a virtual camera by pyvirtualcam: v4l2loopback on Linux, OBS on Windows and macOS."""

    def __init__(self, events: TargetEvents, *, size: ImageSize, fps: float, device: str | None) -> None:
        """Send frames of `size` (width, height) to `device`, None for the first that is free."""
        super().__init__("camera" if device is None else f"camera:{device}", events)
        self._size = size
        self._fps = fps
        self._device = device
        self._camera: pyvirtualcam.Camera | None = None

    @property
    def device(self) -> str:
        """The camera's name, as call programs show it or the system calls it."""
        return "" if self._camera is None else self._camera.device

    def _open(self) -> None:
        try:
            import pyvirtualcam
        except ModuleNotFoundError as error:
            if error.name != "pyvirtualcam":
                raise
            raise TargetError(
                f"A virtual camera needs pyvirtualcam, which is not installed. Run: {install_command('live')}"
            ) from None
        options: dict[str, Any] = {} if self._device is None else {"device": self._device}
        try:
            self._camera = pyvirtualcam.Camera(
                *self._size, self._fps, fmt=pyvirtualcam.PixelFormat.I420, **options
            )
        except RuntimeError as error:
            raise TargetError(describe_missing_camera("; ".join(str(error).splitlines()))) from error
        self._events.on_notice(
            f"The virtual camera is {self._camera.device}, {self._size[0]}×{self._size[1]}: choose it in the call."
        )

    def _send(self, frame: SentFrame) -> None:
        assert self._camera is not None
        try:
            self._camera.send(frame.planes)
        except (RuntimeError, OSError) as error:
            raise TargetError(
                f"The virtual camera {self._camera.device} takes no more frames ({error}): start again when it "
                "is back."
            ) from error

    def _release(self) -> None:
        if self._camera is not None:
            self._camera.close()
