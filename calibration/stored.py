"""What travels between the readers: the model's inputs, and samples that are held in memory."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "InputSpec", "OnProgress", "Samples", "StoredInput", "StoredSamples"]

Array = npt.NDArray[Any]
OnProgress = Callable[[int, int], None]  # (files done, files in total)


@dataclass(frozen=True)
class InputSpec:
    """One input of the model.

    Attributes:
        name: The input's name.
        dtype: Element type that the model takes.
        shape: The batch dimension first; an int is fixed, a str or None is symbolic.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        """The input as messages show it, such as ``'x' (float32 [?, 3, 224, 224])``."""
        dims = ", ".join(str(dim) if dim is not None else "?" for dim in self.shape)
        return f"'{self.name}' ({self.dtype} [{dims}])"


class Samples(Protocol):
    """An ordered collection of samples that can be fed to the model.

    Attributes:
        labels: int64 [count] class indices, float32 [count] or [count, k] targets in [0, 1], or None.
    """

    @property
    def labels(self) -> Array | None:
        """See the class."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batch(self, start: int, stop: int) -> dict[str, Array]:
        """Feeds of samples start..stop-1: C-contiguous, in the model's dtypes, by input name."""
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
    """

    data: Array
    convert: Callable[[Array], Array] | None = None


@dataclass(frozen=True, eq=False)
class StoredSamples:
    """Samples whose data is in memory (or memory-mapped); satisfies ``Samples``.

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

    def batch(self, start: int, stop: int) -> dict[str, Array]:
        """Feeds of samples start..stop-1; a ``stop`` past the end is the end."""
        return {name: _feed(stored, start, stop) for name, stored in self.inputs.items()}

    def describe(self) -> dict[str, Any]:
        """A copy of the record."""
        return copy.deepcopy(dict(self.record))


def _feed(stored: StoredInput, start: int, stop: int) -> Array:
    part = np.ascontiguousarray(stored.data[start:stop])
    if stored.convert is None:
        return np.asarray(part)
    return stored.convert(part)
