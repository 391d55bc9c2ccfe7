from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from personalive.live.live_sound import LiveSound
from personalive.server.sessions.audio_delay import BLOCK_SAMPLES
from personalive.server.sessions.session_audio import SentAudio


def block(position: int = 0) -> SentAudio:
    return SentAudio(np.full((BLOCK_SAMPLES, 2), 10_000, np.int16), 0.0, position, 0.0)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_muted_blocks_are_silent_and_nothing_clicks(muted: list[bool]) -> None:
    got: list[SentAudio] = []
    sound = LiveSound(lambda: None)
    sound.listeners = (got.append,)
    for number, value in enumerate(muted):
        sound.muted = value
        sound.put(block(number * BLOCK_SAMPLES))
    samples = np.concatenate([one.samples[:, 0] for one in got]).astype(int)
    assert np.abs(np.diff(samples)).max() < 100
    assert (samples[-1] == 0) == muted[-1]
    assert [one.position for one in got] == [number * BLOCK_SAMPLES for number in range(len(muted))]
    for before, now, one in zip(muted, muted[1:], got[1:], strict=False):
        if before and now:
            assert not one.samples.any()


def test_only_a_lead_that_changes_is_told() -> None:
    told: list[float] = []
    sound = LiveSound(lambda: told.append(sound.lead))
    for lead in (0.05, 0.05, 0.2):
        sound.set_lead(lead)
    assert told == [0.05, 0.2]
