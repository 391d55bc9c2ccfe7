"""Fragmented MP4: however the writing ends, the file is playable up to its last whole fragment."""

from __future__ import annotations

import contextlib
import io
import os
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import av.container
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

from personalive.errors import MediaError
from personalive.file_replace import replace_file
from personalive.media import colour, xmp
from personalive.media.audio import AudioTrack
from personalive.media.concat import concat_videos
from personalive.media.container_writer import add_video_stream, pad_to_stream
from personalive.media.containers import open_container
from personalive.media.iso_boxes import iter_boxes
from personalive.media.provenance import TRAINED_ALGORITHMIC_MEDIA, Provenance
from personalive.media.ratios import to_fraction
from personalive.media.tracks import select_audio_stream, select_video_stream
from personalive.media.types import Image

_FRAGMENT_US = 1_000_000
"""Microseconds per fragment: at most this and what the encoder buffers is lost."""
_OPTIONS = {
    "movflags": "+empty_moov+default_base_moof+use_metadata_tags",
    "frag_duration": str(_FRAGMENT_US),
    "flush_packets": "1",
    # How long the picture waits for sound, in microseconds: often none ever comes.
    "max_interleave_delta": str(_FRAGMENT_US),
}
_AUDIO_BIT_RATE = 160_000
_AAC_FRAME = 1024
"""Samples of a packet of AAC. It begins with one before the sound, which without an edit list is a part of it."""


class FragmentedWriter:
    """A writer of frames of one size to an H.264 file at `path`, which exists from the first frame on."""

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        rate: Fraction,
        provenance: Provenance,
        audio_rate: int = 48_000,
    ) -> None:
        """Open the file for frames of `size` (width, height) at `rate` per second.

        It may get stereo sound at `audio_rate`; only if it does, the complete file has a track for it. Raises what
        opening raises.
        """
        self._rate = rate
        self._count = 0
        self._samples = 0
        self._container = av.open(
            "file:" + os.fspath(path), "w", format="mp4", container_options=dict(_OPTIONS)
        )
        try:
            self._container.metadata.update(provenance.metadata())
            # Without B-frames the times of a fragment need no edit list.
            self._video = add_video_stream(self._container, "mp4", size, rate, {"bf": "0"})
            self._audio = _add_audio_stream(self._container, audio_rate)
            self._container.start_encoding()
        except BaseException:
            with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
                self._container.close()
            raise

    def write(self, image: Image) -> None:
        """Add a frame, (height, width, 3) uint8 RGB. Raises what writing raises, an `OSError` or FFmpeg's own."""
        frame = colour.to_limited_bt709(pad_to_stream(image, self._video), "yuv420p")
        frame.pts, frame.time_base = self._count, 1 / self._rate
        for packet in self._video.encode(frame):
            self._container.mux(packet)
        self._count += 1

    def write_audio(self, samples: NDArray[np.int16]) -> None:
        """Add sound, (samples, 2), right after the sound before. Raises what writing raises."""
        begin, end = self._samples, self._samples + len(samples)
        self._samples = end
        samples = samples[max(_AAC_FRAME - begin, 0) :]
        if len(samples):
            for packet in _encode(self._audio, samples, end - len(samples)):
                self._container.mux(packet)

    def write_silence(self, count: int) -> None:
        """Add `count` samples of silence, before any sound. Raises what writing raises.

        An hour takes about a second: silent packets are all alike, so one is encoded and written many times.
        """
        assert self._samples == 0
        rate = self._audio.codec_context.sample_rate
        copies = count // _AAC_FRAME - 1  # the encoder begins with the last one
        content = _encode_silent_packet(rate)
        for index in range(copies):
            packet = av.Packet(content)
            packet.stream = self._audio
            packet.pts = packet.dts = index * _AAC_FRAME
            packet.duration, packet.time_base = _AAC_FRAME, Fraction(1, rate)
            self._container.mux(packet)
        self._samples = max(copies + 1, 0) * _AAC_FRAME
        self.write_audio(np.zeros((count - self._samples, 2), np.int16))

    def close(self) -> None:
        """Write what the encoders buffer, and close the file in any case. Raises what writing raises."""
        try:
            for packet in self._video.encode(None):
                self._container.mux(packet)
            for sound in self._audio.encode(None):
                self._container.mux(sound)
        finally:
            self._container.close()


def _add_audio_stream(container: av.container.OutputContainer, rate: int) -> AudioStream:
    stream = container.add_stream("aac", rate=rate)
    stream.codec_context.layout = "stereo"
    stream.codec_context.bit_rate = _AUDIO_BIT_RATE
    return stream


def _encode(stream: AudioStream, samples: NDArray[np.int16], position: int) -> list[Packet[AudioStream]]:
    """Encode samples, (count, 2), that are at `position` in the track."""
    planes = np.ascontiguousarray(samples.T.astype(np.float32) / 32768)
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
    frame.sample_rate = stream.codec_context.sample_rate
    frame.pts, frame.time_base = position, Fraction(1, frame.sample_rate)
    return stream.encode(frame)


@lru_cache(maxsize=1)
def _encode_silent_packet(rate: int) -> bytes:
    """Return the content of a packet of silence that comes after silence."""
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = _add_audio_stream(container, rate)
        return bytes(_encode(stream, np.zeros((8 * _AAC_FRAME, 2), np.int16), 0)[-1])


def finalize_fragments(partial: Path, target: Path, provenance: Provenance | None = None) -> int:
    """Make a complete video at `target` of the fragments at `partial`, and return its number of frames.

    `partial` is removed. The index goes to the front where there is room for a second file; else the fragments are
    kept as they are. `provenance` defaults to what the file's tags say.

    Raises:
        MediaError: nothing of it can be played; `partial` is removed.
        OSError: the folder is gone, or cannot be written to.

    """
    _cut_to_fragments(partial)
    try:
        frames, rate, marks, audio = _probe(partial)
    except MediaError:
        partial.unlink(missing_ok=True)
        raise
    mark = provenance or _parse_provenance(marks)
    try:
        concat_videos(target, [partial], fps=float(rate), provenance=mark, audio=audio)
    except (MediaError, OSError):
        with contextlib.suppress(OSError):  # the disk is full
            if audio is None:
                _hide_audio_track(partial)
            xmp.append_to_iso_media(partial, xmp.build_packet(mark.metadata()))
        replace_file(partial, target)
    partial.unlink(missing_ok=True)
    return frames


def _cut_to_fragments(path: Path) -> None:
    """Cut off what follows the last whole fragment: a `moof` box with its `mdat`."""
    kept, before = 0, b""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for box in iter_boxes(file):
            if box.length and box.start + box.length <= size and box.kind == b"mdat" and before == b"moof":
                kept = box.start + box.length
            before = box.kind
        file.truncate(kept)


def _hide_audio_track(path: Path) -> None:
    """Turn the sound's track, of which nothing was written, into free space. Raises `OSError`."""
    with path.open("r+b") as file:
        for box in iter_boxes(file):
            if box.kind != b"moov":
                continue
            tracks = [one for one in iter_boxes(file, box) if one.kind == b"trak"]
            for track in tracks[1:]:
                file.seek(track.start + 4)
                file.write(b"free")
            return


def _probe(path: Path) -> tuple[int, Fraction, dict[str, str], AudioTrack | None]:
    """Return the frames, rate, tags and sound of a fragmented file. Raises `MediaError` where it has no frame."""
    frames, rate, audio = 0, None, None
    with open_container(path) as container:
        video = select_video_stream(container)
        if video is None:
            raise MediaError("Nothing of the recording can be played.")
        sound = select_audio_stream(container)
        streams = [video] if sound is None else [video, sound]
        for packet in container.demux(streams):
            if packet.size and packet.duration:
                if packet.stream is sound:
                    audio = AudioTrack(path)
                    continue
                rate = rate or 1 / (packet.duration * to_fraction(packet.time_base))
                frames += 1
        marks = {key.lower(): value for key, value in container.metadata.items()}
    if rate is None:
        raise MediaError("Nothing of the recording can be played.")
    return frames, rate, marks, audio


def _parse_provenance(marks: dict[str, str]) -> Provenance:
    return Provenance(
        marks.get("software", "personalive"),
        marks.get("pipeline", "unknown"),
        marks.get("reference_sha256"),
        marks.get("digital_source_type", TRAINED_ALGORITHMIC_MEDIA),
    )
