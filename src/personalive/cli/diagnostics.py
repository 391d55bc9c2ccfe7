"""The doctor's checks: each checks one aspect of this machine, and leaves nothing behind.

Each check imports what it needs: a library that cannot be imported is a result like any other.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
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


def _run_check(check: Callable[[], list[CheckResult]]) -> list[CheckResult]:
    try:
        return check()
    except Exception as error:  # a broken check must not end the doctor
        name = check.__name__.strip("_").replace("_", " ")
        remedy = import_remedy(error) if isinstance(error, ImportError) else None
        return [CheckResult(name, False, f"{type(error).__name__}: {error}", remedy, check is not _check_gpu)]


def _check_python() -> list[CheckResult]:
    ok = sys.version_info >= (3, 11)
    return [
        CheckResult("personalive", None, personalive.__version__),
        CheckResult(
            "Python", ok, platform.python_version(), None if ok else "Install Python 3.11 or newer.", True
        ),
    ]


def _check_machine() -> list[CheckResult]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = [
        CheckResult("system", None, f"{platform.system()} {platform.release()} {platform.machine()}"),
        CheckResult("CPU cores", None, f"{cores} usable of {os.cpu_count()}"),
    ]
    if hasattr(os, "sysconf"):
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        facts.append(CheckResult("memory", None, f"{page * pages / _GIB:.1f} GiB"))
    return facts


def _check_gpu() -> list[CheckResult]:
    from personalive.cli.gpu_checks import check_gpus
    from personalive.cli.gpu_info import inspect_gpu_environment

    return check_gpus(inspect_gpu_environment())


def _check_codecs() -> list[CheckResult]:
    import av

    found = [CheckResult("PyAV", None, av.__version__)]
    remedy = pip_command("--force-reinstall", "--only-binary=:all:", "av")
    for name, encoder, required in _ENCODERS:
        try:
            av.CodecContext.create(encoder, "w")
        except (ValueError, OSError):
            found.append(CheckResult(name, False, f"the encoder {encoder} is missing", remedy, required))
        else:
            found.append(CheckResult(name, True, encoder, required=required))
    return found


def _check_face_model() -> list[CheckResult]:
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
        return [CheckResult("face landmark model", False, str(error), required=True)]
    remedy = pip_command("--force-reinstall", "ai-edge-litert")
    if face is None:
        return [CheckResult("face landmark model", False, "misses the test picture's face", remedy, True)]
    away = float(np.linalg.norm(face.landmarks[:468, :2] - places, axis=1).mean() / np.ptp(places[:, 1]))
    if away > _FACE_TOLERANCE:
        return [
            CheckResult("face landmark model", False, f"landmarks are {100 * away:.0f} % off", remedy, True)
        ]
    return [
        CheckResult(
            "face landmark model", True, f"verified; finds a test face in {taken:.0f} ms", required=True
        )
    ]


def _check_pipelines() -> list[CheckResult]:
    from personalive.pipelines import registry

    checks = []
    for name in registry.pipeline_names():
        try:
            pipeline = registry.get_pipeline(name)
            state = pipeline.availability()
            checks.append(CheckResult(f"pipeline {name}", state.ready, state.reason, state.remedy))
        except Exception as error:  # other packages may raise anything on import
            checks.append(CheckResult(f"pipeline {name}", False, str(error)))
    try:
        choice = registry.choose_pipeline()
    except PersonaLiveError as error:
        return [*checks, CheckResult("chosen by default", False, str(error), required=True)]
    return [
        *checks,
        CheckResult("chosen by default", True, f"{choice.pipeline.info.id}: {choice.reason}", required=True),
    ]


def _check_server() -> list[CheckResult]:
    from personalive.cli.serve import SERVER_PACKAGES

    missing = [name for name in SERVER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return [
            CheckResult(
                "server", None, f"not installed: {', '.join(missing)}", f"Run: {install_command('server')}"
            )
        ]
    found = (f"{name} {version(name)}" for name in ("aiortc", "fastapi", "uvicorn"))
    return [CheckResult("server", True, ", ".join(found))]


def _check_disk() -> list[CheckResult]:
    free = []
    for name, folder in (
        ("disk, working folder", Path.cwd()),
        ("disk, temporary", Path(tempfile.gettempdir())),
    ):
        space = shutil.disk_usage(folder).free
        enough = space > _GIB
        remedy = None if enough else f"Make room: less than 1 GiB is free at {folder}."
        free.append(CheckResult(name, enough, f"{space / _GIB:.1f} GiB free at {folder}", remedy))
    return free


def _check_cache() -> list[CheckResult]:
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    remedy = None if ok else "Set PERSONALIVE_HOME to a folder you may write to."
    return [CheckResult("cache folder", ok, f"{folder} ({'writable' if ok else 'not writable'})", remedy)]
