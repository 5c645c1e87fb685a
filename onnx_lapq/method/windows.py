"""The inputs that meet the weights of a layer, as rows of a matrix."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["convolution_inputs", "matrix_inputs", "spread_positions"]

Float32Array = npt.NDArray[np.float32]


def spread_positions(first: int, samples: int, positions: int, wanted: int) -> npt.NDArray[np.intp]:
    """Window positions to look at: equally many in every sample, spread evenly, shifted between samples.

    Args:
        first: Number of the first sample in the calibration set; decides the shift.
        samples: Samples in the batch.
        positions: Windows per sample.
        wanted: Windows to take per sample; all of them where there are no more.

    Returns:
        Flat indices into [samples, positions], ascending.
    """
    taken = min(max(wanted, 1), positions)
    grid = (np.arange(taken) * positions) // taken
    shift = (first + np.arange(samples)) * 7919 % positions
    chosen = np.sort((grid[None, :] + shift[:, None]) % positions, axis=1)
    flat: npt.NDArray[np.intp] = (chosen + positions * np.arange(samples)[:, None]).ravel()
    return flat


def convolution_inputs(
    images: Float32Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
    first: int,
    wanted: int,
) -> Float32Array:
    """Receptive fields of a convolution (im2col), at some of its windows.

    Args:
        images: [batch, channels, *spatial].
        kernel: Size per spatial dimension.
        strides: Steps between windows.
        pads: Zeros before all dimensions, then after all dimensions.
        dilations: Distances between taps.
        groups: Channel groups.
        first: See `spread_positions`.
        wanted: Windows per sample.

    Returns:
        [groups, windows, inputs of an output channel].
    """
    rank = len(kernel)
    padded = np.pad(images, [(0, 0), (0, 0), *((pads[d], pads[d + rank]) for d in range(rank))])
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, 2 + rank))
    view = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
    view = view[
        (
            slice(None),
            slice(None),
            *(slice(None, None, s) for s in strides),
            *(slice(None, None, d) for d in dilations),
        )
    ]
    view = np.moveaxis(view, 1, 1 + rank)
    shape = view.shape[: 1 + rank]
    chosen = spread_positions(first, shape[0], int(np.prod(shape[1:])), wanted)
    rows = view[np.unravel_index(chosen, shape)]
    split = rows.reshape(len(chosen), groups, -1)
    return np.ascontiguousarray(split.transpose(1, 0, 2))


def matrix_inputs(values: Float32Array, first: int, wanted: int) -> Float32Array:
    """Rows of the left operand of a matrix product, some of each sample.

    Args:
        values: [batch, ..., inputs].
        first: See `spread_positions`.
        wanted: Rows per sample.

    Returns:
        [1, rows, inputs].
    """
    rows = values.reshape(-1, values.shape[-1])
    per_sample = len(rows) // len(values)
    return rows[spread_positions(first, len(values), per_sample, wanted)][None]
