"""Copies of a set of weights that is on this machine already: a checkout of the research code, or a download."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from personalive.errors import InputError, MissingWeightsError, WeightsError
from personalive.file_replace import replace_file
from personalive.paths import expand_user
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.download.downloader import DownloadResult
from personalive.pipelines.diffusion.checkpoints.download.plan import files_of_set
from personalive.pipelines.diffusion.checkpoints.download.progress import DownloadObserver, ProgressTracker
from personalive.pipelines.diffusion.checkpoints.download.staging import (
    check_free_space,
    format_bytes,
    lock_folder,
    missing_library_error,
)
from personalive.pipelines.diffusion.checkpoints.download.verified_files import Digest
from personalive.pipelines.diffusion.checkpoints.file_diagnosis import diagnose_file
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile

_CHUNK_BYTES = 8 * 2**20


def copy_from_directory(
    source: Path, target: Path | None = None, *, tiny: bool = False, progress: DownloadObserver | None = None
) -> DownloadResult:
    """Copy the set in the folder `source`, or in its `pretrained_weights/`, to `target`. No hub is asked.

    Where both are on one file system the files are linked, which takes neither time nor space. A file with its
    final name is always a whole copy. Before any is copied, all are checked to be files of weights, and those with
    the size of a published file whose hash is known must have that hash.

    The source is complete when it holds every published file, or when its files can be loaded, since small and
    converted sets have fewer.

    Raises `MissingWeightsError` when a file is missing in the source, `WeightsError` when one is damaged or holds
    no weights, and `InputError` when the source is no folder or cannot be read, or when a file in the target would
    be used instead of those that are copied;
    `DiskFullError`, or `DownloadError` when the target cannot be written or the source cannot be read;
    `PipelineUnavailableError` without the libraries.
    """
    target, files = target or layout.default_weights_dir(), files_of_set(tiny=tiny)
    source = layout.resolve_weights_dir(expand_user(source))
    found = _find_source_files(source, files)
    names = _list_names(source, found.values())
    _check_no_conflicts(source, target, files)
    new = tuple(name for name in names if not _link(source / name, target / name))
    size = sum((source / name).stat().st_size for name in new)
    tally = ProgressTracker(progress, all_size=size)
    if new:
        tally.note(layout.LICENCES)
        _check_published(source, found, tally)
    with lock_folder(target, tally) as staging:
        if source.stat().st_dev != target.stat().st_dev:
            check_free_space(target, size)
        if new:
            tally.note(f"taking {len(new)} files ({format_bytes(size)}) from {source}")
        for name in new:
            _take_file(source / name, target / name, staging, name, tally)
    kept = tuple(name for name in names if name not in new)
    return DownloadResult(target, new, kept, size, asked=False, checked=False)


def _find_source_files(source: Path, files: tuple[PublishedFile, ...]) -> dict[PublishedFile, Path]:
    """Return the files that the source has and their paths. Raises `copy_from_directory`'s errors on the source."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: --from takes the one that holds the weights.")
    every = {file: file.find_in(source) for file in files}
    found = {file: path for file, path in every.items() if path is not None}
    for path in found.values():
        for part in _expand_shards(path):
            _check_usable(part)
    missing = [file for file in files if file not in found]
    if missing and (any(file.optional for file in missing) or not _is_loadable(source, missing)):
        # Fallback files may be missing only because others are, so they are named only if no others are.
        named = [file for file in missing if not file.fallback] or missing
        listed = ", ".join(str(file.folder / " or ".join(file.names)) for file in named)
        raise MissingWeightsError(
            f"{source} is no complete set of weights; missing: {listed}. "
            "Without --from they are fetched from the hub."
        )
    return found


def _list_names(source: Path, found: Collection[Path]) -> tuple[str, ...]:
    """Return the files to copy, relative to the source: those found, their shards, and `model.json`."""
    paths = [path for each in found for path in _expand_shards(each)]
    if (source / layout.MODEL_CONFIG).is_file():
        paths.append(source / layout.MODEL_CONFIG)
    return tuple(path.relative_to(source).as_posix() for path in paths)


def _expand_shards(path: Path) -> tuple[Path, ...]:
    if not path.name.endswith(layout.INDEX_SUFFIX):
        return (path,)
    try:
        from personalive.pipelines.diffusion.checkpoints.shards import resolve_shards
    except ImportError:
        raise missing_library_error("torch") from None
    return (path, *resolve_shards(path))


def _check_usable(path: Path) -> None:
    """Raise `WeightsError` for a file that cannot be loaded, `InputError` for one that cannot be read."""
    try:
        wrong = diagnose_file(path)
    except FileNotFoundError:
        raise MissingWeightsError(f"{path} is not there, but its index names it. Fetch it too.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): make it readable for this user."
        ) from error
    if wrong is not None:
        raise WeightsError(wrong)


def _check_published(source: Path, found: Mapping[PublishedFile, Path], tracker: ProgressTracker) -> None:
    """Raise `WeightsError` for a file that has the size of the published one whose hash is known, but not its hash.

    Sets with a `model.json`, which includes converted ones, are not published, so they are not checked.
    """
    if (source / layout.MODEL_CONFIG).is_file():
        return
    for file, path in found.items():
        known, size = file.known_digest(path.name), path.stat().st_size
        if known is None:
            continue
        if size != known.size:
            tracker.note(f"{path} is not the published file (by its size), and is taken as it is")
            continue
        tracker.begin("checking", path.relative_to(source).as_posix(), size)
        digest = Digest("sha256", known.sha256)
        if not digest.matches(path, lambda count: tracker.advance(count, in_all=False)):
            raise WeightsError(
                f"{path} is damaged: it is as large as the published file, but its hash is another. Fetch it again."
            )


def _is_loadable(source: Path, missing: Collection[PublishedFile]) -> bool:
    """Return whether the loader finds everything that it needs; False without the libraries to try it.

    Where only the base UNet is missing, the loader's error is raised, as it best explains what is wrong.
    """
    try:
        from personalive.pipelines.diffusion.checkpoints.loader import prepare_networks

        prepare_networks(source)
    except ImportError:
        return False
    except WeightsError:
        if all(file.fallback for file in missing):
            raise
        return False
    return True


def _check_no_conflicts(source: Path, target: Path, files: tuple[PublishedFile, ...]) -> None:
    """Raise `InputError` for a file in the target that would be used besides or instead of the copied ones.

    A .safetensors file would be loaded instead of a .pth file that is copied beside it. A file that the source does
    not have would be loaded too, such as a temporal module beside a converted denoising UNet.
    """
    for file in files:
        coming, there = file.find_in(source), file.find_in(target)
        if coming and there and file.names.index(there.name) < file.names.index(coming.name):
            raise InputError(f"{there} would be used instead of {coming}: move it away first.")
        if there and not coming:
            raise InputError(f"{there} would be used with what is in {source}: move it away first.")
    if (target / layout.MODEL_CONFIG).is_file() and not (source / layout.MODEL_CONFIG).is_file():
        raise InputError(f"{target / layout.MODEL_CONFIG} would be used with {source}: move it away first.")


def _link(source: Path, target: Path) -> bool:
    return target.is_file() and target.samefile(source)


def _take_file(source: Path, target: Path, staging: Path, name: str, tracker: ProgressTracker) -> None:
    """Link or copy one file under a hidden name, then rename it."""
    source = source.resolve()  # the hub's cache holds links to files elsewhere
    size = source.stat().st_size
    tracker.begin("copying", name, size)
    part = staging / name.replace("/", "-")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
        tracker.advance(size)
    except OSError:  # another file system, or one without links
        _copy(source, part, tracker)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(part, target)


def _copy(source: Path, part: Path, tracker: ProgressTracker) -> None:
    with source.open("rb") as reader, part.open("wb") as writer:
        while piece := reader.read(_CHUNK_BYTES):
            writer.write(piece)
            tracker.advance(len(piece))
        writer.flush()
        os.fsync(writer.fileno())
