from __future__ import annotations

from personalive.server.sessions.listeners import Listeners


def test_a_listener_may_leave_while_all_are_called() -> None:
    listeners: Listeners[int] = Listeners()
    heard: list[tuple[str, int]] = []

    def once(value: int) -> None:
        heard.append(("once", value))
        leave()

    leave = listeners.add(once)
    listeners.add(lambda value: heard.append(("always", value)))
    listeners.notify(1)
    listeners.notify(2)
    leave()
    assert heard == [("once", 1), ("always", 1), ("always", 2)]
    listeners.clear()
    listeners.notify(3)
    assert len(heard) == 3
