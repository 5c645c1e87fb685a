"""Channels of a Relu6 in front of a depthwise convolution, each at the clip of its own least error.

A quantizer has one step size for all channels, and cuts all of them off at the same value. A depthwise
convolution has a weight for each channel, so that a channel may be scaled by any factor before it, and be
divided by the same behind it. With the factor max c / c_k, channel k is cut off at its own clip c_k.
"""

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import FloatArray

__all__ = ["BINS", "clip_factors"]

BINS = 512
_SHARES = np.geomspace(0.05, 1.0, 28)
"""Clips that are tried, as shares of the rectifier's upper limit."""


def clip_factors(counts: npt.NDArray[np.int64], bits: int) -> FloatArray:
    """Factors on the channels with which one clip for all of them is the best one of each.

    Args:
        counts: Histograms of the channels between 0 and the upper limit of the rectifier, [channels, BINS].
        bits: Of the unsigned quantizer, 2 to 8.

    Returns:
        float64 [channels], >= 1, and 1 for the channels of the widest clip. Channels that are never above the
        first bin ask for none.
    """
    values, highest = (np.arange(BINS) + 0.5) / BINS, (1 << bits) - 1
    steps = _SHARES[:, None] / highest
    codes = np.clip(np.rint(values / steps), 0, highest)
    errors = counts @ np.square(codes * steps - values).T
    clips = _SHARES[errors.argmin(axis=1)]
    clips[counts[:, 1:].sum(axis=1) == 0] = clips.max(initial=0.0)
    factors: FloatArray = clips.max(initial=0.0) / clips
    return factors
