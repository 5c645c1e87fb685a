"""Which positions of samples of different lengths are real, and which are padding."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.capture import stacked
from onnx_lapq.calibration.samples import Samples, batches

__all__ = ["has_tokens", "is_mask", "padding_mask", "padding_masks"]

_CHUNK = 64
_HIDDEN = -1e3
"""Masks that are added to scores have this or less where a position is padding."""

_Mask = npt.NDArray[np.bool_]


def padding_mask(samples: Samples) -> _Mask | None:
    """The padding mask of all samples, see `padding_masks`.

    Returns:
        Bool [N, positions], True where a position is real, and `stacked` as outputs of several shapes are;
        None where all are.
    """
    masks = _masks(samples)
    return None if masks is None else stacked(masks)


def padding_masks(samples: Samples, blocks: Sequence[slice]) -> list[_Mask | None]:
    """The padding mask among the inputs of a model, such as ``attention_mask``, for blocks of samples.

    It is the one input [N, positions] with "mask" in its name, with any axes of length 1, of which every
    sample has a real position. It has ones for these and zeros for padding; or zeros, and a number far below
    for padding, which is added to scores.

    Args:
        samples: Samples for the model.
        blocks: Consecutive samples each.

    Returns:
        For each block bool [n, positions], True where a position is real; None where its samples differ in
        length. None for all without such an input, and where all positions are real.
    """
    masks = _masks(samples)
    if masks is None:
        return [None] * len(blocks)
    starts = np.cumsum([0, *samples.groups])
    found: list[_Mask | None] = []
    for block in blocks:
        inside = [
            mask[max(block.start - at, 0) : max(block.stop - at, 0)]
            for mask, at in zip(masks, starts[:-1], strict=True)
        ]
        some = [mask for mask in inside if len(mask)]
        alike = len({mask.shape[1] for mask in some}) == 1
        found.append(np.concatenate(some) if alike else None)
    return found


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
