from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from personalive.face.litert import FACE_BLENDSHAPES, FACE_DETECTOR, FACE_LANDMARKS, LiteRTNetwork


@pytest.mark.parametrize(
    ("name", "source", "results"),
    [
        (FACE_DETECTOR, (1, 128, 128, 3), [(1, 896, 16), (1, 896, 1)]),
        (FACE_LANDMARKS, (1, 256, 256, 3), [(1, 1, 1, 1434), (1, 1, 1, 1), (1, 1)]),
        (FACE_BLENDSHAPES, (1, 146, 2), [(52,)]),
    ],
)
def test_shapes(name: str, source: tuple[int, ...], results: list[tuple[int, ...]]) -> None:
    network = LiteRTNetwork(name)
    assert network.input_shape == source
    first = network.run(np.zeros(source, np.float32))
    kept = [output.copy() for output in first]
    network.run(np.ones(source, np.float32))
    assert [output.shape for output in first] == results
    assert all(output.dtype == np.float32 for output in first)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, kept, strict=True)), (
        "outputs are the caller's"
    )
    network.close()
    network.close()
    with pytest.raises(RuntimeError, match="closed"):
        network.run(np.zeros(source, np.float32))


def test_an_input_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="imension"):
        LiteRTNetwork(FACE_BLENDSHAPES).run(np.zeros((1, 145, 2), np.float32))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    network = LiteRTNetwork(FACE_LANDMARKS)
    network.run(np.zeros(network.input_shape, np.float32))
    assert capfd.readouterr() == ("", "")


def test_the_interpreter_lock_is_free_while_a_network_runs() -> None:
    """Threads are told to keep the lock for minutes, so another gets on only where it is given up."""
    network = LiteRTNetwork(FACE_LANDMARKS)
    values = np.zeros(network.input_shape, np.float32)
    during: list[bool] = []
    running = finished = False

    def look() -> None:
        while not finished:
            during.append(running)
            time.sleep(0)

    before = sys.getswitchinterval()
    other = threading.Thread(target=look)
    try:
        sys.setswitchinterval(120)
        other.start()
        for _ in range(20):
            running = True
            network.run(values)
            running = False
    finally:
        finished = True
        sys.setswitchinterval(before)
        other.join()
    assert any(during)


def test_two_threads_with_a_network_each_agree_with_one() -> None:
    values = np.random.default_rng(0).random((1, 256, 256, 3)).astype(np.float32)
    expected = LiteRTNetwork(FACE_LANDMARKS).run(values)[0]
    results: list[np.ndarray] = []

    def work() -> None:
        network = LiteRTNetwork(FACE_LANDMARKS)
        for _ in range(3):
            results.append(network.run(values)[0])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(np.allclose(result, expected, atol=1e-3) for result in results)
