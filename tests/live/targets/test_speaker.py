"""A speaker whose clock is wrong: what was due at a time is heard then, minutes later too. And one that is lost."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.live.audio_devices import AudioDeviceError
from personalive.live.targets.speaker import Speaker, SpeakerFeed
from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, SAMPLE_RATE
from personalive.server.sessions.session_audio import SentAudio
from tests.live.sound_devices import MemorySpeaker, make_soundcard
from tests.live.targets.events import Events


@given(
    drift=st.floats(-2e-3, 2e-3),
    latency=st.floats(0.01, 0.2),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=3, deadline=None)
def test_sound_is_heard_when_it_is_due_though_the_device_has_another_clock(
    drift: float, latency: float, seed: int
) -> None:
    """Half a minute on a clock of the test; at 2000 ppm, sound would be 60 ms off without a correction."""
    noise = np.random.default_rng(seed)
    feed, lead = SpeakerFeed(), latency + 0.05
    now, sent, position, clicks, heard = 0.0, 0, 0, list[float](), list[float]()
    rate = SAMPLE_RATE * (1 + drift)
    while now < 30:
        now = position / rate  # the device takes a block as soon as it has played one
        while sent * BLOCK_SAMPLES / SAMPLE_RATE <= now:
            samples = np.zeros((BLOCK_SAMPLES, 2), np.int16)
            due = sent * BLOCK_SAMPLES / SAMPLE_RATE + lead
            if sent % 50 == 0:
                samples[:] = 16000
                clicks.append(due)
            feed.put(SentAudio(samples, due, sent * BLOCK_SAMPLES, due))
            sent += 1
        feed.observe(now + latency + float(noise.uniform(-0.005, 0.005)))
        block = feed.read()
        loud = np.abs(block[:, 0].astype(int)) > 8000
        at = now + latency + float(loud.argmax()) / rate
        if loud.any() and (not heard or at - heard[-1] > 0.5):
            heard.append(at)
        position += len(block)
    late = [min((at - due for at in heard), key=abs) for due in clicks[2:-2]]
    assert len(late) > 20
    assert max(map(abs, late)) < 0.02


def test_a_speaker_that_is_lost_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personalive.live.targets.speaker._RETRY_S", 0.1)
    device, events = MemorySpeaker(limit=5), Events()
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([], [device]))

    async def act() -> None:
        speaker = Speaker(events, "Memory Cable", lambda lead: None)
        await speaker.open()
        async with asyncio.timeout(20):
            while len(events.notices) < 2:
                await asyncio.sleep(0.01)
            device.limit = None
            while len(device.heard) < 20:
                await asyncio.sleep(0.01)
        await speaker.close()

    asyncio.run(act())
    assert events.notices[0] == "The sound is played on Memory Cable."
    assert events.notices[1].endswith("Trying again.")
    assert events.notices[-1] == "The speaker Memory Cable is back."
    assert events.ended == []


def test_a_speaker_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([], [MemorySpeaker()]))

    async def act() -> None:
        speaker = Speaker(Events(), "BlackHole", lambda lead: None)
        with pytest.raises(AudioDeviceError, match="no speaker 'BlackHole'"):
            await speaker.open()
        await speaker.close()

    asyncio.run(act())
