"""Real files for the tests, written with PyAV: small clips of every make."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import PIL.Image
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import ImageSequence

from personalive.media import Image, Provenance

PROVENANCE = Provenance("personalive 0.1.0", "preview", reference_sha256="ab" * 32)

COLOURS = np.array([[200, 40, 60], [30, 180, 90], [60, 70, 210], [240, 240, 240]], np.uint8)


def patches(width: int = 64, height: int = 48) -> Image:
    """Four flat patches, red and green above blue and white, that show colour, rotation and mirroring."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = COLOURS[0], COLOURS[1]
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = COLOURS[2], COLOURS[3]
    return image


def patch_colours(image: Image) -> NDArray[np.int64]:
    """The colours in the middle of the four patches, (4, 3)."""
    height, width = image.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return np.array([image[row, column] for row in rows for column in columns], np.int64)


def level(value: int, width: int = 64, height: int = 48) -> Image:
    """A flat grey picture."""
    return np.full((height, width, 3), value, np.uint8)


def tell(image: Image) -> int:
    """The grey level of a flat picture that went through an encoder."""
    return round(float(image.mean()))


def write_clip(
    path: Path,
    images: Sequence[Image],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    fps: int | Fraction = 25,
    times: Sequence[Fraction] | None = None,
    matrix: int = 1,
    full_range: bool = False,
    rotation: int | None = None,
    mirror: bool = False,
    audio: str | None = None,
    audio_rate: int = 48_000,
    gop: int = 12,
) -> Path:
    """Write pictures as a clip, with a 440 Hz tone if `audio` names an encoder.

    `matrix` is FFmpeg's number: 1 for BT.709, 6 for BT.601. `rotation` is counter-clockwise, in degrees.
    """
    with av.open(str(path), "w") as container:
        options = {
            "libx264": {"crf": "1", "preset": "ultrafast"},
            "libvpx-vp9": {"crf": "4", "cpu-used": "8"},
        }
        video = cast(VideoStream, container.add_stream(codec, rate=fps, options=options.get(codec, {})))
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = pixel_format
        video.codec_context.gop_size = gop
        if not pixel_format.startswith(("rgb", "bgr", "gbr", "gray", "pal")):
            context = video.codec_context
            context.colorspace, context.color_range = matrix, 2 if full_range else 1
            context.color_primaries = context.color_trc = 1
        if times is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            video.set_display_rotation(rotation, hflip=mirror)
        sound = cast(AudioStream, container.add_stream(audio, rate=audio_rate)) if audio else None
        for index, image in enumerate(images):
            frame = encodable(image, pixel_format, matrix, full_range)
            frame.time_base = Fraction(1, 1000) if times is not None else 1 / Fraction(fps)
            frame.pts = index if times is None else int(times[index] * 1000)
            container.mux(video.encode(frame))
            if sound is not None:
                container.mux(sound.encode(tone(index, Fraction(fps), audio_rate)))
        container.mux(video.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def encodable(image: Image, pixel_format: str, matrix: int, full_range: bool) -> av.VideoFrame:
    """A picture in the pixel format of an encoder, by the stated colour matrix and range."""
    if pixel_format == "pal8":
        levels = np.ascontiguousarray(image[..., 0])
        palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1)
        return av.VideoFrame.from_ndarray((levels, palette), format="pal8")  # type: ignore[arg-type]
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    if pixel_format.startswith(("rgb", "bgr", "gbr", "gray")):
        return frame.reformat(format=pixel_format)
    frame = frame.reformat(
        format=pixel_format,
        dst_colorspace={1: 1, 6: 5}[matrix],
        dst_color_range=2 if full_range else 1,
        interpolation=4 | 0x40000,
    )
    frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
    return frame


def tone(index: int, fps: Fraction, rate: int) -> av.AudioFrame:
    """The piece of a 440 Hz tone, stereo, that goes with a frame."""
    first, last = int(index * rate / fps), int((index + 1) * rate / fps)
    wave = (0.5 * np.sin(np.arange(first, last) * (2 * np.pi * 440 / rate))).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
    return frame


def sound_of(path: Path) -> tuple[str, float, float, NDArray[np.float32]]:
    """Codec, start, end (seconds) and first channel (count,) of a file's sound, decoded."""
    with av.open(str(path)) as container:
        codec = container.streams.audio[0].codec_context.codec.canonical_name
        frames = list(container.decode(audio=0))
    resampler = av.AudioResampler(format="fltp")
    blocks = [block for frame in frames for block in resampler.resample(frame)]
    samples = np.concatenate([block.to_ndarray()[0] for block in blocks]).astype(np.float32)
    first, last = frames[0], frames[-1]
    assert first.time is not None
    assert last.time is not None
    return codec, first.time, last.time + last.samples / last.sample_rate, samples


def leftovers(folder: Path) -> list[str]:
    """Names of the hidden partial outputs in a folder."""
    return [path.name for path in folder.iterdir() if ".partial-" in path.name]


def frame_count(picture: PIL.Image.Image) -> int:
    """How many frames Pillow sees in an animated picture."""
    return sum(1 for _ in ImageSequence.Iterator(picture))
