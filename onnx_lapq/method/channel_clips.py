"""Channels of a Relu6 in front of a depthwise convolution, each at the clip of its own least error.

A quantizer has one step size for all channels, and cuts all of them off at the same value. A depthwise
convolution has a weight for each channel, so that a channel may be scaled by any factor before it, and be
divided by the same behind it. With the factor max c / c_k, channel k is cut off at its own clip c_k.
"""

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.method.quantizer import Grid, fake_quantize

__all__ = ["BINS", "best_clips", "output_error"]

BINS = 512
_SHARES = np.geomspace(0.05, 1.0, 28)
"""Clips that are tried, as shares of the rectifier's upper limit."""

_DEAD = 1e-4
"""Channels of less power, as a share of the strongest one's, count as if they had this much."""


def best_clips(counts: npt.NDArray[np.int64], bits: int) -> FloatArray:
    """The clip of least squared error of every channel.

    Args:
        counts: Histograms of the channels between 0 and the upper limit of the rectifier, [channels, BINS].
        bits: Of the unsigned quantizer, 2 to 8.

    Returns:
        Shares of the limit, float64 [channels], in (0, 1]. Channels that are never above the first bin take
        the widest one.
    """
    values, highest = (np.arange(BINS) + 0.5) / BINS, (1 << bits) - 1
    steps = _SHARES[:, None] / highest
    codes = np.clip(np.rint(values / steps), 0, highest)
    errors = counts @ np.square(codes * steps - values).T
    clips: FloatArray = _SHARES[errors.argmin(axis=1)]
    silent = counts[:, 1:].sum(axis=1) == 0
    clips[silent] = clips[~silent].max(initial=_SHARES[0])
    return clips


def output_error(rows: Float32Array, weights: Float32Array, clips: FloatArray, bits: int) -> float:
    """Mean over the channels of the squared error of the convolution's outputs as a share of their power.

    Args:
        rows: Samples of what meets the weights, [channels, n, taps].
        weights: [channels, outputs of a channel, taps].
        clips: Of the channels in the units of the rows, [channels], or [1] for all of them.
        bits: Of the unsigned quantizer.
    """
    grid, turned = Grid(bits, signed=False), np.swapaxes(weights, 1, 2)
    steps = (clips / grid.qmax).astype(np.float32)[:, None, None]
    missed = np.square((fake_quantize(rows, steps, grid) - rows) @ turned, dtype=np.float64).sum(axis=(1, 2))
    power = np.square(rows @ turned, dtype=np.float64).sum(axis=(1, 2))
    return float((missed / np.maximum(power, _DEAD * power.max() + 1e-30)).mean())
