"""Selection of a file's tracks: the default one, and among several the largest video or the first sound track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import av.container
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.stream import VideoStream

_NO_MOVING_PICTURE = (
    Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
)
_NO_MAIN_SOUND = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.dependent
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")

Track = TypeVar("Track", VideoStream, AudioStream)


def select_video_stream(container: av.container.InputContainer) -> VideoStream | None:
    """Return the picture track to use, None if none can be decoded. Cover art does not count."""
    preferred = _preferred_tracks(_moving_tracks(container))
    return max(
        preferred, key=lambda stream: stream.codec_context.width * stream.codec_context.height, default=None
    )


def select_audio_stream(container: av.container.InputContainer) -> AudioStream | None:
    """Return the sound track to use, None if none can be decoded."""
    tracks = _decodable_tracks(container.streams.audio)
    spoken = [stream for stream in tracks if not stream.disposition & _NO_MAIN_SOUND]
    return next(iter(_preferred_tracks(spoken or tracks)), None)


def describe_video_choice(container: av.container.InputContainer, name: str) -> str | None:
    """Return a sentence on which picture track of the file called `name` is used; None if there is no choice."""
    tracks, chosen = _moving_tracks(container), select_video_stream(container)
    if chosen is None or len(tracks) < 2:
        return None
    context = chosen.codec_context
    size = f"{context.width}×{context.height}"
    return (
        f"{name} has {len(tracks)} video tracks: the {_describe_choice(tracks, chosen)}, of {size}, is used."
    )


def describe_audio_choice(container: av.container.InputContainer, name: str) -> str | None:
    """Return a sentence on which sound track of the file called `name` is used, or that none can be.

    None if there is no choice and the one track is used.
    """
    tracks, chosen = container.streams.audio, select_audio_stream(container)
    if chosen is None:
        return (
            f"The sound of {name} is of a kind that cannot be decoded here: it is left out."
            if tracks
            else None
        )
    if len(tracks) < 2:
        return None
    which, codec = _describe_choice(tracks, chosen), chosen.codec_context.codec.canonical_name
    return f"{name} has {len(tracks)} sound tracks: the {which} ({codec}) is used."


def _moving_tracks(container: av.container.InputContainer) -> list[VideoStream]:
    tracks = _decodable_tracks(container.streams.video)
    return [stream for stream in tracks if not stream.disposition & _NO_MOVING_PICTURE]


def _decodable_tracks(tracks: Sequence[Track]) -> list[Track]:
    # PyAV has no codec context where FFmpeg has no decoder.
    return [stream for stream in tracks if stream.codec_context is not None]


def _preferred_tracks(tracks: Sequence[Track]) -> Sequence[Track]:
    """Return the default tracks, or all if none is: MP4 marks every enabled track, Matroska mostly all."""
    return [stream for stream in tracks if stream.disposition & Disposition.default] or tracks


def _describe_choice(tracks: Sequence[Track], chosen: Track) -> str:
    number = next(number for number, stream in enumerate(tracks) if stream.index == chosen.index)
    return _ORDINALS[number] if number < len(_ORDINALS) else f"number {number + 1}"
