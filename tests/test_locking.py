from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from personalive.locking import ProcessLock


def test_one_at_a_time(tmp_path: Path) -> None:
    first, second = ProcessLock(tmp_path / "lock"), ProcessLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_another_thread_may_release_it(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "lock")
    assert lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    other = ProcessLock(tmp_path / "lock")
    assert other.acquire()
    other.release()


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from personalive.locking import ProcessLock\n"
        "lock = ProcessLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); time.sleep(60)\n"
    )
    lock = ProcessLock(tmp_path / "lock")
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not lock.acquire()
        process.kill()
    assert lock.acquire()
    lock.release()


def test_where_no_file_can_be_made_the_system_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        ProcessLock(tmp_path / "file" / "lock").acquire()
