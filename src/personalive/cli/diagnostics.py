"""The doctor's checks: each looks at one thing of this machine, and none leaves anything behind.

Each imports what it looks at itself: a library that cannot be imported is a finding like any other.
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
from personalive.cli.check_result import Check
from personalive.errors import PersonaLiveError
from personalive.installation import import_remedy, install_command, pip_command
from personalive.paths import cache_folder

_ENCODERS = (
    ("H.264 (.mp4, .mov)", "libx264", True),
    ("VP9 (.webm)", "libvpx-vp9", False),
    ("AAC sound", "aac", False),
    ("Opus sound", "libopus", False),
)
_FACE_TOLERANCE = 0.03
_GIB = 2**30


def all_checks() -> list[Check]:
    """Every check, in the order they are shown. One that breaks down is reported as failed."""
    checks: list[Check] = []
    for look in (_python, _machine, _gpu, _codecs, _face_model, _pipelines, _server, _disk, _cache):
        checks += _safely(look)
    return checks


def _safely(look: Callable[[], list[Check]]) -> list[Check]:
    try:
        return look()
    except Exception as error:  # the doctor must not fall ill of what it examines
        name = look.__name__.strip("_").replace("_", " ")
        remedy = import_remedy(error) if isinstance(error, ImportError) else None
        return [Check(name, False, f"{type(error).__name__}: {error}", remedy, look is not _gpu)]


def _python() -> list[Check]:
    ok = sys.version_info >= (3, 11)
    return [
        Check("personalive", None, personalive.__version__),
        Check("Python", ok, platform.python_version(), None if ok else "Install Python 3.11 or newer.", True),
    ]


def _machine() -> list[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = [
        Check("system", None, f"{platform.system()} {platform.release()} {platform.machine()}"),
        Check("CPU cores", None, f"{cores} usable of {os.cpu_count()}"),
    ]
    if hasattr(os, "sysconf"):
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        facts.append(Check("memory", None, f"{page * pages / _GIB:.1f} GiB"))
    return facts


def _gpu() -> list[Check]:
    from personalive.cli.gpu_checks import gpu_checks
    from personalive.cli.gpu_info import gather

    return gpu_checks(gather())


def _codecs() -> list[Check]:
    import av

    found = [Check("PyAV", None, av.__version__)]
    remedy = pip_command("--force-reinstall", "--only-binary=:all:", "av")
    for name, encoder, required in _ENCODERS:
        try:
            av.CodecContext.create(encoder, "w")
        except (ValueError, OSError):
            found.append(Check(name, False, f"the encoder {encoder} is missing", remedy, required))
        else:
            found.append(Check(name, True, encoder, required=required))
    return found


def _face_model() -> list[Check]:
    """Find a drawn face and compare the landmarks with where they were drawn."""
    import numpy as np

    from personalive.face.synthetic_face import drawn_face
    from personalive.face.tracker import FaceDetector

    try:
        with FaceDetector() as detector:
            image, places = drawn_face()
            begun = time.perf_counter()
            face = detector.dominant(image)
            taken = 1000 * (time.perf_counter() - begun)
    except PersonaLiveError as error:
        return [Check("face landmark model", False, str(error), required=True)]
    remedy = pip_command("--force-reinstall", "ai-edge-litert")
    if face is None:
        return [Check("face landmark model", False, "misses the test picture's face", remedy, True)]
    away = float(np.linalg.norm(face.landmarks[:468, :2] - places, axis=1).mean() / np.ptp(places[:, 1]))
    if away > _FACE_TOLERANCE:
        return [Check("face landmark model", False, f"landmarks are {100 * away:.0f} % off", remedy, True)]
    return [
        Check("face landmark model", True, f"verified; finds a test face in {taken:.0f} ms", required=True)
    ]


def _pipelines() -> list[Check]:
    from personalive.pipelines import registry

    checks = []
    for name in registry.names():
        try:
            pipeline = registry.get(name)
            state = pipeline.availability()
            checks.append(Check(f"pipeline {name}", state.ready, state.reason, state.remedy))
        except Exception as error:  # a stranger's package may raise anything on import
            checks.append(Check(f"pipeline {name}", False, str(error)))
    try:
        choice = registry.choose()
    except PersonaLiveError as error:
        return [*checks, Check("chosen by default", False, str(error), required=True)]
    return [
        *checks,
        Check("chosen by default", True, f"{choice.pipeline.info.id}: {choice.why}", required=True),
    ]


def _server() -> list[Check]:
    from personalive.cli.serve import PACKAGES as SERVER_PACKAGES

    missing = [name for name in SERVER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return [
            Check("server", None, f"not installed: {', '.join(missing)}", f"Run: {install_command('server')}")
        ]
    found = (f"{name} {version(name)}" for name in ("aiortc", "fastapi", "uvicorn"))
    return [Check("server", True, ", ".join(found))]


def _disk() -> list[Check]:
    free = []
    for name, folder in (
        ("disk, working folder", Path.cwd()),
        ("disk, temporary", Path(tempfile.gettempdir())),
    ):
        space = shutil.disk_usage(folder).free
        enough = space > _GIB
        remedy = None if enough else f"Make room: less than 1 GiB is free at {folder}."
        free.append(Check(name, enough, f"{space / _GIB:.1f} GiB free at {folder}", remedy))
    return free


def _cache() -> list[Check]:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    remedy = None if ok else "Set PERSONALIVE_HOME to a folder you may write to."
    return [Check("cache folder", ok, f"{folder} ({'writable' if ok else 'not writable'})", remedy)]
