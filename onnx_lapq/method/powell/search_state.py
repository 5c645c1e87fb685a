"""What travels in and out of a search over step sizes: options, a resumable snapshot, the result."""

import math
from dataclasses import dataclass
from typing import Literal

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import ConfigError

__all__ = ["Direction", "Progress", "SearchOptions", "SearchResult", "SearchState", "StopReason"]

StopReason = Literal["none", "negligible", "converged", "max-sweeps", "max-evaluations", "stopped"]
Direction = int | tuple[float, ...]
"""A direction in log coordinates: the index of a unit vector, or all components."""


@dataclass(frozen=True)
class SearchOptions:
    """How far and how long the joint search goes.

    Attributes:
        max_sweeps: Sweeps over all directions, at least 1.
        initial_step: First step along every direction, in log units (0.1 is about 10 %).
        min_step: Smallest step that adaptation arrives at, in log units.
        trust: Largest factor by which a step size may leave its start, above or below, > 1.
        tolerance: A sweep that lowers the loss by less than this share of it is the last one, >= 0.
        negligible: A loss below this is not worth lowering: the search ends, or does not begin. Nor is a gain
            of less than a tenth of it: a sweep that brings no more is the last one. >= 0.
        guard_errors: How many standard errors the guard loss of an accepted point may exceed the lowest guard
            loss of all accepted points by. The error is that of the mean difference over the guard samples:
            what chance does to it. Since it is measured from the lowest value and not from the last, a row
            of small rises cannot add up.
        patience: Lines in a row, within a sweep, that may lower nothing before the search ends, at least 1.
        enough_evaluations: Once as many loss evaluations are spent, no further sweep begins, at least 1. The
            first sweep gains most; where there are many step sizes it is the only one.
        max_evaluations: Cap on the loss evaluations, those before a resume included; None for no cap.

    Raises:
        ConfigError: A value makes no sense.
    """

    max_sweeps: int = 3
    initial_step: float = 0.1
    min_step: float = 0.002
    trust: float = 2.0
    tolerance: float = 1e-3
    negligible: float = 0.0
    guard_errors: float = 1.0
    patience: int = 24
    enough_evaluations: int = 250
    max_evaluations: int | None = None

    def __post_init__(self) -> None:
        if self.max_sweeps < 1:
            raise ConfigError(f"The search is limited to {self.max_sweeps} sweeps: allow at least 1.")
        if not 0 < self.min_step <= self.initial_step < math.inf:
            raise ConfigError(
                f"The search steps are {self.min_step} (smallest) and {self.initial_step} (first): "
                "make both positive and the first not the smaller one."
            )
        if not 1 < self.trust < math.inf:
            raise ConfigError(f"The trust factor of the search is {self.trust}: choose one above 1.")
        if not (self.tolerance >= 0 and self.negligible >= 0 and self.guard_errors >= 0):
            raise ConfigError("A tolerance of the search is negative: choose 0 or more.")
        if self.patience < 1:
            raise ConfigError(f"The search gives up after {self.patience} lines: allow at least 1.")
        if self.enough_evaluations < 1:
            raise ConfigError(
                f"The search begins no sweep after {self.enough_evaluations} evaluations: allow at least 1."
            )
        if self.max_evaluations is not None and self.max_evaluations < 1:
            raise ConfigError(
                f"The search is limited to {self.max_evaluations} evaluations: allow at least 1."
            )

    def smallest_gain(self, loss: float) -> float:
        """What a sweep must lower a loss by for another one to be worth its evaluations."""
        return max(self.tolerance * abs(loss), self.negligible / 10)


@dataclass(frozen=True)
class Progress:
    """An accepted point: the number of evaluations up to it, its loss and its guard loss."""

    evaluations: int
    loss: float
    guard: float | None


@dataclass(frozen=True)
class SearchState:
    """Everything a search needs to go on, taken between two line searches.

    Attributes:
        start: Step sizes at the start, Δ_start.
        point: Current and best point in log coordinates, ``log(Δ / Δ_start)``.
        loss: Loss at ``point``.
        guard: Guard loss at ``point``, None without a guard.
        lowest_guard: Guard losses by sample at the accepted point where their mean is lowest, None without a
            guard.
        directions: Current directions, in the order searched.
        steps: Signed next step along each direction, in log units.
        sweep: Number of finished sweeps.
        line: Number of finished line searches of the current sweep.
        idle: How many of these, up to the last one, lowered nothing in a row.
        sweep_point: ``point`` at the start of the current sweep.
        sweep_loss: ``loss`` at the start of the current sweep.
        largest_drop: Largest decrease of a line of the current sweep.
        largest_line: The line it happened on.
        last_gain: Decrease over the last finished sweep, None during the first.
        evaluations: Number of loss evaluations so far.
        history: The start and every accepted point.
    """

    start: tuple[float, ...]
    point: tuple[float, ...]
    loss: float
    guard: float | None
    lowest_guard: tuple[float, ...] | None
    directions: tuple[Direction, ...]
    steps: tuple[float, ...]
    sweep: int
    line: int
    idle: int
    sweep_point: tuple[float, ...]
    sweep_loss: float
    largest_drop: float
    largest_line: int
    last_gain: float | None
    evaluations: int
    history: tuple[Progress, ...]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Where a search ended.

    Attributes:
        step_sizes: Best step sizes seen that the guard allowed, float64 [n]; never worse than the start.
        loss: Loss there.
        guard: Guard loss there, None without a guard.
        start_loss: Loss at the start.
        evaluations: Number of loss evaluations, those before a resume included.
        sweeps: Number of finished sweeps.
        stopped: Why the search ended.
        history: The start and every accepted point.
        state: State after the last finished line search, from which the search can go on with other limits;
            None if the optimizer cannot resume.
    """

    step_sizes: FloatArray
    loss: float
    guard: float | None
    start_loss: float
    evaluations: int
    sweeps: int
    stopped: StopReason
    history: tuple[Progress, ...]
    state: SearchState | None
