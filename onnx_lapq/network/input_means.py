"""What a layer's weights see on average: the closed form of its mean output."""

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import integers
from onnx_lapq.graph.geometry import convolution_windows
from onnx_lapq.method.rounding.bias_correction import transposed_window_mean, window_mean

__all__ = ["input_windows"]


def input_windows(node: ir.Node, mean: FloatArray) -> FloatArray | None:
    """Mean input of every weight of a channel, [groups, inputs of a channel]; None where not known.

    Args:
        node: A layer.
        mean: Mean over the samples of what it reads, without the batch dimension.
    """
    if node.op_type in ("Gemm", "MatMul"):
        if mean.ndim == 0:
            return None
        average: FloatArray = mean.reshape(-1, mean.shape[-1]).mean(axis=0, keepdims=True)
        return average
    if node.op_type == "ConvTranspose":
        return _transposed_windows(node, mean)
    if node.op_type != "Conv":
        return None
    windows = convolution_windows(node, mean.shape[1:])
    groups = np.split(mean, windows.groups)
    return np.stack(
        [
            window_mean(group, windows.kernel, windows.strides, windows.pads, windows.dilations)
            for group in groups
        ]
    )


def _transposed_windows(node: ir.Node, mean: FloatArray) -> FloatArray | None:
    if "output_shape" in node.attributes or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    windows = convolution_windows(node, mean.shape[1:])
    longer = integers(node, "output_padding", (0,) * len(windows.kernel))
    return np.stack(
        [
            transposed_window_mean(
                group, windows.kernel, windows.strides, windows.pads, windows.dilations, longer
            )
            for group in np.split(mean, windows.groups)
        ]
    )
