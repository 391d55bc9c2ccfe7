"""The microphones and speakers of this machine, by SoundCard: PulseAudio or PipeWire, CoreAudio, WASAPI."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from personalive.errors import InputError
from personalive.installation import install_command
from personalive.live.device_names import match_name

DEFAULT = "default"
"""Stands for the device that the system uses where none is named."""


class AudioDeviceError(InputError):
    """A microphone or speaker that cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class AudioDevice:
    """A microphone or a speaker. `handle` is SoundCard's object for it, `id` what the system calls it."""

    id: str
    name: str
    handle: Any


def connect_to_sound() -> None:
    """Connect to the system's sound; call it on the main thread first, whose connection outlives all others.

    On Windows, a thread's connection to it ends with the thread. Raises `AudioDeviceError`.
    """
    _load_soundcard()


def list_microphones() -> list[AudioDevice]:
    """Return the microphones. Raises `AudioDeviceError` where sound devices cannot be reached."""
    return _describe(_load_soundcard().all_microphones())


def list_speakers() -> list[AudioDevice]:
    """Return the speakers, virtual ones too. Raises `AudioDeviceError` where sound devices cannot be reached."""
    return _describe(_load_soundcard().all_speakers())


def find_microphone(wanted: str) -> AudioDevice:
    """Return the microphone that a name or its part stands for, or `DEFAULT`.

    What a speaker plays can be recorded too, where the name fits no microphone. Raises `AudioDeviceError`.
    """
    soundcard = _load_soundcard()
    known = list_microphones()
    if wanted == DEFAULT:
        return _find_default(soundcard.default_microphone, known, "microphone")
    with contextlib.suppress(AudioDeviceError):
        return _find(wanted, known, "microphone")
    loopbacks = _describe(soundcard.all_microphones(include_loopback=True))
    exact = [one for one in loopbacks if wanted in {one.id, one.name}]
    return exact[0] if exact else _find(wanted, known, "microphone")


def find_speaker(wanted: str) -> AudioDevice:
    """Return the speaker that a name or its part stands for, or `DEFAULT`. Raises `AudioDeviceError`."""
    known = list_speakers()
    if wanted == DEFAULT:
        return _find_default(_load_soundcard().default_speaker, known, "speaker")
    return _find(wanted, known, "speaker")


def _load_soundcard() -> Any:
    try:
        soundcard = importlib.import_module("soundcard")
    except ModuleNotFoundError as error:
        if error.name != "soundcard":
            raise
        raise AudioDeviceError(
            f"Microphones and speakers need SoundCard, which is not installed. Run: {install_command('live')}"
        ) from None
    except Exception as error:  # it connects to the system's sound when it is imported
        raise AudioDeviceError(_explain_missing_sound(error)) from error
    with contextlib.suppress(Exception):  # only PulseAudio shows it
        soundcard.set_name("PersonaLive")
    if (told := getattr(soundcard, "SoundcardRuntimeWarning", None)) is not None:
        # A gap in what a microphone gave; it would be printed into the status line each time.
        warnings.filterwarnings("ignore", category=told)
    return soundcard


def _explain_missing_sound(error: Exception) -> str:
    if sys.platform.startswith("linux"):
        return (
            "This machine's sound cannot be reached: start PulseAudio or PipeWire (with pipewire-pulse), and on "
            "Debian or Ubuntu install libpulse0."
        )
    return (
        f"This machine's sound cannot be reached ({type(error).__name__}: {error}): is there a sound device?"
    )


def _describe(handles: list[Any]) -> list[AudioDevice]:
    return [AudioDevice(str(one.id), str(one.name), one) for one in handles]


def _find_default(get: Any, known: list[AudioDevice], kind: str) -> AudioDevice:
    try:
        found = _describe([get()])[0]
    except Exception as error:  # each system has errors of its kind where there is none
        raise AudioDeviceError(describe_devices(known, kind)) from error
    if kind == "microphone" and all(one.id != found.id for one in known):
        # PulseAudio takes what a speaker plays for the default where there is no microphone.
        raise AudioDeviceError(describe_devices(known, kind))
    return found


def _find(wanted: str, known: list[AudioDevice], kind: str) -> AudioDevice:
    exact = [one for one in known if wanted in {one.id, one.name}]
    found = match_name(wanted, known, exact, kind, AudioDeviceError)
    if found is not None:
        return found
    raise AudioDeviceError(f"There is no {kind} {wanted!r}. {describe_devices(known, kind)}")


def describe_devices(devices: list[AudioDevice], kind: str) -> str:
    """Return a sentence on which devices of a `kind`, "microphone" or "speaker", there are."""
    if not devices:
        return f"This machine has no {kind} that is seen: connect one. personalive live --list-devices lists them."
    return f"Here there are: {', '.join(one.name for one in devices)}."
