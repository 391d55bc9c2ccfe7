from __future__ import annotations

from personalive.pipelines.interface import FrameChunk
from personalive.pipelines.personalive.foresight import Foresight
from personalive.pipelines.personalive.parameters import PersonaLiveLoadParameters
from personalive.pipelines.personalive.pipeline import PersonaLivePipeline
from personalive.pipelines.personalive.reference import FusedReference
from personalive.pipelines.personalive.watch import Watch
from tests.pipelines.personalive.streams import SIDE, chunk, content


class Counting(Watch):
    """Notes the first time of each chunk it looks at."""

    def __init__(self) -> None:
        super().__init__((SIDE, SIDE), detect=False)
        self.looked: list[float] = []

    def look(self, chunk: FrameChunk):  # type: ignore[no-untyped-def]
        self.looked.append(float(chunk.times[0]))
        return super().look(chunk)


def test_what_was_prepared_is_not_looked_at_again() -> None:
    watch, parts = Counting(), [chunk(1, index) for index in range(3)]
    ahead = Foresight(watch)
    ahead.prepare(parts[0])
    ahead.prepare(parts[1])
    frames, found = ahead.look(parts[0])
    assert frames.shape == (4, SIDE, SIDE, 3)
    assert found == (True,) * 4
    ahead.look(parts[1])
    ahead.look(parts[2])
    assert watch.looked == [float(part.times[0]) for part in parts]


def test_another_chunk_than_prepared_is_looked_at() -> None:
    watch = Counting()
    ahead = Foresight(watch)
    ahead.prepare(chunk(1, 0))
    ahead.look(chunk(1, 0))
    assert len(watch.looked) == 2


def test_after_a_pause_or_a_reset_nothing_prepared_counts() -> None:
    watch, part = Counting(), chunk(1, 0)
    ahead = Foresight(watch)
    for forget in (ahead.pause, ahead.reset, lambda: ahead.resume(watch.mark())):
        ahead.prepare(part)
        forget()
        before = len(watch.looked)
        ahead.look(part)
        assert len(watch.looked) == before + 1
    ahead.close()


def test_a_session_with_prepared_chunks_gives_the_same_and_its_snapshot_forgets_them(
    pipeline: PersonaLivePipeline, reference: FusedReference, set_to: PersonaLiveLoadParameters
) -> None:
    parts = [chunk(1, index) for index in range(4)]
    with pipeline.open_session(reference) as session:
        expected = content([session.step(part) for part in parts])
    with pipeline.open_session(reference) as session:
        made = []
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            if following is None:
                session.restore(session.snapshot())
            elif part is parts[0]:
                session.prepare(part)
            if following is not None:
                session.prepare(following)
            made.append(session.step(part))
        assert content(made) == expected
