"""Stop at a good moment when SIGINT or SIGTERM asks for it."""

from __future__ import annotations

import signal
import threading
import time

ECHO_SECONDS = 1.0
"""Terminals, `timeout` and other wrappers send one request to stop more than once."""


class StopRequest:
    """Within `with`, the first signal is noted instead of ending the process; a second one interrupts at once.

    Calling it tells whether one has come: pass it as `should_stop`. Signals reach the main thread only: in any other
    nothing is caught.
    """

    def __init__(self) -> None:
        self._noted: float | None = None
        self._previous: dict[signal.Signals, object] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._noted is not None

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {each: signal.signal(each, self._note) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for each, handler in self._previous.items():
            signal.signal(each, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: object) -> None:
        if self._noted is None:
            self._noted = time.monotonic()
        elif time.monotonic() - self._noted > ECHO_SECONDS:
            raise KeyboardInterrupt


def ignore_signals(worker: int) -> None:
    """For loading processes: Ctrl-C reaches every process of a terminal, and the parent stops in order, and them.

    Args:
        worker: the number of the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
