"""The folder that keeps compiled code between starts: one per GPU, driver and version, for its owner only.

The code in it is run without a check, so it must be as trustworthy as the program. A folder that other users may
read or write is refused.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path

import torch

from personalive.errors import InputError
from personalive.paths import is_private_dir

_log = logging.getLogger(__name__)

CACHE_FOLDER = "compiled"
_CACHE_VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}


def machine_key(device: torch.device) -> str:
    """Return a folder name for what compiled code depends on: device, driver, PyTorch, CUDA and Python."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts = [properties.name, f"{properties.major}.{properties.minor}", str(_read_driver_version())]
    else:
        facts = [device.type, platform.machine(), platform.processor()]
    facts += [torch.__version__, str(torch.version.cuda), platform.python_version()]
    readable = "".join(letter if letter.isalnum() else "-" for letter in facts[0]).strip("-").lower()
    return f"{readable}-{hashlib.sha256('/'.join(facts).encode()).hexdigest()[:12]}"


def enable_compile_cache(home: Path, device: torch.device) -> Path:
    """Have PyTorch and Triton keep what they compile in a folder of `home`, and return it.

    Folders that the environment names already take precedence. Raises `InputError` where the folder cannot be made
    or others may access it.
    """
    folder = home / CACHE_FOLDER / machine_key(device)
    try:
        for step in (home / CACHE_FOLDER, folder):
            step.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(step)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made for compiled code ({error.strerror or error}): set PERSONALIVE_HOME to a "
            "folder you may write to, or load with compile=off."
        ) from error
    for variable, name in _CACHE_VARIABLES.items():
        os.environ.setdefault(variable, str(folder / name))
    return folder


def enable_kernel_cache(home: Path, device: torch.device) -> Path | None:
    """Do the same for kernels only; where they cannot be kept safely, log a warning, as compiling them is quick."""
    try:
        return enable_compile_cache(home, device)
    except InputError as error:
        _log.warning("compiled kernels are not kept for the next start: %s", error)
        return None


def _check_private(folder: Path) -> None:
    if not is_private_dir(folder, forbidden_mode=0o077):
        raise InputError(
            f"{folder} holds code that is run, and is not yours alone: make it a folder of your own with "
            "permissions 700, or remove it."
        )


def _read_driver_version() -> str:
    """Return the driver's version as its kernel module reports it; empty where it does not."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return ""
    return " ".join(first.split())
