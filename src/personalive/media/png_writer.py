"""Output as numbered PNG files, which appear all together once the last is written."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from personalive.errors import MediaError
from personalive.file_replace import replace_file
from personalive.media.atomic_writer import VideoWriter
from personalive.media.output import (
    check_parent,
    numbered_files,
    picture_pattern,
    pictures_exist_error,
    translate_write_errors,
)
from personalive.media.partial_files import PartialFileLock, partial_path, remove_stale_partials
from personalive.media.provenance import Provenance, encode_image, read_provenance
from personalive.media.types import Image


def _is_our_file(file: Path) -> bool:
    try:
        return read_provenance(file) is not None
    except MediaError:
        return False


class PngWriter(VideoWriter):
    """A writer of frames of one size to numbered files, from 1 on; see `open_writer`.

    The files are written to a hidden folder and moved at the end. When pictures of an earlier run are overwritten,
    those that the new run did not replace are removed, so that the two runs do not mix.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], provenance: Provenance, overwrite: bool) -> None:
        super().__init__(path, size)
        folder, self._pattern = picture_pattern(path)
        self._folder = folder.resolve()
        self._provenance = provenance
        self._overwrite = overwrite
        check_parent(self._folder)
        # The parent of an existing folder could be another file system, where moving means copying.
        exists = self._folder.is_dir()
        remove_stale_partials(self._folder if exists else self._folder.parent)
        self._partial = partial_path(self._folder / "frames" if exists else self._folder)
        with translate_write_errors(path):
            self._partial.mkdir()
            self._lock = PartialFileLock(self._partial)

    def _add(self, image: Image) -> None:
        encode_image(self._partial / (self._pattern % (self._count + 1)), image, "PNG", self._provenance)

    def _discard(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._lock.release()

    def _complete(self) -> None:
        self._move()
        self._lock.release()

    def _move(self) -> None:
        if not self._folder.exists():
            replace_file(self._partial, self._folder)
            return
        earlier = numbered_files(self._folder, self._pattern)
        if earlier and not self._overwrite:
            raise pictures_exist_error(self._path)
        written = {file.name for file in self._partial.iterdir()}
        for name in sorted(written):
            replace_file(self._partial / name, self._folder / name)
        for file in earlier:
            # A longer run's pictures must not follow this one's; files that this package did not write are kept.
            if file.name not in written and _is_our_file(file):
                with contextlib.suppress(OSError):
                    file.unlink()
        shutil.rmtree(self._partial, ignore_errors=True)
