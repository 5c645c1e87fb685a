"""Layers whose inputs are windows over an image."""

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from math import prod

import numpy as np

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.attributes import integer, integers
from onnx_lapq.graph.layer_kinds.layer_kind import LayerKind, Shape
from onnx_lapq.method.rounding.bias_correction import transposed_window_mean, window_mean
from onnx_lapq.method.rounding.windows import (
    ConvolutionWindows,
    convolution_inputs,
    transposed_inputs,
)

__all__ = ["Conv", "ConvTranspose"]

_SAME = ("SAME_UPPER", "SAME_LOWER")


class _Convolution(LayerKind, ABC):
    """What Conv and ConvTranspose share: windows over an image, and groups along axis 0 of the weight."""

    bias_index = 2
    writes_codes = True

    @abstractmethod
    def windows(self, spatial: Shape) -> ConvolutionWindows | None:
        """How the windows lie over an image of some size; None where that is not known."""

    @abstractmethod
    def _mean_of_windows(self, image: FloatArray, at: ConvolutionWindows) -> FloatArray: ...

    @cached_property
    def groups(self) -> int:
        """As the node says."""
        return integer(self.node, "group", 1)

    @property
    def is_depthwise(self) -> bool:
        """Whether there are as many groups as input channels, and as output channels."""
        return self.shape[0] == self.groups == self.shape[1] * self.groups

    def channel_shapes(self, axis: int) -> tuple[Shape, Shape]:
        """As for any layer, but for the groups.

        Axis 0 of the weight counts the channels of all groups, group by group, axis 1 those of one group. So
        axis 0 is split into [groups, channels of a group], and a value per channel on axis 1, of which each
        group has its own, is [groups, 1, channels of a group, 1, ...].
        """
        if axis == 0:
            return super().channel_shapes(axis)
        first, second, *taps = self.shape
        ones = (1,) * len(taps)
        return (self.groups, first // self.groups, second, *taps), (self.groups, 1, second, *ones)

    def mean_inputs(self, mean: FloatArray) -> FloatArray | None:
        """Of the windows of every group, padding included."""
        at = self.windows(mean.shape[1:])
        if at is None:
            return None
        return self._mean_of_windows(mean, at).reshape(at.groups, -1)

    @cached_property
    def _auto_pad(self) -> str:
        return self.node.attributes.get_string("auto_pad", "NOTSET")

    def _lying(self, pads: Shape) -> ConvolutionWindows:
        kernel, ones = self.shape[2:], (1,) * len(self.shape[2:])
        strides, dilations = (integers(self.node, name, ones) for name in ("strides", "dilations"))
        return ConvolutionWindows(kernel, strides, pads, dilations, self.groups)

    def _pads(self) -> Shape:
        """The pads that are written out; none where `auto_pad` is VALID."""
        zeros = (0,) * 2 * len(self.shape[2:])
        return integers(self.node, "pads", zeros) if self._auto_pad == "NOTSET" else zeros


class Conv(_Convolution):
    """A convolution; its weight is [output channels, input channels of a group, *kernel]."""

    @property
    def sees_padding(self) -> bool:
        """Whether it may have pads."""
        return self._auto_pad in _SAME or any(integers(self.node, "pads", ()))

    @property
    def summed_axes(self) -> tuple[int, int] | None:
        """The input channels, where there is one group."""
        return (1, 1) if self.groups == 1 else None

    @property
    def apart(self) -> int | None:
        """The taps of the kernel, but where an odd channel meets one of the next tap.

        Kernels for depthwise convolutions add in 32 bits.
        """
        if self.is_depthwise:
            return 0
        taps = prod(self.shape[2:])
        return None if taps > 1 and self.shape[1] % 2 else taps

    def windows(self, spatial: Shape) -> ConvolutionWindows:
        """With the pads that `auto_pad` asks for."""
        at = self._with_written_pads
        if self._auto_pad not in _SAME:
            return at
        # One window per stride, rounded up; of an odd number of pads, the one more stands at the end for
        # SAME_UPPER, and at the beginning for SAME_LOWER.
        totals = [
            max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
            for size, taps, stride, dilation in zip(spatial, at.kernel, at.strides, at.dilations, strict=True)
        ]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return replace(at, pads=tuple(small + large if self._auto_pad == "SAME_UPPER" else large + small))

    @cached_property
    def _with_written_pads(self) -> ConvolutionWindows:
        return self._lying(self._pads())

    def inputs(self, values: Float32Array, first: int, wanted: int) -> Float32Array:
        """The windows, flattened (im2col)."""
        return convolution_inputs(values, self.windows(values.shape[2:]), first, wanted)

    def _mean_of_windows(self, image: FloatArray, at: ConvolutionWindows) -> FloatArray:
        return window_mean(image, at)


class ConvTranspose(_Convolution):
    """A transposed convolution; its weight is [input channels, output channels of a group, *kernel]."""

    sees_padding = True
    apart = 0  # onnxruntime has no integer kernel for it

    @property
    def axis(self) -> int:
        """The channels of one group."""
        return 1

    @property
    def output_channels(self) -> int:
        """Those of all groups."""
        return self.shape[1] * self.groups

    @property
    def is_product(self) -> bool:
        """Not where the pads follow from the output's shape."""
        return "output_shape" not in self.node.attributes and self._auto_pad not in _SAME

    def rows(self, values: np.ndarray) -> np.ndarray:
        """From [groups, inputs of a group, outputs of a group, taps] to [groups, outputs, inputs, taps]."""
        split = values.reshape(self.groups, values.shape[0] // self.groups, values.shape[1], -1)
        return split.transpose(0, 2, 1, 3).reshape(self.groups * values.shape[1], -1)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """The same way back."""
        split = rows.reshape(self.groups, self.shape[1], self.shape[0] // self.groups, -1)
        return split.transpose(0, 2, 1, 3).reshape(self.shape)

    def scale_of_rows(self, scale: Float32Array) -> Float32Array:
        """All groups share the scales of the channels of one."""
        return np.tile(scale, self.groups) if scale.ndim else scale

    def windows(self, spatial: Shape) -> ConvolutionWindows | None:
        """What is added to the output is taken off its end pads."""
        if not self.is_product:
            return None
        rank, pads = len(self.shape[2:]), self._pads()
        added = zip(pads[rank:], integers(self.node, "output_padding", (0,) * rank), strict=True)
        return self._lying((*pads[:rank], *(pad - more for pad, more in added)))

    def inputs(self, values: Float32Array, first: int, wanted: int) -> Float32Array:
        """The input values, and zeros, that every tap of the kernel meets."""
        at = self.windows(values.shape[2:])
        assert at is not None
        return transposed_inputs(values, at, first, wanted)

    def _mean_of_windows(self, image: FloatArray, at: ConvolutionWindows) -> FloatArray:
        return transposed_window_mean(image, at)
