"""Concatenation of videos: pictures are copied unchanged; sound and mark are those of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av.container
import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from personalive.errors import MediaError
from personalive.media.audio import AudioTrack
from personalive.media.containers import open_container
from personalive.media.muxer import Muxer
from personalive.media.output import check_output, translate_write_errors
from personalive.media.provenance import Provenance
from personalive.media.ratios import to_fraction
from personalive.media.tracks import select_video_stream
from personalive.media.video_writer import exact_rate


def concat_videos(
    path: Path,
    parts: Sequence[Path],
    *,
    fps: float,
    provenance: Provenance,
    audio: AudioTrack | None = None,
    overwrite: bool = False,
    staging: Path | None = None,
) -> list[str]:
    """Join `parts`, which `open_writer` wrote to the same kind of file at the same size and `fps`.

    Nothing is decoded or re-encoded, apart from sound whose codec the container does not accept. The same parts
    give the same file. It is written in the folder `staging`, on the same file system, or beside `path`.

    Returns one sentence for each thing that is wrong with the sound.

    Raises:
        OutputExistsError: something is there and `overwrite` is False.
        MediaError: a part cannot be read or does not belong to the others, or the output cannot be written.

    """
    kind, rate = check_output(path, overwrite), exact_rate(fps)
    if not parts:
        raise MediaError(f"{path} was not written: there were no frames.")
    with open_container(parts[0]) as first:
        template = _video_stream_of(first, parts[0])
        output = Muxer(
            path,
            kind,
            lambda container: _add_stream_like(template, container, rate),
            provenance=provenance,
            audio=audio,
            overwrite=overwrite,
            staging=staging,
        )
        with translate_write_errors(path, output.discard):
            for number, packet in enumerate(_read_packets(parts, rate, template.codec_context.extradata)):
                packet.stream = output.video
                output.mux([packet], float((number + 1) / rate))
            output.complete()
    return output.warnings


def _add_stream_like(
    template: VideoStream, container: av.container.OutputContainer, rate: Fraction
) -> VideoStream:
    stream = container.add_stream_from_template(template, opaque=True)
    stream.time_base = 1 / rate
    return stream


def _read_packets(
    parts: Sequence[Path], rate: Fraction, extradata: bytes | None
) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of all parts, with their times in frames of the whole."""
    count = 0
    delay: int | None = None
    for path in parts:
        begin = count
        with open_container(path) as container:
            stream = _video_stream_of(container, path)
            if stream.codec_context.extradata != extradata:
                raise MediaError(f"{path} was encoded in another way than the parts before it.")
            for packet in _checked_packets(container, stream, path):
                if packet.pts is None or packet.dts is None:
                    continue
                # Only for B-frames. A part too short for any has no delay, but only the last can be so short.
                delay = -_to_frame_count(packet, packet.dts, rate) if delay is None else delay
                packet.pts = begin + _to_frame_count(packet, packet.pts, rate)
                packet.dts = count - delay
                packet.duration, packet.time_base = 1, 1 / rate
                count += 1
                yield packet


def _checked_packets(
    container: av.container.InputContainer, stream: VideoStream, path: Path
) -> Iterator[Packet[VideoStream]]:
    try:
        yield from container.demux(stream)
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{path} is damaged.") from error


def _to_frame_count(packet: Packet[VideoStream], stamp: int, rate: Fraction) -> int:
    """Convert a timestamp to a number of frames, which undoes the container's rounding."""
    return round(stamp * to_fraction(packet.time_base) * rate)


def _video_stream_of(container: av.container.InputContainer, path: Path) -> VideoStream:
    stream = select_video_stream(container)
    if stream is None:
        raise MediaError(f"{path} holds no video.")
    return stream
