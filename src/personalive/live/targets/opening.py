"""What `--to` names, and the target that it stands for."""

from __future__ import annotations

from pathlib import Path

from personalive.face.crop import ImageSize
from personalive.live.source_spec import require_web_address
from personalive.live.targets.recording import SUFFIXES, RecordingTarget
from personalive.live.targets.target import Target, TargetError, TargetEvents
from personalive.live.targets.virtual_camera import VirtualCameraTarget
from personalive.live.targets.whip import WhipTarget
from personalive.live.targets.window import WindowTarget
from personalive.media import Provenance

_CAMERA, _WHIP = "camera:", "whip:"


def check_targets(targets: tuple[str, ...]) -> None:
    """Raise `InputError` for a target that is none, or is named twice."""
    for text in targets:
        if targets.count(text) > 1:
            raise TargetError(f"--to {text} is given twice.")
        if text in {"camera", "window"} or text.startswith(_CAMERA):
            continue
        if text.startswith(_WHIP):
            require_web_address(text.removeprefix(_WHIP), text)
        elif Path(text).suffix.lower() not in SUFFIXES:
            raise TargetError(
                f"{text!r} is no target: use camera, camera:DEVICE, window, a file such as out.mp4, or "
                "whip:https://…"
            )


def make_target(
    text: str,
    events: TargetEvents,
    *,
    size: ImageSize,
    fps: float,
    provenance: Provenance,
    overwrite: bool,
    with_audio: bool = False,
) -> Target:
    """Return the target that a `--to` stands for, for frames of `size` (width, height). It is not open yet."""
    if text == "window":
        return WindowTarget(events)
    if text == "camera" or text.startswith(_CAMERA):
        device = text.removeprefix(_CAMERA) if text.startswith(_CAMERA) else None
        return VirtualCameraTarget(events, size=size, fps=fps, device=device)
    if text.startswith(_WHIP):
        return WhipTarget(events, text.removeprefix(_WHIP), with_audio=with_audio)
    return RecordingTarget(events, Path(text), provenance, fps=fps, overwrite=overwrite)


def takes_sound(text: str) -> bool:
    """Return whether a `--to` takes sound: files and WHIP servers do, cameras and windows do not."""
    return text not in {"window", "camera"} and not text.startswith(_CAMERA)
