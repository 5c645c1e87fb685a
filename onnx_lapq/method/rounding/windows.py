"""The inputs that meet the weights of a layer, as rows of matrices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array

__all__ = [
    "ConvolutionWindows",
    "convolution_inputs",
    "matrix_rows",
    "spread_positions",
    "transposed_inputs",
]


@dataclass(frozen=True)
class ConvolutionWindows:
    """How the windows of a convolution lie over its input.

    Attributes:
        kernel: Size in each spatial dimension.
        strides: Steps between windows.
        pads: Zeros before all dimensions, then after all dimensions, as in ONNX.
        dilations: Distances between the taps of a window.
        groups: Channel groups.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int


_ALIKE, _MOST_ALIKE = 32, 8
"""Windows of samples side by side that lie at the same positions, and such samples at most: calls for each
sample take longer than their work."""

_AT_ONCE = 1 << 18
"""Values that are taken at once."""


def spread_positions(
    first: int, samples: int, positions: int, wanted: int, alike: int = 1
) -> npt.NDArray[np.intp]:
    """Window positions to look at: equally many in every sample, spread evenly, shifted between samples.

    Args:
        first: Number of the first sample in the calibration set; decides the shift.
        samples: Samples in the batch.
        positions: Windows per sample.
        wanted: Windows to take per sample; all of them where there are no more.
        alike: So many samples side by side have the same ones.

    Returns:
        Flat indices into [samples, positions], ascending.
    """
    taken = min(max(wanted, 1), positions)
    grid = (np.arange(taken) * positions) // taken
    shift = (first + np.arange(samples)) // alike * 7919 % positions
    chosen = np.sort((grid[None, :] + shift[:, None]) % positions, axis=1)
    flat: npt.NDArray[np.intp] = (chosen + positions * np.arange(samples)[:, None]).ravel()
    return flat


def convolution_inputs(images: Float32Array, at: ConvolutionWindows, first: int, wanted: int) -> Float32Array:
    """Receptive fields of a convolution (im2col), at some of its windows.

    Args:
        images: [batch, channels, *spatial].
        at: Where the windows lie.
        first: See `spread_positions`.
        wanted: Windows per sample.

    Returns:
        [groups, windows, inputs of an output channel].
    """
    sizes, rank = images.shape[2:], len(at.kernel)
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(at.kernel, at.dilations, strict=True)]
    counts = [
        (size + before + after - span) // stride + 1
        for size, before, after, span, stride in zip(
            sizes, at.pads[:rank], at.pads[rank:], spans, at.strides, strict=True
        )
    ]
    positions = int(np.prod(counts))
    alike = int(np.clip(_ALIKE // max(min(wanted, positions), 1), 1, _MOST_ALIKE))
    chosen = spread_positions(first, len(images), positions, wanted, alike) % positions
    chosen = chosen.reshape(len(images), len(chosen) // max(len(images), 1))
    parts = _alike(chosen, _AT_ONCE // max(images.shape[1] * chosen.shape[1] * int(np.prod(at.kernel)), 1))
    corner = chosen[[part.start for part in parts]]
    places, inside = np.zeros((*corner.shape, 1), np.intp), np.ones((*corner.shape, 1), np.bool_)
    for axis, corners in enumerate(np.unravel_index(corner, counts)):
        taps = np.arange(at.kernel[axis]) * at.dilations[axis]
        along = (corners * at.strides[axis] - at.pads[axis])[..., None, None] + taps
        shape = *corner.shape, places.shape[-1] * len(taps)
        inside = (inside[..., None] & (along >= 0) & (along < sizes[axis])).reshape(shape)
        places = (places[..., None] * sizes[axis] + along.clip(0, sizes[axis] - 1)).reshape(shape)
    return _taken(images, parts, places, inside, at.groups)


def transposed_inputs(images: Float32Array, at: ConvolutionWindows, first: int, wanted: int) -> Float32Array:
    """What meets the weights of a transposed convolution at some of its outputs.

    That is a convolution over the input with zeros between its values, by the kernel turned round.

    Args:
        images: [batch, channels, *spatial].
        at: Windows of the transposed convolution; what is added to the output is taken off its end pads.
        first: See `spread_positions`.
        wanted: Outputs per sample.

    Returns:
        [groups, windows, inputs of an output channel].
    """
    sizes = [(size - 1) * stride + 1 for size, stride in zip(images.shape[2:], at.strides, strict=True)]
    spread = np.zeros((*images.shape[:2], *sizes), dtype=np.float32)
    spread[(slice(None), slice(None), *(slice(None, None, stride) for stride in at.strides))] = images
    # Output o takes tap k from position o + pad - k dilation of the spread input. Read from the far end of
    # the kernel that is a window of a plain convolution with `reach - pad` zeros around its input. Pads list
    # all dimensions before, then all after, hence `reach` twice; the taps are turned back in the end.
    reach = [(size - 1) * dilation for size, dilation in zip(at.kernel, at.dilations, strict=True)]
    pads = tuple(span - pad for span, pad in zip(2 * reach, at.pads, strict=True))
    straight = replace(at, strides=(1,) * len(reach), pads=pads)
    rows = convolution_inputs(spread, straight, first, wanted)
    taps = rows.reshape(*rows.shape[:2], images.shape[1] // at.groups, *at.kernel)
    return np.ascontiguousarray(np.flip(taps, axis=tuple(range(3, taps.ndim)))).reshape(rows.shape)


def matrix_rows(values: Float32Array, first: int, wanted: int) -> Float32Array:
    """Rows of an operand of a matrix product, some of each sample.

    Args:
        values: [batch, ..., columns].
        first: See `spread_positions`.
        wanted: Rows per sample.

    Returns:
        [1, rows, columns].
    """
    rows = values.reshape(-1, values.shape[-1])
    per_sample = len(rows) // max(len(values), 1)
    return rows[spread_positions(first, len(values), per_sample, wanted)][None]


def _alike(chosen: npt.NDArray[np.intp], most: int) -> list[slice]:
    """Samples side by side of which the same positions are chosen, [samples, windows]; not too many each."""
    changes = np.ones(len(chosen), np.bool_)
    changes[1:] = (chosen[1:] != chosen[:-1]).any(axis=1)
    bounds = [*np.flatnonzero(changes).tolist(), len(chosen)]
    return [
        slice(at, min(at + max(most, 1), stop))
        for start, stop in pairwise(bounds)
        for at in range(start, stop, max(most, 1))
    ]


def _taken(
    images: Float32Array,
    parts: Sequence[slice],
    places: npt.NDArray[np.intp],
    inside: npt.NDArray[np.bool_],
    groups: int,
) -> Float32Array:
    """Values of images, [batch, channels, *spatial], at flat places; 0 for none inside.

    Args:
        images: The images.
        parts: Those that have the same places.
        places: [parts, windows, taps].
        inside: As places: whether there is one.
        groups: Of the channels.

    Returns:
        [groups, windows, channels of a group times taps].
    """
    (batch, channels), (_, windows, taps) = images.shape[:2], places.shape
    found = np.empty((groups, batch, windows, channels // groups, taps), images.dtype)
    flat, sees_padding = _flat(images), not inside.all()
    for part, at, holds in zip(parts, places, inside, strict=True):
        values = flat[part].take(at, axis=2)
        if sees_padding:
            values *= holds
        values = values.reshape(len(values), groups, channels // groups, windows, taps)
        found[:, part] = values.transpose(1, 0, 3, 2, 4)
    return found.reshape(groups, batch * windows, channels // groups * taps)


def _flat(images: Float32Array) -> Float32Array:
    """[batch, channels, *spatial] as [batch, channels, positions]."""
    return images.reshape(*images.shape[:2], int(np.prod(images.shape[2:])))
