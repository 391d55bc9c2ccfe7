"""The fingerprint of a job: all that its result depends on. A run may continue one with the same fingerprint."""

from __future__ import annotations

import hashlib
from importlib.metadata import entry_points
from pathlib import Path

import av

from personalive.face.choice import parse_reference_face
from personalive.jobs.job_context import JobContext
from personalive.jobs.output import hash_file
from personalive.media import Provenance
from personalive.media.user_paths import translate_read_errors
from personalive.pipelines import registry
from personalive.pipelines.base import PipelineInfo

Fingerprint = dict[str, object]
"""JSON values by name, as the names are shown to a user."""


def compute_fingerprint(loaded: JobContext, mark: Provenance, segment_frames: int) -> Fingerprint:
    """Return all that a job's frames, sound and mark depend on, as far as it is known before the first frame.

    Files are hashed as a whole: that takes seconds where animating takes hours, and their times and sizes are not
    reliable. Raises `MediaError` where the driving clip cannot be read.
    """
    plan, job = loaded.plan, loaded.plan.job
    options = {
        "crop": job.crop,
        "paste_back": job.paste_back,
        "side_by_side": job.side_by_side,
        "face": str(parse_reference_face(job.face, job.face_box)[0]),
        "face_box": job.face_box,
        "rotate": plan.rotation_degrees,
        "rotate_reference": plan.reference.rotation_degrees,
        "fps": plan.fps,
        "start": job.start,
        "end": job.end,
        "max_frames": job.max_frames,
        "audio": job.audio,
        "session seed": job.seed,
    }
    return {
        "output name": job.output.name,
        "reference": [mark.reference_sha256, loaded.reference.id],
        "driving clip": _hash_path(job.driving),
        "pipeline": _pipeline_version(loaded.pipeline.info),
        "version of personalive": mark.software,
        "video encoder": [av.__version__, *map(list, av.library_versions.values())],
        "segment length": segment_frames,
        **loaded.pipeline.parameters.model_dump(mode="json"),
        **plan.run_parameters.model_dump(mode="json"),
        **options,
    }


def differing_keys(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Return the names whose values differ."""
    names = {**one, **other}
    return [name for name in names if one.get(name) != other.get(name)]


def _pipeline_version(info: PipelineInfo) -> str:
    """Return the pipeline's name, and the package and version that register it."""
    packages = [
        point.dist for point in entry_points(group=registry.ENTRY_POINT_GROUP) if point.name == info.id
    ]
    return " ".join([info.id, *(f"{package.name} {package.version}" for package in packages if package)])


def _hash_path(path: Path) -> str:
    """Return a hash of a file, or of the files in a folder with their names."""
    if not path.is_dir():
        return hash_file(path)
    with translate_read_errors(path):
        shown = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
    listed = "\n".join(f"{hash_file(file)} {file.name}" for file in shown)
    return hashlib.sha256(listed.encode()).hexdigest()
