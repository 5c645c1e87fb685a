"""Weights that low bits can represent better: outlier channels split in two, tensors as sums of two.

docs/method.md, "Baselines".

OCS: Zhao et al., *Improving neural network quantization without retraining using outlier channel splitting*.
DUAL: Kravchik et al., *Low-bit quantization of neural networks for efficient inference*.
"""

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.method.quantizer import Grid, fake_quantize
from onnx_lapq.method.step_sizes.distribution import distribution_of
from onnx_lapq.method.step_sizes.layerwise import step_sizes, step_sizes_per_channel

__all__ = ["residual", "split_outliers"]


_MMSE = 2.0


def split_outliers(rows: FloatArray, count: int, levels: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Split the channels that hold the largest weights, one after another, into two of half the size.

    The halves of ``v`` are ``v/2 - s/4`` and ``v/2 + s/4``, where ``s`` is the step size that the split
    tensor has when nothing is clipped: rounded to nearest, their codes add up to that of ``v``.

    Args:
        rows: Weights, [channels, n], one row for each input channel.
        count: Number of splits; a half may be split again.
        levels: Codes above zero.

    Returns:
        The channel that each new one comes from, [channels + count], the old ones first and in order; and the
        new rows. The rows of a channel add up to what it was.
    """
    _, halved = _split(rows, count, 0.0)
    return _split(rows, count, float(np.abs(halved).max(initial=0.0)) / levels)


def _split(rows: FloatArray, count: int, step: float) -> tuple[npt.NDArray[np.int64], FloatArray]:
    sources, parts = list(range(len(rows))), list(rows)
    peaks = list(np.abs(rows).max(axis=1))
    for _ in range(count):
        worst = int(np.argmax(peaks))
        half = parts[worst] / 2
        parts[worst] = half - step / 4
        parts.append(half + step / 4)
        sources.append(sources[worst])
        peaks[worst] = np.abs(half).max()
        peaks.append(peaks[worst])
    return np.array(sources), np.array(parts)


def residual(channels: Float32Array, grid: Grid, *, per_channel: bool) -> Float32Array:
    """What is left of a tensor when its low-bit version of least squared error is taken away.

    Args:
        channels: Weights, [scales, n].
        grid: The codes.
        per_channel: One step size for each row instead of one for all.

    Returns:
        float32 [scales, n].
    """
    if per_channel:
        steps = step_sizes_per_channel(channels, grid, [_MMSE])[0][:, np.newaxis]
    else:
        steps = step_sizes(distribution_of(channels), grid, [_MMSE])
    rest: Float32Array = channels - fake_quantize(channels, steps, grid)
    return rest
