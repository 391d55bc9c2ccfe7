"""What `--from` names: a camera, a clip, a stream, or a WHEP address."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from personalive.live.devices import SourceError

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_WHEP = "whep:"
_STREAM_SCHEMES = {"rtsp", "rtsps", "http", "https"}


class SourceKind(StrEnum):
    """Where driving frames come from."""

    CAMERA = "camera"
    CLIP = "clip"
    STREAM = "stream"
    WHEP = "whep"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A kind of source and its number, name, path or address."""

    kind: SourceKind
    value: str

    @property
    def name(self) -> str:
        """What to call it in messages: without a password, and of a path the last part only."""
        if self.kind is SourceKind.CLIP:
            return Path(self.value).name
        if self.kind is SourceKind.CAMERA:
            return f"camera {self.value}" if self.value.isdecimal() else self.value
        return re.sub(r"(?<=://)[^/@]*@", "", self.value)


def parse_source(text: str) -> SourceSpec:
    """Return what `--from` names. A name that is neither an address nor a file is a camera's.

    Raises `SourceError` for an address of a kind that is not read.
    """
    if not text.strip():
        raise SourceError("--from names nothing: give a camera's number or name, a clip, or an address.")
    if text.startswith(_WHEP):
        return SourceSpec(SourceKind.WHEP, require_web_address(text.removeprefix(_WHEP), text))
    if scheme := _ADDRESS.match(text):
        if scheme[1].lower() not in _STREAM_SCHEMES:
            raise SourceError(
                f"{text!r} cannot be read: streams are rtsp://, http:// and https:// addresses, and "
                "whep:https://… for WebRTC."
            )
        return SourceSpec(SourceKind.STREAM, text)
    is_device = text.startswith("/dev/") or text.isdecimal()
    if not is_device and (Path(text).exists() or _looks_like_path(text)):
        return SourceSpec(SourceKind.CLIP, text)
    return SourceSpec(SourceKind.CAMERA, text)


def require_web_address(address: str, given: str) -> str:
    """Return the address if it is http:// or https://. Raises `SourceError` naming what was `given`."""
    if not address.lower().startswith(("http://", "https://")):
        kind = given.partition(":")[0]
        raise SourceError(f"{given!r} needs a web address: {kind}:https://host/path.")
    return address


def _looks_like_path(text: str) -> bool:
    return any(separator in text for separator in {os.sep, "/"}) or re.search(r"\.\w{2,5}$", text) is not None
