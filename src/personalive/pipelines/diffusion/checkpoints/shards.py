"""Weights in several files, as libraries store large ones, with an index of which file holds which entry."""

from __future__ import annotations

from pathlib import Path, PurePath

from personalive.errors import MissingWeightsError, WeightsError
from personalive.pipelines.diffusion.checkpoints.checkpoint_file import CheckpointFile
from personalive.pipelines.diffusion.checkpoints.layout import INDEX_SUFFIX
from personalive.pipelines.diffusion.checkpoints.model_config import read_json_object


def resolve_shards(path: Path) -> tuple[Path, ...]:
    """Return the files with the weights of `path`: itself, or the files that it lists if it is an index.

    Raises `WeightsError` for an invalid index.
    """
    return tuple(dict.fromkeys(_read_index(path).values())) if path.name.endswith(INDEX_SUFFIX) else (path,)


def open_shards(path: Path) -> list[CheckpointFile]:
    """Open a file, or each of those that an index lists, and check that every entry listed is in its file.

    Raises `WeightsError` as `CheckpointFile.open` does, and for a file that lacks an entry.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return [CheckpointFile.open(path)]
    places = _read_index(path)
    missing = [place for place in resolve_shards(path) if not place.is_file()]
    if missing:
        raise MissingWeightsError(f"{missing[0]} is not there, but {path} names it. Fetch it too.")
    files = {place: CheckpointFile.open(place) for place in resolve_shards(path)}
    for name, place in places.items():
        if name not in files[place].entries:
            raise WeightsError(
                f"{place} has no {name[:100]!r}, which {path} says is in it. Fetch both again."
            )
    return list(files.values())


def _read_index(path: Path) -> dict[str, Path]:
    """Return the file of each entry. Raises `WeightsError` for a file that would not be beside the index."""
    listed = read_json_object(path).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(f"{path} lists no files.")
    for name in listed.values():
        if not isinstance(name, str) or PurePath(name).name != name or not name or not name.isprintable():
            raise WeightsError(f"{path} names {repr(name)[:100]}, which is no file beside it.")
    return {name: path.with_name(place) for name, place in listed.items()}
