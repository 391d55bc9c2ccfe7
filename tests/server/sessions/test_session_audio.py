"""A session's sound on an event loop: what is taken, what goes out, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from fractions import Fraction

import av
import numpy as np
import pytest

from personalive.server.sessions.audio_delay import BLOCK_SAMPLES
from personalive.server.sessions.playout_buffer import PictureLag
from personalive.server.sessions.session_audio import SentAudio, SessionAudio


def run(act: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 30))


def block(
    index: int, rate: int = 48_000, layout: str = "stereo", samples: int | None = None
) -> av.AudioFrame:
    """A fiftieth of a second of a tone, or `samples` of it."""
    count = rate // 50 if samples is None else samples
    places = np.arange(index * count, (index + 1) * count)
    tone = (8000 * np.sin(2 * np.pi * 200 * places / rate)).astype(np.int16)
    channels = av.AudioLayout(layout).nb_channels
    frame = av.AudioFrame.from_ndarray(np.repeat(tone, channels)[None], format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, index * count, Fraction(1, rate)
    return frame


async def play(audio: SessionAudio, blocks: int, **kind: object) -> None:
    """Put sound in as it would arrive, with a picture beside it."""
    begin = time.monotonic()
    for index in range(blocks):
        await asyncio.sleep(begin + index / 50 - time.monotonic())
        audio.note_frame(index / 50, None, begin + index / 50)
        audio.put(block(index, **kind))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate", "layout"), [(48_000, "stereo"), (44_100, "mono"), (8_000, "mono"), (16_000, "5.1")]
)
def test_sound_of_any_rate_goes_out_whole(rate: int, layout: str) -> None:
    async def act() -> None:
        begin = time.monotonic()
        audio = SessionAudio(lambda now: PictureLag(begin + 0.1, 0.1))
        sent: list[SentAudio] = []
        audio.add_listener(sent.append)
        audio.set_enabled(True)
        await play(audio, 60, rate=rate, layout=layout)
        audio.close()
        assert [one.position for one in sent] == [BLOCK_SAMPLES * index for index in range(len(sent))]
        loud = [index for index, one in enumerate(sent) if np.abs(one.samples).max() > 4000]
        assert len(loud) > 20
        assert loud == list(range(loud[0], loud[-1] + 1))
        # The picture's time of the same moment is later by what the pipeline trails.
        last = sent[-1]
        assert last.due_at - last.time == pytest.approx(begin + 0.1, abs=0.05)

    run(act)


def test_it_is_off_and_silent_where_it_should_be() -> None:
    async def act() -> None:
        begin = time.monotonic()
        lags: list[PictureLag | None] = [None]
        audio = SessionAudio(lambda now: lags[0])
        sent: list[SentAudio] = []
        unsubscribe = audio.add_listener(sent.append)
        await play(audio, 5)
        audio.set_enabled(True)
        await play(audio, 10)
        assert sent == []  # no picture is shown yet
        assert audio.stats() is None
        lags[0] = PictureLag(begin + 0.05, 0.0)
        audio.paused = True
        await play(audio, 20)
        assert len(sent) > 5
        assert not any(one.samples.any() for one in sent)
        audio.paused = False
        audio.set_enabled(False)
        count = len(sent)
        await play(audio, 5)
        assert (len(sent), audio.enabled, audio.stats()) == (count, False, None)
        audio.set_enabled(True)
        unsubscribe()
        unsubscribe()
        await play(audio, 5)
        assert len(sent) == count
        assert audio.stats() is not None
        audio.close()

    run(act)


@pytest.mark.parametrize(
    ("rate", "layout", "samples"), [(4_000, "mono", 80), (384_000, "mono", 960), (8_000, "mono", 9_000)]
)
def test_sound_that_no_source_sends_is_left_out(rate: int, layout: str, samples: int) -> None:
    async def act() -> None:
        audio = SessionAudio(lambda now: None)
        audio.set_enabled(True)
        await play(audio, 3, rate=rate, layout=layout, samples=samples)
        assert audio.dropped == 3
        audio.close()

    run(act)


def test_a_source_may_change_its_format() -> None:
    async def act() -> None:
        begin = time.monotonic()
        audio = SessionAudio(lambda now: PictureLag(begin, 0.0))
        audio.set_enabled(True)
        for rate, layout in ((8_000, "mono"), (16_000, "stereo"), (48_000, "stereo"), (8_000, "mono")):
            await play(audio, 3, rate=rate, layout=layout)
        assert audio.dropped == 0
        audio.close()

    run(act)


@pytest.mark.parametrize(("lag", "late"), [(0.4, False), (0.03, True)])
def test_blocks_come_before_they_are_due_where_that_is_asked_for(lag: float, late: bool) -> None:
    """Where the picture is too early for that, sound is later than it, and says by how much."""

    async def act() -> None:
        begin = time.monotonic()
        audio = SessionAudio(lambda now: PictureLag(begin + lag, 0.0))
        audio.lead = 0.15
        ahead: list[float] = []
        loud: list[bool] = []

        def take(one: SentAudio) -> None:
            ahead.append(one.due_at - time.monotonic())
            loud.append(bool(np.abs(one.samples).max() > 4000))

        audio.add_listener(take)
        audio.set_enabled(True)
        await play(audio, 60)
        assert audio.offset == pytest.approx(0.15 + 0.02 - lag if late else 0.0, abs=0.06)
        audio.close()
        assert audio.offset == 0
        assert float(np.median(ahead)) == pytest.approx(0.15, abs=0.05)
        assert sum(loud) > 15

    run(act)
