"""How a long run tells its caller where it is."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from onnx_lapq.errors import CancelledError

__all__ = ["Clock", "Observer", "Phase", "Progress", "Ticker", "cancellable", "counting", "silent"]

T = TypeVar("T")

Phase = Literal[
    "prepare",
    "samples",
    "calibrate",
    "step sizes",
    "quadratic",
    "equalize",
    "scales",
    "bias",
    "bits",
    "rounding",
    "joint",
    "sensitivity",
    "compare",
    "landscape",
    "sizes",
    "promote",
    "write",
]


@dataclass(frozen=True)
class Progress:
    """A step of a phase.

    Attributes:
        phase: Which phase; a new name starts it and ends the one before.
        done: Units of work done: samples, tensors or loss evaluations.
        total: Units in all, or the most that there may be; None where that is not known.
        loss: Lowest loss so far, where there is one.
        said: A sentence on what a piece of the run came to, which shows between phases; mostly None.
    """

    phase: Phase
    done: int
    total: int | None
    loss: float | None = None
    said: str | None = None


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
    """Tells an observer of each phase, and keeps the seconds that all phases of a name took.

    It is made where the run begins.
    """

    def __init__(self, observer: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._observer = observer
        self._started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of the run so far."""
        return time.monotonic() - self._started

    def is_past(self, minutes: float | None) -> bool:
        """Whether the run has had so many minutes; never, where they are not bounded."""
        return minutes is not None and self.elapsed() >= 60 * minutes

    def say(self, phase: Phase, said: str) -> None:
        """Tell the observer what a piece of the run came to."""
        self._observer(Progress(phase, 0, None, said=said))

    @contextmanager
    def phase(self, phase: Phase, total: int | None = None) -> Iterator["Ticker"]:
        """Time a phase; the ticker reports the work done in it."""
        started = time.perf_counter()
        ticker = Ticker(self._observer, phase, total)
        ticker(0)
        yield ticker
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Ticker:
    """Reports progress of one phase."""

    observer: Observer
    phase: Phase
    total: int | None

    def __call__(self, done: int, loss: float | None = None) -> None:
        """Report that ``done`` units are done, and the lowest loss so far."""
        self.observer(Progress(self.phase, done, self.total, loss))


def counting(
    loss: Callable[[T], float], tick: Ticker, done: int = 0, lowest: float = math.inf
) -> Callable[[T], float]:
    """A loss whose every evaluation is reported, with the lowest value so far.

    Args:
        loss: Any loss.
        tick: Told after every evaluation.
        done: Evaluations that came before.
        lowest: The lowest loss of these.
    """

    def counted(at: T) -> float:
        nonlocal done, lowest
        value = loss(at)
        done, lowest = done + 1, min(lowest, value)
        tick(done, lowest)
        return value

    return counted
