"""Layers that are matrix products, and the look-up in a table."""

from math import prod

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant, integer
from onnx_lapq.graph.layer_kinds.layer_kind import LayerKind

__all__ = ["Gather", "Gemm", "MatMul"]


_SCALED_ROW = 32
"""Values that a row of a table has at least for a scale of its own, which takes a bit of each of them."""


class Gather(LayerKind):
    """The look-up of rows in an embedding table."""

    weight_index = 0
    data_indices = ()
    multiplies = False
    is_product = False

    @property
    def takes_scale_per_channel(self) -> bool:
        """Whether rows are looked up, of enough values."""
        return not integer(self.node, "axis", 0) and prod(self.shape[1:]) >= _SCALED_ROW


class Gemm(LayerKind):
    """The product of two matrices, one or both transposed, times alpha, plus beta times the bias."""

    bias_index = 2

    @property
    def axis(self) -> int:
        """That of the weight as it is multiplied."""
        return 0 if integer(self.node, "transB", 0) else 1

    @property
    def is_plain(self) -> bool:
        """Whether there is no factor, and no transposed input."""
        alpha, beta = (self.node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
        return alpha == beta == 1.0 and not integer(self.node, "transA", 0)

    @property
    def apart(self) -> int | None:
        """Neighbours, but with a factor or a transposed input."""
        return 1 if self.is_plain else None

    @property
    def takes_blocks(self) -> bool:
        """Not with a transposed operand, which onnxruntime does not fuse."""
        return self.is_plain and self.axis == 1

    @property
    def summed_axes(self) -> tuple[int, int] | None:
        """Not with a transposed input."""
        return None if integer(self.node, "transA", 0) else (1, 1 - self.axis)


class MatMul(LayerKind):
    """A product of matrices or of stacks of matrices; a bias is a node of its own.

    A weight that is a stack has rows that belong to several products, which have no means or windows in
    common, and an integer kernel that takes one scale.
    """

    data_indices = (0, 1)

    @property
    def axis(self) -> int:
        """The last."""
        return len(self.shape) - 1

    @property
    def is_product(self) -> bool:
        """Not with a stack."""
        return len(self.shape) == 2

    @property
    def takes_scale_per_channel(self) -> bool:
        """Not with a stack."""
        return len(self.shape) == 2

    @property
    def apart(self) -> int | None:
        """Neighbours, but in a stack of matrices with an odd number of inputs."""
        return 1 if len(self.shape) == 2 or not self.shape[-2] % 2 else None

    @property
    def takes_blocks(self) -> bool:
        """Not with a stack."""
        return len(self.shape) == 2

    @property
    def summed_axes(self) -> tuple[int, int] | None:
        """Not with a stack."""
        return (-1, 0) if len(self.shape) == 2 else None

    def bias_edge(self) -> tuple[ir.Node, int] | None:
        """The constant vector of an Add that alone reads the product."""
        readers = list(self.node.outputs[0].uses())
        if len(readers) != 1 or self.node.outputs[0].is_graph_output():
            return None
        reader, index = readers[0]
        if reader.op_type != "Add" or reader.domain != "" or reader.graph is not self.node.graph:
            return None
        addend = constant(reader.inputs[1 - index])
        return (reader, 1 - index) if addend is not None and len(addend.shape) == 1 else None
