"""The sound of a live run, on its way from the session to what takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from personalive.server.sessions.audio_delay import Samples
from personalive.server.sessions.session_audio import AudioCallback, SentAudio


class LiveSound:
    """Hands blocks of sound to all `listeners`, silent ones while it is muted. Use it on the event loop only."""

    def __init__(self, on_lead: Callable[[], None]) -> None:
        """Prepare; `on_lead` is called when `lead` has changed."""
        self.muted = False
        self.listeners: tuple[AudioCallback, ...] = ()
        self.lead = 0.0
        """Seconds before it is due that a listener needs a block."""
        self._on_lead = on_lead
        self._was_muted = False

    def set_lead(self, lead: float) -> None:
        """Ask for blocks this many seconds before they are due."""
        if lead != self.lead:
            self.lead = lead
            self._on_lead()

    def put(self, block: SentAudio) -> None:
        """Take a block of the session's."""
        if self.muted or self._was_muted:
            block = replace(block, samples=self._fade(block))
        self._was_muted = self.muted
        for listener in self.listeners:
            listener(block)

    def _fade(self, block: SentAudio) -> Samples:
        """Return the block's samples faded in or out where it was just unmuted or muted, so that nothing clicks."""
        volume = np.linspace(not self._was_muted, not self.muted, len(block.samples), dtype=np.float32)
        return np.asarray(np.rint(block.samples * volume[:, None]), np.int16)
