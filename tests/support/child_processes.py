"""Processes that tests start, and send signals to."""

import signal

__all__ = ["heeding_signals"]


def heeding_signals() -> None:
    """In a background job of a shell Ctrl-C is ignored, and processes inherit that; as ``preexec_fn``."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
