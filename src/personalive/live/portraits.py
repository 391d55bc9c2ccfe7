"""The portraits of a live run: read and cut once, fused when they are first shown."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from personalive.face.choice import parse_reference_face
from personalive.face.crop import ImageSize
from personalive.jobs.plan import crop_reference, resolve_frame_size
from personalive.jobs.reference_image import ReferenceCrop, ReferenceImage, read_reference
from personalive.live.live_job import LiveJob
from personalive.media import Provenance
from personalive.pipelines.base import FrameState, LoadParameters
from personalive.server.sessions.playout_buffer import NO_PLANES, SentFrame


@dataclass(frozen=True, slots=True, eq=False)
class LivePortrait:
    """A portrait, and the part of it that is animated."""

    path: Path
    sha256: str
    image: ReferenceImage
    crop: ReferenceCrop

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen and what may be wrong, one sentence each."""
        return (*self.image.notes, *self.crop.warnings)


def read_portraits(
    job: LiveJob, given: Mapping[str, object], checked: LoadParameters
) -> tuple[Sequence[LivePortrait], ImageSize]:
    """Read all portraits; return them and the size to animate them at, which the first decides.

    `given` and `checked` are the load parameters as they were given and with all defaults. Raises `InputError` or
    a subclass for a portrait that cannot be used.
    """
    face, face_box = parse_reference_face(job.face, job.face_box)
    size: ImageSize | None = None
    portraits = []
    for path in job.portraits:
        image = read_reference(path, job.rotate_reference, choice=face, face_box=face_box)
        size = size or resolve_frame_size(job, given, checked, image.size)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        portraits.append(LivePortrait(path, digest, image, crop_reference(job, image, size)))
    assert size is not None
    return portraits, size


def make_still(portrait: LivePortrait) -> SentFrame:
    """Return the portrait as a frame, for targets to show before the first one is animated."""
    image = portrait.crop.image
    return SentFrame(image, NO_PLANES, 0.0, FrameState.WAITING, time.monotonic())


def describe_origin(provenance: Provenance, portraits: Sequence[LivePortrait]) -> Provenance:
    """Record the other portraits that may be shown, too."""
    if len(portraits) == 1:
        return provenance
    others = " ".join(portrait.sha256 for portrait in portraits[1:])
    return replace(provenance, extra={"other_references_sha256": others})
