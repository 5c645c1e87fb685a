"""Progress of a joint search: what it has found, and when it will end."""

import math
import time
from collections.abc import Callable, Sequence

from onnx_lapq.method.powell.forecast import forecast
from onnx_lapq.method.powell.search_state import SearchOptions, SearchResult, SearchState
from onnx_lapq.progress import Ticker

__all__ = ["Pace"]


class Pace:
    """Tells a ticker of every evaluation, and of what is expected by the lines searched so far.

    Args:
        tick: Told after every evaluation.
        options: Limits of the search.
        costs: Asked once, after the first evaluation, for what one along each coordinate costs.
        deadline: When the search ends at the latest, by `time.monotonic`.
        state: What the search goes on from.
    """

    def __init__(
        self,
        tick: Ticker,
        options: SearchOptions,
        costs: Callable[[], Sequence[float]],
        deadline: float | None,
        state: SearchState | None,
    ) -> None:
        self._tick, self._options, self._deadline = tick, options, deadline
        self._ask_costs = costs
        self._costs: Sequence[float] = ()
        self._state = state
        self._done = 0 if state is None else state.evaluations
        self._best = math.inf if state is None else state.loss
        self._total = options.max_evaluations
        self._began = time.monotonic()
        self._spent_before = 0.0
        self._end = math.inf if deadline is None else deadline

    def evaluated(self, loss: float) -> None:
        """An evaluation has ended; the best loss is known from `moved`, or the lowest without it."""
        self._done += 1
        if self._state is None:
            self._best = min(self._best, loss)
        if not self._costs:
            self._costs = self._ask_costs()
            if self._state is not None:
                self._spent_before = forecast(self._state, self._options, self._costs).spent
        left = self._end - time.monotonic()
        total = None if self._total is None else max(self._total, self._done)
        self._tick(self._done, self._best, total, max(left, 0.0) if math.isfinite(left) else None)

    def moved(self, state: SearchState) -> None:
        """A line has been searched."""
        self._state, self._best = state, state.loss
        expected = forecast(state, self._options, self._costs)
        self._total = expected.evaluations
        spent, now = expected.spent - self._spent_before, time.monotonic()
        if spent > 0:
            end = now + (now - self._began) / spent * expected.left
            self._end = end if self._deadline is None else min(end, self._deadline)

    def ended(self, result: SearchResult) -> None:
        """The search has ended."""
        self._tick(self._done, result.loss, self._done, 0.0)
