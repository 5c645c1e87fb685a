"""What the package needs to know of a layer, and how it is for a plain matrix product.

A layer computes ``outputs = inputs @ rows.T + bias``, once for each of its groups of channels. Placement,
rewriting, bias correction and rounding ask here which tensor is the weight, which of its elements make up
``rows``, and which values of the activations make up ``inputs``.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.attributes import constant
from onnx_lapq.method.rounding.windows import matrix_rows

__all__ = ["LayerKind", "Shape"]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerKind:
    """A node seen as a layer; what is not overridden holds for a matrix product.

    Attributes:
        node: The node.
        weight_index: Its input that is the low-bit operand.
        data_indices: Its inputs that may be activations.
        bias_index: Its input that is a bias; None where the operator has none.
        writes_codes: Whether the integer kernel runs only with a quantizer behind it.
        multiplies: Whether something is multiplied by the weight, which a look-up does not do.
        in_float: Whether it computes in float, so that its weight is unpacked when the model is loaded.
    """

    node: ir.Node

    weight_index: ClassVar[int] = 1
    data_indices: ClassVar[tuple[int, ...]] = (0,)
    bias_index: ClassVar[int | None] = None
    writes_codes: ClassVar[bool] = False
    multiplies: ClassVar[bool] = True
    in_float: ClassVar[bool] = False

    @property
    def weight(self) -> ir.Value | None:
        """The low-bit operand, where it is a constant float tensor of two or more axes."""
        value = self.node.inputs[self.weight_index]
        tensor = constant(value)
        fits = tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) >= 2
        return value if fits else None

    @cached_property
    def shape(self) -> Shape:
        """Shape of the constant weight."""
        tensor = constant(self.node.inputs[self.weight_index])
        assert tensor is not None
        return tuple(int(size) for size in tensor.shape.numpy())

    @property
    def stored_shape(self) -> Shape:
        """Shape of the weight's codes in the file; `axis` is one of its axes."""
        return self.shape

    @property
    def axis(self) -> int:
        """Axis of the weight along which a scale per channel runs: that of the output channels."""
        return 0

    @property
    def groups(self) -> int:
        """Number of groups into which input and output channels are split."""
        return 1

    @property
    def output_channels(self) -> int:
        """Number of rows, and of values of a bias."""
        return self.shape[self.axis]

    @property
    def is_plain(self) -> bool:
        """Whether it multiplies its input as it is by its weight as it is."""
        return True

    @property
    def is_product(self) -> bool:
        """Whether `inputs` and `rows` are known and belong together."""
        return self.is_plain

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution of each channel by itself."""
        return False

    @property
    def sees_padding(self) -> bool:
        """Whether it reads zeros that no channel of its input has written."""
        return False

    @property
    def takes_scale_per_channel(self) -> bool:
        """Whether its integer kernel does."""
        return True

    @property
    def takes_blocks(self) -> bool:
        """Whether the weight is a matrix of [inputs, output channels] that may have scales by block."""
        return False

    @property
    def summed_axes(self) -> tuple[int, int] | None:
        """Axes of input and weight whose products are summed, where an entry may be split into two."""
        return None

    @property
    def apart(self) -> int | None:
        """How far apart in `rows` two inputs are whose products x86 kernels without VNNI add in 16 bits.

        These are input channels 2i and 2i + 1. 0 where none are, None where it is not known which meet.
        """
        return None if self.multiplies else 0

    def bias_edge(self) -> tuple[ir.Node, int] | None:
        """The node and the input at which a bias enters, where there is a place for one."""
        return None if self.bias_index is None else (self.node, self.bias_index)

    def rows(self, values: np.ndarray) -> np.ndarray:
        """An array of the weight's shape as [output channels, inputs of a channel]."""
        return np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `rows`: an array of the weight's shape."""
        others = np.delete(self.shape, self.axis)
        return np.moveaxis(rows.reshape(len(rows), *others), 0, self.axis)

    def scale_of_rows(self, scale: Float32Array) -> Float32Array:
        """A scale of the weight, one value or one along `axis`, as one value or one per row."""
        return scale

    def channel_shapes(self, axis: int) -> tuple[Shape, Shape]:
        """A shape for the weight, and one that broadcasts against it for one value per channel of an axis.

        Args:
            axis: That of the output channels, or the other one of the first two, of the input channels.
        """
        return self.shape, tuple(size if at == axis else 1 for at, size in enumerate(self.shape))

    def mean_inputs(self, mean: FloatArray) -> FloatArray | None:
        """Mean of `inputs` over the samples and all windows, float64 [groups, inputs of a channel].

        Args:
            mean: Mean over the samples of what the layer reads, without the batch dimension.

        Returns:
            None where it is not known, as where the layer is no product.
        """
        if not self.is_product or not mean.ndim:
            return None
        means: FloatArray = mean.reshape(-1, mean.shape[-1]).mean(axis=0, keepdims=True)
        return means

    def inputs(self, values: Float32Array, first: int, wanted: int) -> Float32Array:
        """What meets the rows at some of the windows, [groups, windows, inputs of a channel].

        Args:
            values: What the layer reads.
            first: Number of the first sample; see `onnx_lapq.method.rounding.windows.spread_positions`.
            wanted: Windows per sample.
        """
        return matrix_rows(values, first, wanted)
