"""Bias correction: what quantized weights do to the mean output of a layer.

docs/method.md, "Bias correction", mean part.

It goes into the float bias of the layer, so that the weights themselves stay on the integer grid.
"""

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import AnyFloatArray, FloatArray
from onnx_lapq.errors import ModelError
from onnx_lapq.method.rounding.blocks import in_blocks
from onnx_lapq.method.rounding.windows import ConvolutionWindows

__all__ = ["mean_of_codes", "mean_output", "transposed_window_mean", "window_mean"]


def mean_output(weights: AnyFloatArray | npt.NDArray[np.int8], window_means: AnyFloatArray) -> FloatArray:
    """Mean output of every channel without its bias: ``sum_j W_kj * E[x_j]``.

    That of the weights less that of their codes is what to add to the bias so that the expected output stays.

    Args:
        weights: [K, J], one row per output channel.
        window_means: E[x] as :func:`window_mean` gives it, [J]; for a layer with G groups [G, J], where the
            output channels are split evenly and in order among the groups.

    Returns:
        float64 [K], in units of the layer's output.

    Raises:
        ModelError: The shapes do not fit each other.
    """
    channels, width = weights.shape
    means = np.atleast_2d(np.asarray(window_means, dtype=np.float64))
    groups = means.shape[0]
    if means.shape[1] != width or channels % groups:
        raise ModelError(f"weights of shape {weights.shape} do not fit input means of shape {means.shape}")
    grouped = weights.reshape(groups, channels // groups, width)
    mean: FloatArray = np.einsum("gkj,gj->gk", grouped, means, dtype=np.float64)
    return mean.reshape(channels)


def mean_of_codes(codes: npt.NDArray[np.int8], window_means: AnyFloatArray, block: int = 0) -> FloatArray:
    """Mean output of every channel in steps of its scale, or of the scales of its blocks.

    Args:
        codes: [K, J], one row per output channel.
        window_means: See `mean_output`.
        block: Inputs that share a scale, of the only group; 0 for all.

    Returns:
        float64 [K], or [K, blocks].

    Raises:
        ModelError: The shapes do not fit each other.
    """
    if not block:
        return mean_output(codes, window_means)
    mean: FloatArray = in_blocks(codes * window_means.reshape(-1), block).sum(axis=2)
    return mean


def window_mean(mean_image: AnyFloatArray, at: ConvolutionWindows) -> FloatArray:
    """The mean of every position of a convolution window over all windows, zero padding included.

    The mean over output positions is separable: along each spatial axis it is a matrix [kernel, size] that
    says how often a kernel tap meets a pixel.

    Args:
        mean_image: Mean input over the samples, [C, *spatial].
        at: Where the windows lie.

    Returns:
        float64 [C * prod(kernel)], in the order of a flattened ONNX kernel. With G groups, reshape to [G,
        -1].

    Raises:
        ModelError: The numbers of axes differ, or the window does not fit into the padded input.
    """
    axes = mean_image.ndim - 1
    if not len(at.kernel) == len(at.strides) == len(at.dilations) == axes or len(at.pads) != 2 * axes:
        raise ModelError(
            f"a window of {len(at.kernel)} axes does not fit an input of shape {mean_image.shape}"
        )
    result = np.asarray(mean_image, dtype=np.float64)
    for axis in range(axes):
        share = _tap_share(
            mean_image.shape[axis + 1],
            at.kernel[axis],
            at.strides[axis],
            (at.pads[axis], at.pads[axes + axis]),
            at.dilations[axis],
        )
        result = np.tensordot(result, share, axes=([1], [1]))
    return result.reshape(-1)


def transposed_window_mean(mean_image: AnyFloatArray, at: ConvolutionWindows) -> FloatArray:
    """The same for a transposed convolution: what every tap of the kernel adds to the mean output.

    Args:
        mean_image: Mean input over the samples, [C, *spatial].
        at: Windows of the transposed convolution; pads below zero where the output is lengthened.

    Returns:
        float64 [C * prod(kernel)].
    """
    axes = mean_image.ndim - 1
    result = np.asarray(mean_image, dtype=np.float64)
    for axis in range(axes):
        size, begin = mean_image.shape[axis + 1], at.pads[axis]
        span = (size - 1) * at.strides[axis] + (at.kernel[axis] - 1) * at.dilations[axis] + 1
        outputs = span - begin - at.pads[axes + axis]
        taps = np.arange(at.kernel[axis])[:, np.newaxis] * at.dilations[axis]
        reached = np.arange(size) * at.strides[axis] + taps - begin
        share = ((reached >= 0) & (reached < outputs)) / outputs
        result = np.tensordot(result, share, axes=([1], [1]))
    return result.reshape(-1)


def _tap_share(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int) -> FloatArray:
    """[kernel, size]: the share of output positions at which a tap of the kernel sees a pixel of the axis."""
    outputs = (size + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1
    if outputs < 1:
        raise ModelError(
            f"a window of {kernel} (dilation {dilation}) does not fit an axis of {size} with pads {pads}"
        )
    taps = np.arange(kernel)[:, np.newaxis]
    pixels = np.arange(outputs) * stride + taps * dilation - pads[0]
    inside = (pixels >= 0) & (pixels < size)
    share = np.zeros((kernel, size))
    share[np.broadcast_to(taps, pixels.shape)[inside], pixels[inside]] = 1.0 / outputs
    return share
