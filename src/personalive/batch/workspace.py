"""A worker's scratch folder on its machine, and the bounded cache in it of inputs from stores."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalive.batch import storage
from personalive.errors import MediaError
from personalive.file_names import make_portable
from personalive.file_replace import replace_file
from personalive.locking import ProcessLock
from personalive.media.output import translate_write_errors
from personalive.paths import is_owned_by_other_user, user_tag

_LOCK = "lock"


class Workspace:
    """A folder that exists during a `with` block. Entering it removes what killed workers left on this machine."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path(tempfile.gettempdir()) / f"personalive-batch-{user_tag()}"
        self._lock: ProcessLock | None = None
        self.path = self._root

    def __enter__(self) -> Workspace:
        with translate_write_errors(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if is_owned_by_other_user(self._root):
                raise MediaError(f"{self._root} belongs to another user: set TMPDIR to another folder.")
            self._remove_stale()
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=self._root))
            self._lock = ProcessLock(self.path / _LOCK)
            self._lock.acquire(blocking=True)
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        # Windows does not remove locked files: the lock file and its folder are left until it is released.
        shutil.rmtree(self.path, ignore_errors=True)

    def _remove_stale(self) -> None:
        for folder in self._root.glob("worker-*"):
            if not (folder / _LOCK).exists():  # another worker is cleaning up, or starting
                continue
            lock = ProcessLock(folder / _LOCK)
            with contextlib.suppress(OSError):
                if lock.acquire():
                    shutil.rmtree(folder, ignore_errors=True)
                    lock.release()
                    shutil.rmtree(folder, ignore_errors=True)  # with the lock file, now that it is released

    def make_folder(self, *names: str) -> Path:
        """Return a folder within this one, created if it does not exist."""
        path = self.path.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path


class InputCache:
    """Copies of files from stores, the least recently used removed when they pass `max_bytes` in all.

    Jobs on several threads may use it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._in_use: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}
        """Size of each copy in bytes, the least recently used first."""

    @contextmanager
    def open_local(self, uri: str) -> Iterator[Path]:
        """Yield a local path of the file, which is kept during the block; a local URI is its own path.

        Raises `MediaError` where there is no such file, `RemoteStorageError` where its store does not answer.
        """
        if not storage.is_remote(uri):
            yield Path(uri)
            return
        with self._lock:
            path = self._download(uri)
            self._in_use[path] = self._in_use.get(path, 0) + 1
        try:
            yield path
        finally:
            with self._lock:
                self._in_use[path] -= 1
                self._evict()

    def _download(self, place: str) -> Path:
        stamp = storage.read_version(place)
        if stamp is None:
            raise MediaError(f"{place} cannot be read: no such file.")
        key = hashlib.sha256(f"{place}\n{stamp.size}\n{stamp.version}".encode()).hexdigest()[:24]
        # The copy keeps the file's name: its suffix is its type, and messages name it.
        path = self._folder / key / make_portable(storage.file_name(place))
        if path not in self._sizes:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(".partial")
            storage.download(place, partial)
            replace_file(partial, path)
        self._sizes[path] = self._sizes.pop(path, path.stat().st_size)
        return path

    def _evict(self) -> None:
        total = sum(self._sizes.values())
        for path in list(self._sizes):
            if total <= self._max_bytes:
                return
            if not self._in_use.get(path):
                total -= self._sizes.pop(path)
                shutil.rmtree(path.parent, ignore_errors=True)
