from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from personalive.jobs.background_io import BackgroundCall, BackgroundReader, BackgroundWriter


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("personalive-")]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    time.sleep(0.02)  # a thread that has done its work takes a moment to be gone
    assert workers() == []


def test_a_reader_delivers_everything_in_order() -> None:
    with BackgroundReader(range(1000), ahead=3) as reader:
        assert list(reader) == list(range(1000))
        assert list(reader) == []


def test_a_reader_reads_ahead_by_no_more_than_told() -> None:
    taken = []

    def items() -> Iterator[int]:
        for k in range(100):
            taken.append(k)
            yield k

    with BackgroundReader(items(), ahead=3) as reader:
        assert next(reader) == 0
        time.sleep(0.2)
        assert len(taken) <= 1 + 3 + 1


def test_a_readers_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    with BackgroundReader(items(), ahead=2) as reader:
        assert [next(reader) for _ in range(5)] == list(range(5))
        with pytest.raises(OSError, match="disk"):
            next(reader)


def test_leaving_early_stops_a_reader_that_waits() -> None:
    begun = time.monotonic()
    with BackgroundReader(iter(int, 1), ahead=2) as reader:
        next(reader)
    assert time.monotonic() - begun < 5


def test_a_writer_uses_everything_in_order() -> None:
    used: list[int] = []
    with BackgroundWriter(used.append, behind=3) as writer:
        for k in range(1000):
            writer.put(k)
        writer.finish()
        assert used == list(range(1000))


def test_a_writer_holds_no_more_than_told() -> None:
    gate = threading.Event()
    put: list[int] = []

    def use(item: int) -> None:
        del item
        gate.wait(5)

    def fill() -> None:
        for k in range(10):
            writer.put(k)
            put.append(k)

    with BackgroundWriter(use, behind=3) as writer:
        feeder = threading.Thread(target=fill)
        feeder.start()
        time.sleep(0.2)
        assert len(put) <= 3 + 1
        gate.set()
        feeder.join()
        writer.finish()


@pytest.mark.parametrize("error", [OSError("full"), StopIteration("odd"), KeyboardInterrupt()])
def test_a_writers_error_reaches_the_one_who_puts(error: BaseException) -> None:
    def use(item: int) -> None:
        if item == 3:
            raise error

    def feed() -> None:
        for k in range(100):
            writer.put(k)

    with BackgroundWriter(use, behind=2) as writer, pytest.raises(type(error)):
        feed()


def test_an_error_on_the_last_item_is_not_lost() -> None:
    def use(item: int) -> None:
        time.sleep(0.05)
        raise OSError(f"cannot write {item}")

    with BackgroundWriter(use, behind=2) as writer:
        writer.put(1)
        with pytest.raises(OSError, match="cannot write 1"):
            writer.finish()


def test_leaving_by_an_exception_drops_what_waits() -> None:
    used: list[int] = []

    def use(item: int) -> None:
        time.sleep(0.05)
        used.append(item)

    def interrupted() -> None:
        with BackgroundWriter(use, behind=50) as writer:
            for k in range(50):
                writer.put(k)
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begun < 2
    assert len(used) <= 2


def test_a_call_gives_what_it_returned_or_raised() -> None:
    call = BackgroundCall(lambda: 3)
    call.start()
    assert call.result() == 3
    assert call.done
    with pytest.raises(ZeroDivisionError):
        BackgroundCall(lambda: 1 // 0).result()


def test_a_call_that_is_given_up_has_ended() -> None:
    ended: list[bool] = []

    def slow() -> None:
        time.sleep(0.05)
        ended.append(True)

    call = BackgroundCall(slow)
    call.start()
    call.wait()
    assert ended
