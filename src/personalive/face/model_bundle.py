"""The vendored face landmark model: it is read once, and refused if it is not the file that is shipped.

`data/face_landmarker.task` is Google's MediaPipe Face Landmarker bundle (Apache-2.0, see NOTICE): a zip of a
face detector, a 478-point landmark network, a 52-blendshape network and the canonical face geometry.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib.resources import files

from personalive.errors import PersonaLiveError
from personalive.installation import reinstall_command

MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MODEL_BYTES = 3_758_596


@cache
def read_model_bundle() -> bytes:
    """Return the bundle's bytes, verified. Raises `PersonaLiveError` where the file is missing or altered."""
    try:
        data = files("personalive.face").joinpath("data/face_landmarker.task").read_bytes()
    except OSError as error:
        raise PersonaLiveError(
            f"The face landmark model is missing from this installation. {_suggest_reinstall()}"
        ) from error
    if hashlib.sha256(data).hexdigest() != MODEL_SHA256:
        raise PersonaLiveError(
            f"The face landmark model of this installation is damaged or altered "
            f"({len(data):,} bytes, {MODEL_BYTES:,} expected). {_suggest_reinstall()}"
        )
    return data


def _suggest_reinstall() -> str:
    command = reinstall_command()
    return f"Run: {command}" if command else "Install PersonaLive again from where you got it."


def read_bundle_member(name: str) -> bytes:
    """Return one file of the bundle."""
    with zipfile.ZipFile(io.BytesIO(read_model_bundle())) as bundle:
        return bundle.read(name)
