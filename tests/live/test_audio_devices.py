from __future__ import annotations

import sys

import pytest

from personalive.live.audio_devices import (
    AudioDeviceError,
    find_microphone,
    find_speaker,
    list_microphones,
    list_speakers,
)
from tests.live.sound_devices import MemoryMicrophone, MemorySpeaker, make_soundcard

MICROPHONES = [MemoryMicrophone("Built-in Microphone"), MemoryMicrophone("USB Headset")]
SPEAKERS = [MemorySpeaker("Built-in Speaker"), MemorySpeaker("CABLE Input"), MemorySpeaker("USB Headset")]


@pytest.fixture(autouse=True)
def soundcard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard(MICROPHONES, SPEAKERS))


def test_devices_are_found_by_name_part_or_as_the_default() -> None:
    assert [one.name for one in list_microphones()] == ["Built-in Microphone", "USB Headset"]
    assert [one.name for one in list_speakers()] == ["Built-in Speaker", "CABLE Input", "USB Headset"]
    assert find_microphone("default").handle is MICROPHONES[0]
    assert find_microphone("headset").handle is MICROPHONES[1]
    assert find_speaker("cable").handle is SPEAKERS[1]
    assert find_speaker("usb-headset").handle is SPEAKERS[2]
    assert find_speaker("default").handle is SPEAKERS[0]


def test_what_a_speaker_plays_is_recorded_only_where_it_is_named_in_full() -> None:
    assert find_microphone("Monitor of CABLE Input").name == "Monitor of CABLE Input"
    with pytest.raises(AudioDeviceError, match="no microphone 'CABLE'"):
        find_microphone("CABLE")


def test_names_that_fit_none_or_several_are_refused() -> None:
    with pytest.raises(
        AudioDeviceError, match=r"no speaker 'HDMI'\. Here there are: Built-in Speaker, CABLE"
    ):
        find_speaker("HDMI")
    with pytest.raises(AudioDeviceError, match="more than one speaker: 'Built-in Speaker', 'CABLE Input'"):
        find_speaker("in")


def test_a_machine_without_a_microphone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """PulseAudio's default is what a speaker plays then: nobody's voice is in it."""
    module = make_soundcard([], SPEAKERS)
    module.default_microphone = lambda: module.all_microphones(include_loopback=True)[0]
    monkeypatch.setitem(sys.modules, "soundcard", module)
    for wanted in ("default", "Headset"):
        with pytest.raises(AudioDeviceError, match="no microphone that is seen: connect one"):
            find_microphone(wanted)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "soundcard", None)
    monkeypatch.setattr("importlib.import_module", _missing)
    with pytest.raises(AudioDeviceError, match=r"SoundCard, which is not installed\. Run: "):
        list_speakers()


def _missing(name: str) -> None:
    raise ModuleNotFoundError(name=name)


def test_sound_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package connects to the system's sound when it is imported, and fails by an assertion without it."""

    def fail(name: str) -> None:
        raise AssertionError

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(AudioDeviceError, match="sound cannot be reached"):
        list_microphones()
