"""How a long run tells its caller where it is."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from onnx_lapq.errors import CancelledError

__all__ = ["Clock", "Observer", "Phase", "Progress", "Ticker", "cancellable", "silent"]

Phase = Literal[
    "prepare",
    "samples",
    "calibrate",
    "step sizes",
    "quadratic",
    "equalize",
    "bias",
    "bits",
    "rounding",
    "joint",
    "sensitivity",
    "compare",
    "landscape",
    "sizes",
    "write",
]


@dataclass(frozen=True)
class Progress:
    """A step of a phase.

    Attributes:
        phase: Which phase; a new name starts it and ends the one before.
        done: Units of work done: samples, tensors or loss evaluations.
        total: Units in all; expected ones in the joint step, where they change as it goes on. None where
            that is not known.
        loss: Lowest loss so far, where there is one.
        seconds_left: Expected time to the end of the phase, where units do not take equally long.
    """

    phase: Phase
    done: int
    total: int | None
    loss: float | None = None
    seconds_left: float | None = None


Observer = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """An observer that looks away."""


def cancellable(observer: Observer, cancel: threading.Event) -> Observer:
    """An observer that ends the run once an event is set.

    Raises:
        CancelledError: By the observer, at the first step of the run after that.
    """

    def observe(progress: Progress) -> None:
        if cancel.is_set():
            raise CancelledError(f"cancelled in phase {progress.phase!r}; nothing was written")
        observer(progress)

    return observe


class Clock:
    """Tells an observer of each phase and keeps the seconds that it took."""

    def __init__(self, observer: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._observer = observer

    @contextmanager
    def phase(self, phase: Phase, total: int | None = None) -> Iterator["Ticker"]:
        """Time a phase; the ticker reports the work done in it."""
        started = time.perf_counter()
        ticker = Ticker(self._observer, phase, total)
        ticker(0)
        yield ticker
        self.seconds[phase] = time.perf_counter() - started


@dataclass(frozen=True)
class Ticker:
    """Reports progress of one phase."""

    observer: Observer
    phase: Phase
    total: int | None

    def __call__(
        self,
        done: int,
        loss: float | None = None,
        total: int | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Report that ``done`` units are done, and what is expected where that changes."""
        self.observer(Progress(self.phase, done, total or self.total, loss, seconds_left))
