"""The cameras of this machine: listed, opened, and what to do where one cannot be used."""

from __future__ import annotations

import contextlib
import errno
import sys
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.container
import av.error

from personalive.errors import InputError
from personalive.live.device_names import match_name

_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 5.0
"""Seconds without a frame after which a camera counts as gone."""
_BUSY_ERRORS = {errno.EBUSY, errno.EAGAIN}
_DENIED_ERRORS = {errno.EACCES, errno.EPERM}
_WANTED: tuple[dict[str, str], ...] = ({"video_size": "1280x720", "framerate": "30"}, {"framerate": "30"}, {})
"""Options to open a camera with, best first: cameras refuse what they cannot deliver."""


class SourceError(InputError):
    """A camera, clip or stream that cannot be read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class CameraDevice:
    """A camera: `address` is what FFmpeg opens, `name` what people call it."""

    address: str
    name: str


@dataclass(frozen=True, slots=True)
class CameraSystem:
    """How a system's cameras are reached: FFmpeg's `format`, and the options that keep their buffers short."""

    format: str
    options: dict[str, str] = field(default_factory=dict)
    denied: str = "allow this program to use the camera"
    prefix: str = ""
    """What FFmpeg wants before a camera's name."""


_SYSTEMS = {
    "linux": CameraSystem(
        "v4l2",
        denied="add yourself to the group of the device (sudo usermod -aG video $USER) and log in again",
    ),
    "win32": CameraSystem(
        "dshow",
        {"rtbufsize": "16M"},
        "allow desktop apps to use it under Settings > Privacy & security > Camera",
        "video=",
    ),
    "darwin": CameraSystem(
        "avfoundation",
        {"pixel_format": "nv12", "drop_late_frames": "1"},
        "allow your terminal to use it under System Settings > Privacy & Security > Camera",
    ),
}


def camera_system(platform: str = sys.platform) -> CameraSystem:
    """Return how cameras are reached here. Raises `SourceError` on a system whose cameras are not read."""
    try:
        return _SYSTEMS[platform]
    except KeyError:
        raise SourceError(
            f"Cameras are not read on this system ({platform}): use a stream's address or a clip as --from."
        ) from None


def list_cameras(system: CameraSystem) -> list[CameraDevice]:
    """Return the cameras of this machine, in the system's order."""
    found: list[CameraDevice] = []
    # Not every FFmpeg, and no old PyAV, can list devices; what is named is opened all the same.
    with contextlib.suppress(av.error.FFmpegError, ValueError, OSError, AttributeError):
        for device in av.enumerate_input_devices(system.format):
            if _delivers_video(device):
                found.append(CameraDevice(device.name, device.description or device.name))
    return found


def _delivers_video(device: av.DeviceInfo) -> bool:
    kinds = list(getattr(device, "media_types", ()) or ())
    screen = device.description.lower().startswith("capture screen")
    return not screen and (not kinds or "video" in kinds)


def find_camera(wanted: str, cameras: list[CameraDevice], system: CameraSystem) -> CameraDevice:
    """Return the camera that a number or a name stands for; part of a name is enough where it fits one only.

    Raises `SourceError`, which lists the cameras that there are.
    """
    if system.format == "v4l2" and wanted.startswith("/dev/"):
        return next((one for one in cameras if one.address == wanted), CameraDevice(wanted, wanted))
    if wanted.isdecimal():
        number = int(wanted)
        if system.format == "v4l2":  # the number of /dev/video is the one that people know
            path = f"/dev/video{number}"
            known = next((one for one in cameras if one.address == path), None)
            if known is not None or Path(path).exists():
                return known or CameraDevice(path, path)
            if number == 0 and cameras:
                return cameras[0]
        elif number < len(cameras):
            return cameras[number]
        raise SourceError(f"There is no camera {number}. {describe_cameras(cameras)}")
    exact = [one for one in cameras if wanted in {one.name, one.address}]
    found = match_name(wanted, cameras, exact, "camera", SourceError)
    if found is not None:
        return found
    raise SourceError(
        f"{wanted!r} is neither a file nor a camera nor an address that is read here (rtsp://, http://, whep:…). "
        + describe_cameras(cameras)
    )


def describe_cameras(cameras: list[CameraDevice]) -> str:
    """Return a sentence on which cameras there are."""
    if not cameras:
        return "This machine has no camera that is seen: connect one, or give a clip or a stream as --from."
    listed = ", ".join(f"{number}: {one.name}" for number, one in enumerate(cameras))
    return f"Cameras here: {listed}."


def open_camera(camera: CameraDevice, system: CameraSystem) -> av.container.InputContainer:
    """Open a camera. Raises `SourceError`, which says what to do."""
    problem: Exception | None = None
    for wanted in _WANTED:
        try:
            return av.open(
                system.prefix + camera.address,
                format=system.format,
                options={**system.options, **wanted},
                timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S),
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            problem = error
            if not _is_refused_option(error):
                break
    assert problem is not None
    raise explain_camera_error(camera, problem, system) from problem


def _is_refused_option(error: Exception) -> bool:
    number = getattr(error, "errno", None)
    return number not in {errno.ENOENT, errno.ENODEV, *_BUSY_ERRORS, *_DENIED_ERRORS}


def explain_camera_error(camera: CameraDevice, error: Exception, system: CameraSystem) -> SourceError:
    """Return the error that says why a camera cannot be opened, and what to do."""
    number = getattr(error, "errno", None)
    if number in _DENIED_ERRORS:
        return SourceError(f"{camera.name} may not be opened: {system.denied}.")
    if number in _BUSY_ERRORS:
        return SourceError(f"{camera.name} is in use: close the other program that shows it, then try again.")
    if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return SourceError(
            f"{camera.name} is not there: connect it. personalive live --list-devices lists cameras."
        )
    reason = getattr(error, "strerror", None) or str(error)
    if system.format != "v4l2":  # whose errors say little: a camera in use gives the same as a denied one
        return SourceError(
            f"{camera.name} cannot be opened ({reason}): close other programs that use it, and {system.denied}."
        )
    return SourceError(
        f"{camera.name} cannot be opened ({reason}): is it a camera, and does it work elsewhere?"
    )
