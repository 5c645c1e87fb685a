"""What travels in and out of a search over step sizes: options, a resumable snapshot, the result."""

from dataclasses import dataclass
from typing import Literal

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.errors import ConfigError

__all__ = [
    "Accepted",
    "Direction",
    "SearchOptions",
    "SearchPoint",
    "SearchResult",
    "SearchState",
    "StopReason",
]

StopReason = Literal["none", "negligible", "converged", "max-sweeps", "max-evaluations", "stopped"]
Direction = int | tuple[float, ...]
"""A direction in log coordinates: the index of a unit vector, or all components."""


TOLERANCE = 1e-3
"""A sweep that lowers the loss by less than this share of it is the last one, and a line is idle."""


@dataclass(frozen=True)
class SearchOptions:
    """How long the joint search goes on.

    Attributes:
        negligible: A loss below this is not worth lowering: the search ends, or does not begin. Nor is a gain
            of less than a tenth of it: a sweep that brings no more is the last one, and a line is idle. >= 0.
        max_evaluations: Cap on the loss evaluations, those before a resume included; None for no cap.
        patience: Lines in a row, within a sweep, that may be idle before the search ends.

    Raises:
        ConfigError: A value makes no sense.
    """

    negligible: float = 0.0
    max_evaluations: int | None = None
    patience: int = 24

    def __post_init__(self) -> None:
        if not self.negligible >= 0:
            raise ConfigError(f"a loss of {self.negligible} cannot be negligible; choose 0 or more")
        if self.max_evaluations is not None and self.max_evaluations < 1:
            raise ConfigError(
                f"a search of {self.max_evaluations} evaluations finds nothing; allow at least 1"
            )

    def smallest_gain(self, loss: float) -> float:
        """What a line or a sweep must lower a loss by for others to be worth their evaluations."""
        return max(TOLERANCE * abs(loss), self.negligible / 10)


@dataclass(frozen=True)
class Accepted:
    """An accepted point: the number of evaluations up to it, its loss and its guard loss."""

    evaluations: int
    loss: float
    guard: float | None


@dataclass(frozen=True)
class SearchPoint:
    """An evaluated point: log coordinates, loss and guard loss (None without a guard)."""

    v: tuple[float, ...]
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
        kept: The best accepted point whose guard loss is not above that of the start.
        lowest_guard: Guard losses by sample at the accepted point where their mean is lowest, None without a
            guard.
        directions: Current directions, in the order searched.
        steps: Signed next step along each direction, in log units.
        sweep: Number of finished sweeps.
        line: Number of finished line searches of the current sweep.
        idle: How many of these, up to the last one, brought no gain in a row.
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
    kept: SearchPoint
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
    history: tuple[Accepted, ...]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Where a search ended.

    Attributes:
        step_sizes: Best step sizes seen that the guard allowed, float64 [n]; never worse than the start.
        loss: Loss there.
        guard: Guard loss there, None without a guard.
        evaluations: Number of loss evaluations, those before a resume included.
        stopped: Why the search ended.
        history: The start and every accepted point.
        state: State after the last finished line search, from which the search can go on with other limits;
            None if the optimizer cannot resume.
    """

    step_sizes: FloatArray
    loss: float
    guard: float | None
    evaluations: int
    stopped: StopReason
    history: tuple[Accepted, ...]
    state: SearchState | None
