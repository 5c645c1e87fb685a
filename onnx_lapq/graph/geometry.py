"""Layers as matrices: which weight meets which input."""

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, integer, integers
from onnx_lapq.method.rounding.windows import ConvolutionWindows

__all__ = [
    "convolution_windows",
    "is_plain_product",
    "output_rows",
    "transposed_windows",
    "weight_from_rows",
]


def convolution_windows(node: ir.Node, spatial: tuple[int, ...]) -> ConvolutionWindows:
    """Read the windows of a Conv node.

    Args:
        node: A Conv or ConvTranspose with a constant weight.
        spatial: Spatial shape of its input.
    """
    weight = constant(node.inputs[1])
    assert weight is not None
    kernel = tuple(int(size) for size in weight.shape.numpy()[2:])
    ones = (1,) * len(kernel)
    strides = integers(node, "strides", ones)
    dilations = integers(node, "dilations", ones)
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(spatial, kernel, strides, dilations, upper=auto_pad == "SAME_UPPER")
    else:
        pads = (
            integers(node, "pads", (0,) * 2 * len(kernel)) if auto_pad == "NOTSET" else (0,) * 2 * len(kernel)
        )
    return ConvolutionWindows(kernel, strides, pads, dilations, integer(node, "group", 1))


def transposed_windows(node: ir.Node) -> ConvolutionWindows | None:
    """Read the windows of a ConvTranspose node; None where its pads follow from the output's shape.

    Args:
        node: A ConvTranspose with a constant weight.
    """
    weight = constant(node.inputs[1])
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if weight is None or "output_shape" in node.attributes or auto_pad not in ("NOTSET", "VALID"):
        return None
    kernel = tuple(int(size) for size in weight.shape.numpy()[2:])
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    pads = integers(node, "pads", 2 * zeros) if auto_pad == "NOTSET" else 2 * zeros
    added = zip(pads[len(kernel) :], integers(node, "output_padding", zeros), strict=True)
    return ConvolutionWindows(
        kernel=kernel,
        strides=integers(node, "strides", ones),
        pads=(*pads[: len(kernel)], *(pad - more for pad, more in added)),
        dilations=integers(node, "dilations", ones),
        groups=integer(node, "group", 1),
    )


def output_rows(node: ir.Node, values: np.ndarray) -> np.ndarray:
    """A weight-shaped tensor as [output channels, inputs of a channel].

    Args:
        node: Conv, ConvTranspose, Gemm, MatMul or Gather.
        values: Any array of the weight's shape.
    """
    if node.op_type == "ConvTranspose":
        groups = integer(node, "group", 1)
        split = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1)
        return split.transpose(0, 2, 1, 3).reshape(groups * values.shape[1], -1)
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not integer(node, "transB", 0)):
        return np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
    return values.reshape(values.shape[0], -1)


def weight_from_rows(node: ir.Node, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `output_rows`: an array of the weight's shape."""
    if node.op_type == "ConvTranspose":
        groups = integer(node, "group", 1)
        split = rows.reshape(groups, shape[1], shape[0] // groups, -1)
        return split.transpose(0, 2, 1, 3).reshape(shape)
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not integer(node, "transB", 0)):
        return np.moveaxis(rows, 0, -1).reshape(shape)
    return rows.reshape(shape)


def is_plain_product(node: ir.Node) -> bool:
    """Whether a layer multiplies its input as it is by its weight as it is."""
    return (
        node.attributes.get_float("alpha", 1.0) == 1.0
        and node.attributes.get_float("beta", 1.0) == 1.0
        and not integer(node, "transA", 0)
    )


def _same_pads(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    upper: bool,
) -> tuple[int, ...]:
    totals = [
        max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        for size, taps, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return tuple(small + large if upper else large + small)
