"""What a run has found: all that its stages pass on, and all that is saved and resumed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Self

from onnx_lapq.method.allocation import Rung
from onnx_lapq.method.powell.search_state import Accepted, SearchState, StopReason
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit
from onnx_lapq.network.encoder import FixedCodes
from onnx_lapq.network.step_sizes import Steps

__all__ = ["Attempt", "Found", "Ladder", "Save", "StageRecord", "paced"]


@dataclass(frozen=True)
class StageRecord:
    """Loss of one stage of the search.

    Attributes:
        stage: ``float``, ``min-max``, ``p=2`` and other p, ``quadratic`` (or the baseline's name); with
            nearest rounding ``kld``, ``weights x 1.1, activations x 0.9`` and other multiples, and
            ``start: kld`` or another name (the best of them); ``compensated``, ``compensated from p=2`` or
            another p (the start that was given up), ``joint`` or ``bias``.
        loss: Mean over the samples that the search minimises.
        guard_loss: Mean over the samples that the joint step does not minimise; None without a guard. From
            ``start`` and ``compensated`` on these samples have had a part in the choice of the start or the
            codes, so it is lower than on samples never seen.
        evaluations: Loss evaluations of the run up to here.
    """

    stage: str
    loss: float
    guard_loss: float | None
    evaluations: int

    def over_all(self, guard_share: float) -> float:
        """Mean over the search and the guard samples together, of which the guard has a share."""
        if self.guard_loss is None:
            return self.loss
        return (1 - guard_share) * self.loss + guard_share * self.guard_loss


@dataclass(frozen=True)
class Ladder:
    """How the bits of the weights were chosen.

    Attributes:
        budget: Bytes that the file may take; None where the added loss set the end.
        bytes: Bytes that it takes by reckoning.
        evaluations: Loss evaluations that this took.
        rungs: The steps that were taken.
    """

    budget: int | None
    bytes: int
    evaluations: int
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class Attempt:
    """Compensated rounding from one start.

    Attributes:
        p: Of the start's step sizes; None for those of a baseline.
        steps: Step sizes of all quantizers; those of rounded weights fit their codes.
        codes: Weights that are rounded already.
        record: The loss, once all of them are.
    """

    p: float | None
    steps: Steps
    codes: Mapping[str, FixedCodes] = field(default_factory=dict)
    record: StageRecord | None = None


@dataclass(frozen=True)
class Found:
    """What a run has found so far. Each stage takes one and gives another.

    Attributes:
        evaluations: Loss evaluations so far.
        ladder: How the bits of the weights were chosen; None where the options give them.
        fit: The parabola over p; None for a baseline.
        stages: Losses on the way.
        attempts: Starts that are still to be rounded from, or to be chosen from; none once that is done.
        start: Step sizes of all quantizers where the joint step begins; none before there are any.
        codes: Weights whose codes are fixed; the others are rounded to nearest.
        search: Where the joint step is, once it has begun.
        steps: Step sizes of all quantizers at its end.
        stopped: What ended it.
        history: Its start and every point that it accepted.
    """

    evaluations: int = 0
    ladder: Ladder | None = None
    fit: QuadraticFit | None = None
    stages: tuple[StageRecord, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    start: Steps = field(default_factory=dict)
    codes: Mapping[str, FixedCodes] = field(default_factory=dict)
    search: SearchState | None = None
    steps: Steps = field(default_factory=dict)
    stopped: StopReason = "none"
    history: tuple[Accepted, ...] = ()

    def with_attempt(self, attempt: Attempt, evaluations: int) -> Self:
        """The same with an attempt that has gone on, in the place of the one from the same p."""
        attempts = tuple(attempt if other.p == attempt.p else other for other in self.attempts)
        return replace(self, attempts=attempts, evaluations=evaluations)


Save = Callable[[Found], None]
"""What a stage calls with all that is worth keeping, as soon as it is found."""

_PAUSE = 20
"""Times that the last save took."""


def paced(save: Save) -> Save:
    """The same, but for what comes so soon after the last time that saving would take much of the run.

    Args:
        save: Takes longer the larger the network is.
    """
    next_time = 0.0

    def save_now_and_then(found: Found) -> None:
        nonlocal next_time
        begun = perf_counter()
        if begun >= next_time:
            save(found)
            ended = perf_counter()
            next_time = ended + _PAUSE * (ended - begun)

    return save_now_and_then
