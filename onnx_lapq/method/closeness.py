"""How close the outputs of a model are to those of another, part by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_lapq.common.arrays import AnyArray, FloatArray
from onnx_lapq.method.masked_outputs import lowest_where_masked, unmasked
from onnx_lapq.method.measures import decibels
from onnx_lapq.method.parts import LossName, Part, span

__all__ = ["OutputScore", "compare_outputs", "untested", "worst"]

_DECIDED = 0.5
_DEAD = 1e-3
"""Rows whose power is a smaller share of that of the row in the middle say nothing."""
_CHUNK = 1 << 20
"""Values of an output that are in float64 at a time: an output may be as large as all else."""
_CLASSES = ("kl", "soft-kl", "cross-entropy")


@dataclass(frozen=True)
class OutputScore:
    """How close an output of a model, or a part of one, is to that of the first model.

    Attributes:
        name: The output.
        rows: Which rows the part has, as ``[4:84]``; None for all.
        loss: Name of the loss that suits the part, which says what it is.
        snr_db: Power of the first model's output over that of the difference, in dB; infinity, which JSON has
            as null, where they are equal. None for the first model, and for outputs of another shape or of
            zeros that others differ from. Padding does not count.
        worst_row: Position of the row with the lowest SNR, of those that say something: scores above 0.5
            somewhere, or a power not far below that of the others. None where rows are not told apart.
        worst_db: SNR of that row, whose power is that about its mean.
        agreement: Share of samples or positions with the same best class; of scores above 0.5, the share
            that both models have; of vectors, the mean cosine. None where none of these makes sense.
    """

    name: str
    rows: str | None
    loss: LossName
    snr_db: float | None
    worst_row: int | None
    worst_db: float | None
    agreement: float | None

    @property
    def label(self) -> str:
        """The output and which of its rows, for a person."""
        return self.name + (self.rows or "")

    @property
    def row(self) -> str:
        """What leads the label where a row is the worst, such as ``row 2 of``; else nothing."""
        return "" if self.worst_db != self.lowest_db else f"row {self.worst_row} of "

    @property
    def lowest_db(self) -> float:
        """SNR of the part or of its worst row; infinity where nothing differs."""
        found = [value for value in (self.snr_db, self.worst_db) if value is not None]
        return min(found, default=np.inf)


def untested(parts: Sequence[Part]) -> tuple[OutputScore, ...]:
    """Scores of parts that were compared with nothing."""
    return tuple(_score(part) for part in parts)


def compare_outputs(
    parts: Sequence[Part],
    wanted: Mapping[str, AnyArray],
    found: Mapping[str, AnyArray],
    mask: AnyArray | None = None,
) -> tuple[OutputScore, ...]:
    """Compare the outputs of two models.

    Args:
        parts: What to look at.
        wanted: Outputs of the first model by name, [N, ...] each.
        found: Outputs of the other one.
        mask: True where a position is no padding, [N, positions]; None where all are real.
    """
    return tuple(
        _compared(part, wanted[part.output], found[part.output], mask)
        if part.output in found and found[part.output].shape == wanted[part.output].shape
        else _score(part)
        for part in parts
    )


def worst(scores: Sequence[OutputScore]) -> OutputScore | None:
    """The part of a model that is furthest from the first model's; None where nothing differs."""
    lowest = min(scores, key=lambda score: score.lowest_db, default=None)
    return lowest if lowest is not None and lowest.lowest_db < np.inf else None


def _score(
    part: Part,
    snr_db: float | None = None,
    worst_row: int | None = None,
    worst_db: float | None = None,
    agreement: float | None = None,
) -> OutputScore:
    rows = span(part.rows) or None
    return OutputScore(part.output, rows, part.loss, snr_db, worst_row, worst_db, agreement)


def _compared(part: Part, wanted: AnyArray, found: AnyArray, mask: AnyArray | None) -> OutputScore:
    axis, pair = part.axis, [wanted, found]
    if part.rows is not None and axis is not None:
        pair = [np.take(values, part.rows, axis=axis) for values in pair]
    if mask is not None and wanted.shape[:2] == mask.shape and axis != 1:
        pair, axis = [values[mask] for values in pair], None if axis is None else axis - 1
    lowest = lowest_where_masked(pair[:1])
    wanted, found = (unmasked(values, lowest) for values in pair)
    agreement = _agreement(part.loss, axis, wanted, found)
    snr = _snr(*_power_and_noise(wanted, found))
    if axis is None or not (part.loss == "row-mse" or part.rows is not None):
        return _score(part, snr, agreement=agreement)
    exact = [values.astype(np.float64) for values in (wanted, found)]
    rows = [np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) for values in exact]
    by_row = _snr_by_row(part.loss, rows[0], rows[1])
    if not by_row:
        return _score(part, snr, agreement=agreement)
    lowest = min(by_row, key=lambda row: by_row[row])
    position = lowest if part.rows is None else part.rows[lowest]
    return _score(part, snr, position, by_row[lowest], agreement)


def _power_and_noise(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Sums of squares of the wanted values and of the difference, some samples at a time in float64."""
    power = noise = 0.0
    step = max(_CHUNK * len(wanted) // max(wanted.size, 1), 1)
    for first in range(0, len(wanted), step):
        exact = wanted[first : first + step].astype(np.float64)
        power += float(np.square(exact).sum())
        noise += float(np.square(found[first : first + step] - exact).sum())
    return power, noise


def _snr_by_row(loss: LossName, wanted: FloatArray, found: FloatArray) -> dict[int, float]:
    """SNR of the rows, [rows, values], that say something: scores that are sure somewhere, what varies."""
    power, noise = wanted.var(axis=1), np.square(found - wanted).mean(axis=1)
    alive = power > _DEAD * np.median(power)
    if loss == "binary-kl":
        alive = wanted.max(axis=1) > _DECIDED
    snr = {row: _snr(float(power[row]), float(noise[row])) for row in np.flatnonzero(alive).tolist()}
    return {row: value for row, value in snr.items() if value is not None and value < np.inf}


def _snr(power: float, noise: float) -> float | None:
    """Decibels; none at all where the noise is no number, None without power."""
    if not np.isfinite(noise):
        return -np.inf
    return decibels(power, noise) if noise > 0 else np.inf


def _agreement(loss: LossName, axis: int | None, wanted: np.ndarray, found: np.ndarray) -> float | None:
    if not wanted.size:
        return None
    if loss == "direction":
        wanted, found = wanted.astype(np.float64), found.astype(np.float64)
        lengths = [np.sqrt(np.square(values).sum(axis=axis)) for values in (wanted, found)]
        inner = (wanted * found).sum(axis=axis)
        return float(np.mean(inner / np.maximum(lengths[0] * lengths[1], 1e-300)))
    if loss in _CLASSES and axis is not None:
        return float((wanted.argmax(axis=axis) == found.argmax(axis=axis)).mean())
    if loss in _CLASSES or loss == "binary-cross-entropy":
        edge = _DECIDED if wanted.min() >= 0 and wanted.max() <= 1 else 0.0
        return float(((wanted > edge) == (found > edge)).mean())
    if loss == "binary-kl":
        first, other = wanted > _DECIDED, found > _DECIDED
        total = first.sum() + other.sum()
        return float(2 * (first & other).sum() / total) if total else None
    return None
