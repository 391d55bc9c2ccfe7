"""What makes the result of a job what it is: where all of this is equal, a run may continue another's work."""

from __future__ import annotations

import hashlib
from importlib.metadata import entry_points
from pathlib import Path

import av

from personalive.errors import MediaError
from personalive.jobs.job_context import Loaded
from personalive.media import Provenance
from personalive.pipelines import registry
from personalive.pipelines.base import PipelineInfo

Facts = dict[str, object]
"""Names, as they are shown to a user, and values of JSON."""


def fingerprint(loaded: Loaded, mark: Provenance, segment_frames: int) -> Facts:
    """All that a job's frames, sound and mark depend on, as far as it is known before the first of them.

    Files count by their whole contents: hashing takes seconds where animating takes hours, and times and sizes
    may deceive. Raises `MediaError` where the driving clip cannot be read.
    """
    plan, job = loaded.plan, loaded.plan.job
    options = {
        "crop": job.crop,
        "paste_back": job.paste_back,
        "side_by_side": job.side_by_side,
        "rotate": plan.turn,
        "rotate_reference": plan.portrait.turn,
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
        "driving clip": _digest(job.driving),
        "pipeline": _version(loaded.pipeline.info),
        "version of personalive": mark.software,
        "video encoder": [av.__version__, *map(list, av.library_versions.values())],
        "segment length": segment_frames,
        **loaded.pipeline.parameters.model_dump(mode="json"),
        **plan.run.model_dump(mode="json"),
        **options,
    }


def differences(one: Facts, other: Facts) -> list[str]:
    """The names of what is not the same."""
    names = {**one, **other}
    return [name for name in names if one.get(name) != other.get(name)]


def _version(info: PipelineInfo) -> str:
    """The pipeline's name, and the package and version that it is registered by."""
    packages = [point.dist for point in entry_points(group=registry.GROUP) if point.name == info.id]
    return " ".join([info.id, *(f"{package.name} {package.version}" for package in packages if package)])


def _digest(path: Path) -> str:
    """A hash of a file, or of the files in a folder with their names."""
    try:
        if path.is_dir():
            shown = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
            return hashlib.sha256(
                "\n".join(f"{_hash(file)} {file.name}" for file in shown).encode()
            ).hexdigest()
        return _hash(path)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}.") from error


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
