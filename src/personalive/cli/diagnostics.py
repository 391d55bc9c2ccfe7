"""The doctor's checks: each checks one aspect of this machine, and leaves nothing behind.

Each check imports what it needs: a library that cannot be imported is a result like any other.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import personalive
from personalive.cli.check_result import CheckResult
from personalive.errors import PersonaLiveError
from personalive.installation import import_remedy, install_command, pip_command
from personalive.paths import cache_dir

_ENCODERS = (
    ("H.264 (.mp4, .mov)", "libx264", True),
    ("VP9 (.webm)", "libvpx-vp9", False),
    ("AAC sound", "aac", False),
    ("Opus sound", "libopus", False),
)
_FACE_TOLERANCE = 0.03
_GIB = 2**30


def run_all_checks() -> list[CheckResult]:
    """Run every check, in the order of display. A check that raises an exception is reported as failed."""
    checks: list[CheckResult] = []
    for look in (
        _check_python,
        _check_machine,
        _check_gpu,
        _check_codecs,
        _check_face_model,
        _check_pipelines,
        _check_server,
        _check_disk,
        _check_cache,
    ):
        checks += _run_check(look)
    return checks


def _run_check(check: Callable[[], Iterable[CheckResult]]) -> list[CheckResult]:
    try:
        return list(check())
    except Exception as error:  # a broken check must not end the doctor
        name = check.__name__.strip("_").replace("_", " ")
        remedy = import_remedy(error) if isinstance(error, ImportError) else None
        return [CheckResult(name, False, f"{type(error).__name__}: {error}", remedy, check is not _check_gpu)]


def _check_python() -> Iterator[CheckResult]:
    ok = sys.version_info >= (3, 11)
    yield CheckResult("personalive", None, personalive.__version__)
    remedy = None if ok else "Install Python 3.11 or newer."
    yield CheckResult("Python", ok, platform.python_version(), remedy, True)


def _check_machine() -> Iterator[CheckResult]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield CheckResult("system", None, f"{platform.system()} {platform.release()} {platform.machine()}")
    yield CheckResult("CPU cores", None, f"{cores} usable of {os.cpu_count()}")
    if hasattr(os, "sysconf"):
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        yield CheckResult("memory", None, f"{page * pages / _GIB:.1f} GiB")


def _check_gpu() -> Iterator[CheckResult]:
    from personalive.cli.gpu_checks import check_gpus
    from personalive.cli.gpu_info import inspect_gpu_environment

    yield from check_gpus(inspect_gpu_environment())


def _check_codecs() -> Iterator[CheckResult]:
    import av

    yield CheckResult("PyAV", None, av.__version__)
    remedy = pip_command("--force-reinstall", "--only-binary=:all:", "av")
    for name, encoder, required in _ENCODERS:
        try:
            av.CodecContext.create(encoder, "w")
        except (ValueError, OSError):
            yield CheckResult(name, False, f"the encoder {encoder} is missing", remedy, required)
        else:
            yield CheckResult(name, True, encoder, required=required)


def _check_face_model() -> Iterator[CheckResult]:
    """Detect a synthetic face and compare the landmarks with their true positions."""
    import numpy as np

    from personalive.face.synthetic_face import render_synthetic_face
    from personalive.face.tracker import FaceDetector

    try:
        with FaceDetector() as detector:
            image, places = render_synthetic_face()
            begun = time.perf_counter()
            face = detector.detect_dominant(image)
            taken = 1000 * (time.perf_counter() - begun)
    except PersonaLiveError as error:
        yield CheckResult("face landmark model", False, str(error), required=True)
        return
    remedy = pip_command("--force-reinstall", "ai-edge-litert")
    problem = "misses the test picture's face" if face is None else ""
    if face is not None:
        away = np.linalg.norm(face.landmarks[:468, :2] - places, axis=1).mean() / np.ptp(places[:, 1])
        problem = f"landmarks are {100 * away:.0f} % off" if away > _FACE_TOLERANCE else ""
    detail = problem or f"verified; finds a test face in {taken:.0f} ms"
    yield CheckResult("face landmark model", not problem, detail, remedy if problem else None, True)


def _check_pipelines() -> Iterator[CheckResult]:
    from personalive.pipelines import registry

    for name in registry.pipeline_names():
        try:
            pipeline = registry.get_pipeline(name)
            state = pipeline.availability()
            yield CheckResult(f"pipeline {name}", state.ready, state.reason, state.remedy)
        except Exception as error:  # other packages may raise anything on import
            yield CheckResult(f"pipeline {name}", False, str(error))
    try:
        choice = registry.choose_pipeline()
    except PersonaLiveError as error:
        yield CheckResult("chosen by default", False, str(error), required=True)
    else:
        chosen = f"{choice.pipeline.info.id}: {choice.reason}"
        yield CheckResult("chosen by default", True, chosen, required=True)


def _check_server() -> Iterator[CheckResult]:
    from personalive.cli.serve import missing_server_packages

    if missing := missing_server_packages():
        remedy = f"Run: {install_command('server')}"
        yield CheckResult("server", None, f"not installed: {', '.join(missing)}", remedy)
    else:
        found = (f"{name} {version(name)}" for name in ("aiortc", "fastapi", "uvicorn"))
        yield CheckResult("server", True, ", ".join(found))


def _check_disk() -> Iterator[CheckResult]:
    for name, folder in (
        ("disk, working folder", Path.cwd()),
        ("disk, temporary", Path(tempfile.gettempdir())),
    ):
        space = shutil.disk_usage(folder).free
        enough = space > _GIB
        remedy = None if enough else f"Make room: less than 1 GiB is free at {folder}."
        yield CheckResult(name, enough, f"{space / _GIB:.1f} GiB free at {folder}", remedy)


def _check_cache() -> Iterator[CheckResult]:
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    remedy = None if ok else "Set PERSONALIVE_HOME to a folder you may write to."
    yield CheckResult("cache folder", ok, f"{folder} ({'writable' if ok else 'not writable'})", remedy)
