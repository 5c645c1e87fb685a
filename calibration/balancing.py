"""Some of many samples, spread evenly over them or over their classes."""

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.stored import Array

__all__ = ["balanced_indices", "evenly"]


def balanced_indices(labels: Array | None, total: int, count: int) -> npt.NDArray[np.int64]:
    """Pick ``count`` of ``total`` samples: as many of each class as there are, evenly spaced.

    Args:
        labels: int64 [total], or float32 [total] of 0 and 1 only; anything else counts as one class.
        total: Number of samples.
        count: How many to pick; all, if there are no more.

    Returns:
        int64 [min(count, total)] indices in ascending order; always the same for the same input.
    """
    if count >= total:
        return np.arange(total, dtype=np.int64)
    classes = _classes(labels, total)
    sizes = np.array([members.size for members in classes])
    quotas = np.minimum(sizes, _level(sizes, count))
    room = np.flatnonzero(sizes > quotas)  # one more each for some of these, evenly spread
    quotas[room[evenly(room.size, count - int(quotas.sum()))]] += 1
    picks = [
        members[evenly(members.size, int(quota))] for members, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(picks))


def evenly(size: int, count: int) -> npt.NDArray[np.int64]:
    """``count`` of ``size`` positions, in the middle of as many equal parts; int64 [count], ascending."""
    if count == 0:
        return np.empty(0, np.int64)
    return ((2 * np.arange(count, dtype=np.int64) + 1) * size) // (2 * count)


def _classes(labels: Array | None, total: int) -> list[npt.NDArray[np.int64]]:
    """Indices of the samples of each class."""
    one_class = labels is None or labels.ndim != 1
    if labels is None or one_class or (labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all()):
        return [np.arange(total, dtype=np.int64)]
    return [np.flatnonzero(labels == value).astype(np.int64) for value in np.unique(labels)]


def _level(sizes: npt.NDArray[np.int64], count: int) -> int:
    """The highest quota per class that does not pick more than ``count`` in total."""
    low, high = 0, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(sizes, middle).sum()) <= count:
            low = middle
        else:
            high = middle - 1
    return low
