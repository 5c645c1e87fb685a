"""What travels between the readers: the model's inputs, and samples that are held in memory."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "GroupedSamples",
    "InputSpec",
    "OnProgress",
    "Samples",
    "StoredInput",
    "StoredSamples",
    "batches",
    "set_values",
]

Array = npt.NDArray[Any]
OnProgress = Callable[[int, int], None]  # (files done, files in total)


@dataclass(frozen=True)
class InputSpec:
    """One input of the model.

    Attributes:
        name: The input's name.
        dtype: Element type that the model takes.
        shape: An int is fixed, a str or None is symbolic.
        axis: That of the samples; None where one value holds for all samples of a run.
        value: What is always fed, in place of anything of the samples; None for the samples' own.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    axis: int | None = 0
    value: float | None = None

    @property
    def sample_shape(self) -> tuple[int | str | None, ...]:
        """The shape of one sample, without the axis of the samples."""
        return tuple(size for axis, size in enumerate(self.shape) if axis != self.axis)

    def __str__(self) -> str:
        """The input as messages show it, such as ``'x' (float32 [?, 3, 224, 224])``."""
        dims = ", ".join(str(dim) if dim is not None else "?" for dim in self.shape)
        return f"'{self.name}' ({self.dtype} [{dims}])"


def set_values(spec: InputSpec, count: int) -> Array:
    """The value of an input that has one of its own, for so many samples, [count, ...]."""
    return np.full((count, *(1 for _ in spec.sample_shape)), spec.value, spec.dtype)


@runtime_checkable
class Samples(Protocol):
    """An ordered collection of samples that can be fed to the model.

    Attributes:
        labels: int64 [count] or [count, k] class indices, float32 [count] or [count, k] targets in [0, 1],
            numbers of more axes, or None.
        groups: Sizes of the runs of samples that can be fed together; within each of them shapes are equal.
        axes: Axis of the samples of each input, None where one value holds for all samples of a run.
    """

    @property
    def labels(self) -> Array | None:
        """See the class."""
        ...

    @property
    def groups(self) -> Sequence[int]:
        """See the class."""
        ...

    @property
    def axes(self) -> Mapping[str, int | None]:
        """See the class."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batch(self, start: int, stop: int) -> dict[str, Array]:
        """Feeds of samples start..stop-1 of one group: C-contiguous, in the model's dtypes, by input name."""
        ...

    def describe(self) -> dict[str, Any]:
        """A JSON-able record of what was read and what was done to it."""
        ...


@dataclass(frozen=True, eq=False)
class StoredInput:
    """The values of one input for all samples.

    Attributes:
        data: [count, ...]; uint8 pixels [count, height, width, channels] if ``convert`` is set.
        convert: Turns a batch of ``data`` into the model's dtype and layout; None: it is fed as it is.
        axis: Where the model has the axis of the samples; None where it has none, and all rows are equal.
    """

    data: Array
    convert: Callable[[Array], Array] | None = None
    axis: int | None = 0


@dataclass(frozen=True, eq=False)
class StoredSamples:
    """Samples of one shape whose data is in memory (or memory-mapped); satisfies ``Samples``.

    Attributes:
        inputs: One entry per model input; all of one length.
        labels: See ``Samples``.
        record: What ``describe`` returns.
    """

    inputs: Mapping[str, StoredInput]
    labels: Array | None
    record: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())).data)

    @property
    def groups(self) -> tuple[int, ...]:
        """All samples are one group."""
        return (len(self),)

    @property
    def axes(self) -> dict[str, int | None]:
        """Axis of the samples of each input."""
        return {name: stored.axis for name, stored in self.inputs.items()}

    def batch(self, start: int, stop: int) -> dict[str, Array]:
        """Feeds of samples start..stop-1; a ``stop`` past the end is the end."""
        return {name: _feed(stored, start, stop) for name, stored in self.inputs.items()}

    def describe(self) -> dict[str, Any]:
        """A copy of the record."""
        return copy.deepcopy(dict(self.record))


@dataclass(frozen=True, eq=False)
class GroupedSamples:
    """Samples of several shapes, those of one shape together; satisfies ``Samples``.

    Attributes:
        parts: The groups, at least one; what they hold of labels and records is not used.
        labels: See ``Samples``.
        record: What ``describe`` returns.
    """

    parts: Sequence[StoredSamples]
    labels: Array | None
    record: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of samples."""
        return sum(self.groups)

    @property
    def groups(self) -> tuple[int, ...]:
        """Sizes of the groups."""
        return tuple(map(len, self.parts))

    @property
    def axes(self) -> dict[str, int | None]:
        """Axis of the samples of each input."""
        return self.parts[0].axes

    def batch(self, start: int, stop: int) -> dict[str, Array]:
        """Feeds of samples start..stop-1 of one group.

        Raises:
            ValueError: They lie in several groups.
        """
        for part in self.parts:
            if start < len(part):
                if stop > len(part):
                    raise ValueError("the samples differ in shape")
                return part.batch(start, stop)
            start, stop = start - len(part), stop - len(part)
        return self.parts[-1].batch(0, 0)

    def describe(self) -> dict[str, Any]:
        """A copy of the record."""
        return copy.deepcopy(dict(self.record))


def batches(groups: Sequence[int], size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` samples, none of which reaches from one group into the next.

    Args:
        groups: Those of ``Samples``.
        size: Most samples of a slice.
    """
    ends = list(accumulate(groups))
    return [
        slice(start, min(start + size, end))
        for end, count in zip(ends, groups, strict=True)
        for start in range(end - count, end, size)
    ]


def _feed(stored: StoredInput, start: int, stop: int) -> Array:
    if stored.axis is None:
        return np.array(stored.data[start])
    part = np.ascontiguousarray(stored.data[start:stop])
    if stored.axis:
        return np.ascontiguousarray(np.moveaxis(part, 0, stored.axis))
    return np.asarray(part) if stored.convert is None else stored.convert(part)
