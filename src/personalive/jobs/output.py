"""The file that a job writes: a video, or a picture where a job has one frame."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

from personalive.errors import InputError
from personalive.face.crop import ImageSize
from personalive.file_names import shorten
from personalive.jobs.animate_job import AnimateJob
from personalive.media import (
    COMPOSITE_SYNTHETIC,
    TRAINED_ALGORITHMIC_MEDIA,
    AudioTrack,
    Image,
    Provenance,
    check_output,
    open_driving,
    open_writer,
    save_image,
)
from personalive.media.output import check_new_output, check_parent
from personalive.media.user_paths import check_is_file, is_folder, translate_read_errors
from personalive.pipelines.base import PipelineInfo

_MAX_STEM_BYTES = 240
"""Most bytes of a generated name: systems allow 255, which leaves room for a suffix."""
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def is_single_image(path: Path) -> bool:
    """Return whether a path names one picture, not numbered ones, a folder or a video."""
    return path.suffix.lower() in _IMAGE_SUFFIXES and "%" not in path.name and not is_folder(path)


def check_output_path(path: Path, overwrite: bool) -> None:
    """Raise early for what could not be written later: an unknown type, a folder, an existing file."""
    if not is_single_image(path):
        check_output(path, overwrite)
        return
    check_parent(path)
    check_new_output(path, overwrite)


class OutputWriter:
    """Writes composed frames. The file appears when the context is left without an exception."""

    def __init__(
        self, job: AnimateJob, size: ImageSize, fps: float, audio: bool, pipeline: PipelineInfo
    ) -> None:
        """Write frames of `size` (width, height); `audio`: whether to add the driving clip's sound."""
        self.warnings: list[str] = []
        self._job = job
        self._provenance = build_provenance(job, pipeline)
        self._image: Image | None = None
        self._video = None
        if not is_single_image(job.output):
            self._video = open_writer(
                job.output,
                width=size[0],
                height=size[1],
                fps=fps,
                provenance=self._provenance,
                audio=AudioTrack(job.driving, job.start) if audio else None,
                overwrite=job.overwrite,
            )

    def write(self, frame: Image) -> None:
        """Add a frame, uint8 RGB (H, W, 3). Raises `MediaError` if it cannot be written."""
        if self._video is not None:
            self._video.write(frame)
        elif self._image is not None:
            raise InputError(
                f"{self._job.output.name} is one picture, but there is more than one frame: "
                "name a video, such as .mp4, or ask for one frame."
            )
        else:
            self._image = frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._video is not None:
            try:
                self._video.__exit__(exc_type, exc, traceback)
            finally:
                self.warnings.extend(self._video.warnings)
        elif exc_type is None and self._image is not None:
            save_image(self._job.output, self._image, self._provenance, overwrite=self._job.overwrite)


def build_provenance(job: AnimateJob, pipeline: PipelineInfo) -> Provenance:
    """Return the provenance mark of a job's output. Raises `MediaError` where the reference cannot be read."""
    check_is_file(job.reference)
    return Provenance(
        software=f"personalive {version('personalive')}",
        pipeline=pipeline.id,
        reference_sha256=hash_file(job.reference),
        digital_source_type=TRAINED_ALGORITHMIC_MEDIA if pipeline.generative else COMPOSITE_SYNTHETIC,
    )


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises `MediaError` where it cannot be read."""
    with translate_read_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_output(reference: Path, driving: Path) -> Path:
    """Return a path in the working directory named after both inputs: .png for a still driving clip, else .mp4.

    Raises `MediaError` where the driving clip cannot be read.
    """
    with open_driving(driving) as source:
        suffix = ".png" if source.info.frames == 1 else ".mp4"
    return default_path(reference, driving, suffix)


def default_path(reference: Path, driving: Path, suffix: str) -> Path:
    """Return a path in the working directory, named after both inputs."""
    return Path(shorten(f"{reference.stem}_{driving.stem}", _MAX_STEM_BYTES) + suffix)
