"""Take a set of weights that is on this machine already: a checkout of the research code, or another's download."""

from __future__ import annotations

import os
from pathlib import Path

from personalive.errors import InputError, MissingWeightsError, WeightsError
from personalive.folders import expanded
from personalive.pipelines.personalive.download.folder import claimed, require_space, sized
from personalive.pipelines.personalive.download.job import Outcome
from personalive.pipelines.personalive.download.plan import wanted
from personalive.pipelines.personalive.download.progress import Progress, Tally
from personalive.pipelines.personalive.weights import layout
from personalive.pipelines.personalive.weights.layout import PublishedFile

_PIECE = 8 * 2**20


def from_directory(
    source: Path, target: Path | None = None, *, tiny: bool = False, progress: Progress | None = None
) -> Outcome:
    """Copy the set in the folder `source`, or in its `pretrained_weights/`, to `target`. No hub is asked.

    Where both are on one file system the files are linked, which takes neither time nor space. A file at its
    final name is always a whole copy; whether the source is what was published is not looked into.

    The source is complete when it holds every published file, or what there is can be loaded: small and
    converted sets are made of fewer.

    Raises `MissingWeightsError` when a file is missing in the source, and `InputError` when the source is no
    folder or cannot be read, or when a file in the target would be used instead of those that are copied;
    `DiskFullError`, or `DownloadError` when the target cannot be written or the source cannot be read;
    `PipelineUnavailableError` without the libraries.
    """
    target, files = target or layout.default_root(), wanted(tiny=tiny)
    source = layout.resolve(expanded(source))
    names = _names(source, files)
    _refuse_rivals(source, target, files)
    new = tuple(name for name in names if not _linked(source / name, target / name))
    size = sum((source / name).stat().st_size for name in new)
    tally = Tally(progress, all_size=size)
    with claimed(target, tally) as staging:
        if source.stat().st_dev != target.stat().st_dev:
            require_space(target, size)
        if new:
            tally.note(f"taking {len(new)} files ({sized(size)}) from {source}")
        for name in new:
            _take(source / name, target / name, staging, name, tally)
    kept = tuple(name for name in names if name not in new)
    return Outcome(target, new, kept, size, asked=False, checked=False)


def _names(source: Path, files: tuple[PublishedFile, ...]) -> tuple[str, ...]:
    """What is to be taken, relative to the source. Raises what `from_directory` does for the source."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: --from takes the one that holds the weights.")
    found = {file: file.find(source) for file in files}
    missing = [file for file, path in found.items() if path is None]
    if missing and (any(file.optional for file in missing) or not _loadable(source)):
        listed = ", ".join(str(file.folder / " or ".join(file.names)) for file in missing)
        raise MissingWeightsError(
            f"{source} is no complete set of weights; missing: {listed}. "
            "Without --from they are fetched from the hub."
        )
    for path in found.values():
        if path and not os.access(path, os.R_OK):
            raise InputError(f"{path} cannot be read: make it readable for this user.")
    names = [path.relative_to(source).as_posix() for path in found.values() if path is not None]
    return (*names, layout.SIZES) if (source / layout.SIZES).is_file() else tuple(names)


def _loadable(source: Path) -> bool:
    """Whether the loader finds all that it needs; without its libraries nobody can tell."""
    try:
        from personalive.pipelines.personalive.weights.checkpoints import prepare

        prepare(source)
    except (ImportError, WeightsError):
        return False
    return True


def _refuse_rivals(source: Path, target: Path, files: tuple[PublishedFile, ...]) -> None:
    """A .safetensors in the target would be loaded rather than the .pth that is copied beside it.

    So would a file that the source does without: a temporal module beside a converted denoising UNet, say.
    """
    for file in files:
        coming, there = file.find(source), file.find(target)
        if coming and there and file.names.index(there.name) < file.names.index(coming.name):
            raise InputError(f"{there} would be used instead of {coming}: move it away first.")
        if there and not coming:
            raise InputError(f"{there} would be used with what is in {source}: move it away first.")
    if (target / layout.SIZES).is_file() and not (source / layout.SIZES).is_file():
        raise InputError(f"{target / layout.SIZES} would be used with {source}: move it away first.")


def _linked(source: Path, target: Path) -> bool:
    return target.is_file() and target.samefile(source)


def _take(source: Path, target: Path, staging: Path, name: str, tally: Tally) -> None:
    """Link or copy one file under a hidden name, then give it its own."""
    source = source.resolve()  # the hub's cache holds links to files elsewhere
    size = source.stat().st_size
    tally.begin("copying", name, size)
    part = staging / name.replace("/", "-")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
        tally.advance(size)
    except OSError:  # another file system, or one without links
        _copy(source, part, tally)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def _copy(source: Path, part: Path, tally: Tally) -> None:
    with source.open("rb") as reader, part.open("wb") as writer:
        while piece := reader.read(_PIECE):
            writer.write(piece)
            tally.advance(len(piece))
        writer.flush()
        os.fsync(writer.fileno())
