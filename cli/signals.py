"""Signals that end a command: Ctrl-C and SIGTERM."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "leave_at_once", "signals_as_interrupt"]

INTERRUPTED = 130
"""Exit code."""

_Handler = Callable[[int, FrameType | None], None]


def leave_at_once() -> None:
    """From here on signals end the process without a word: there is nothing to clean up yet."""
    _set_handlers(lambda *_: os._exit(INTERRUPTED))


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt in the main thread; only there can a handler be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _set_handlers(_interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_handlers(handler: _Handler) -> dict[signal.Signals, _Handler | int | None]:
    """Set the handler of the signals that are not ignored, as in a shell's background job; those before."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
