"""Which positions of samples of different lengths are real, and which are padding."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.capture import stacked
from onnx_lapq.calibration.samples import Samples, batches

__all__ = ["PaddingMasks", "has_tokens", "is_mask", "padding_mask"]

_CHUNK = 64
_HIDDEN = -1e3
"""Masks that are added to scores have this or less where a position is padding."""

_Mask = npt.NDArray[np.bool_]


def padding_mask(samples: Samples) -> _Mask | None:
    """The padding mask of all samples, see `PaddingMasks`.

    Returns:
        Bool [N, positions], True where a position is real, and `stacked` as outputs of several shapes are;
        None where all are.
    """
    masks = _masks(samples)
    return None if masks is None else stacked(masks)


class PaddingMasks:
    """The padding mask among the inputs of a model, such as ``attention_mask``, for batches of samples.

    It is the one input [N, positions] with "mask" in its name, with any axes of length 1, of which every
    sample has a real position. It has ones for these and zeros for padding; or zeros, and a number far below
    for padding, which is added to scores.

    Args:
        samples: Samples for the model.

    Attributes:
        has_any: Whether there is such an input, and padding in it.
    """

    def __init__(self, samples: Samples) -> None:
        masks = _masks(samples)
        self.has_any = masks is not None
        self._masks = masks or []
        self._starts = np.cumsum([0, *samples.groups])[:-1]

    def of(self, at: slice) -> _Mask | None:
        """The mask of consecutive samples, bool [n, positions], True where a position is real.

        None without padding in any sample, and where the samples differ in length.
        """
        inside = [
            mask[max(at.start - start, 0) : max(at.stop - start, 0)]
            for mask, start in zip(self._masks, self._starts[: len(self._masks)], strict=True)
        ]
        some = [mask for mask in inside if len(mask)]
        return np.concatenate(some) if len({mask.shape[1] for mask in some}) == 1 else None


def is_mask(name: str) -> bool:
    """Whether the name of an input says that it is a mask."""
    return "mask" in name.lower()


def has_tokens(samples: Samples) -> bool:
    """Whether samples are sequences: they have padding, or a mask and lengths of their own."""
    return padding_mask(samples) is not None or (len(samples.groups) > 1 and len(_names(samples)) == 1)


def _masks(samples: Samples) -> list[_Mask] | None:
    """The masks of the groups of samples; None without any, and where all positions are real."""
    names = _names(samples)
    if len(names) != 1:
        return None
    parts: list[list[np.ndarray]] = [[] for _ in samples.groups]
    ends = np.cumsum(samples.groups)
    for at in batches(samples.groups, _CHUNK):
        values = samples.batch(at.start, at.stop)[names[0]]
        parts[int(np.searchsorted(ends, at.start, side="right"))].append(values.reshape(len(values), -1))
    return _real([np.concatenate(part) for part in parts])


def _real(values: Sequence[np.ndarray]) -> list[_Mask] | None:
    """Which positions are real, by ones and zeros or zeros and numbers far below; None if not so."""
    if all(np.isin(one, (0, 1)).all() for one in values):
        masks = [one == 1 for one in values]
    elif all(((one == 0) | (one <= _HIDDEN)).all() for one in values):
        masks = [one == 0 for one in values]
    else:
        return None
    real = all(mask.all() for mask in masks) or not all(mask.any(axis=1).all() for mask in masks)
    return None if real else masks


def _names(samples: Samples) -> list[str]:
    """Inputs that could be the mask: samples along the first axis, and one other axis longer than 1."""
    first = samples.batch(0, 1)
    return [
        name
        for name, values in first.items()
        if is_mask(name)
        and values.ndim > 1
        and max(values.shape) == values.size
        and samples.axes.get(name, 0) == 0
    ]
