"""Collect the parts of a calibration set, samples of one shape together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.stored import Array, InputSpec
from onnx_lapq.errors import CalibrationError

__all__ = ["Collected", "Part", "collect"]


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a calibration set, of one shape.

    Attributes:
        source: What messages call it.
        arrays: [count, ...] by input name.
        labels: [count] or [count, k], or None.
        count: Number of samples, at least 1.
    """

    source: str
    arrays: Mapping[str, Array]
    labels: Array | None
    count: int

    def at(self, positions: npt.NDArray[np.int64] | slice) -> "Part":
        """Some of the samples."""
        arrays = {name: array[positions] for name, array in self.arrays.items()}
        labels = None if self.labels is None else self.labels[positions]
        return Part(self.source, arrays, labels, len(next(iter(arrays.values()))))


@dataclass(frozen=True, eq=False)
class Collected:
    """All samples.

    Attributes:
        groups: Arrays [count, ...] by input name; each group has samples that can be fed together.
        labels: Of the samples in the order of the groups, or None.
    """

    groups: Sequence[Mapping[str, Array]]
    labels: Array | None

    def at(self, positions: npt.NDArray[np.int64]) -> Self:
        """The samples at ascending positions."""
        groups, start = [], 0
        for arrays in self.groups:
            stop = start + len(next(iter(arrays.values())))
            inside = positions[(positions >= start) & (positions < stop)] - start
            if len(inside):
                groups.append({name: array[inside] for name, array in arrays.items()})
            start = stop
        return type(self)(groups, None if self.labels is None else self.labels[positions])


def collect(parts: Sequence[Part], inputs: Sequence[InputSpec]) -> Collected:
    """All samples of the parts: in their order where all have one shape, else those of one shape together.

    Samples can be fed together where their shapes are equal, and the values of inputs without an axis of the
    samples.

    Raises:
        CalibrationError: The parts differ in type, or only some have labels.
    """
    common = [spec.name for spec in inputs if spec.axis is None]
    groups: dict[Any, list[Part]] = {}
    parts = _as_classes(parts)
    for part in parts:
        _check_alike(part, parts[0])
        for key, some in _split(part, common):
            groups.setdefault(key, []).append(some)
    ordered = [groups[key] for key in sorted(groups)]
    arrays = [
        {name: _joined([part.arrays[name] for part in group]) for name in parts[0].arrays}
        for group in ordered
    ]
    return Collected(
        arrays,
        None
        if parts[0].labels is None
        else _joined([part.labels for group in ordered for part in group if part.labels is not None]),
    )


def _split(part: Part, common: Sequence[str]) -> Iterator[tuple[Any, Part]]:
    """What can be fed together; samples of other parts that can be fed with it have an equal key."""
    shapes = tuple(array.shape[1:] for array in part.arrays.values())
    values = [
        b"".join(part.arrays[name][row].tobytes() for name in common)
        for row in range(part.count if common else 1)
    ]
    if len(set(values)) == 1:
        yield (shapes, values[0]), part
        return
    for value in dict.fromkeys(values):
        yield (shapes, value), part.at(np.flatnonzero([other == value for other in values]))


def _as_classes(parts: Sequence[Part]) -> Sequence[Part]:
    """Class numbers of positions in all parts, where some have these and the others zeros and ones only."""
    if not any(_has_rows(part, np.int64) for part in parts):
        return parts
    return [
        replace(part, labels=part.labels.astype(np.int64))
        if part.labels is not None and _has_rows(part, np.float32) and np.isin(part.labels, (0, 1)).all()
        else part
        for part in parts
    ]


def _has_rows(part: Part, kind: type) -> bool:
    return part.labels is not None and part.labels.ndim == 2 and part.labels.dtype == kind


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _check_alike(part: Part, first: Part) -> None:
    for name, array in part.arrays.items():
        if array.dtype != first.arrays[name].dtype:
            raise CalibrationError(
                f"{part.source}: a sample of input '{name}' is {array.dtype}, but "
                f"{first.arrays[name].dtype} in {first.source}; give all samples one type"
            )
    if (part.labels is None) != (first.labels is None):
        without = part if part.labels is None else first
        raise CalibrationError(f"{without.source}: no 'labels' array, which other files have; add it")
    if part.labels is not None and first.labels is not None:
        kinds = {(labels.dtype, labels.shape[1:]) for labels in (part.labels, first.labels)}
        if len(kinds) > 1:
            raise CalibrationError(
                f"{first.source}: the 'labels' arrays differ in type or width; save them alike"
            )
