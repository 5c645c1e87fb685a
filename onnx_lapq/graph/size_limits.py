"""How large a model may be: what a stranger's file could make of a few bytes."""

import math

import onnx_ir as ir

from onnx_lapq.common.limits import physical_memory
from onnx_lapq.common.sizes import in_gigabytes
from onnx_lapq.errors import ModelError

__all__ = ["check_bytes", "check_nodes", "check_shapes", "has_long_ranges", "inlined_nodes"]

_MOST_NODES = 20_000
"""Nodes of a graph; language models have some ten thousand at most."""

_LONG_RANGE = 1 << 20


def check_nodes(nodes: int) -> None:
    """Refuse a graph of too many nodes.

    Raises:
        ModelError: Says how many there are.
    """
    if nodes > _MOST_NODES:
        raise ModelError(
            f"the graph has {nodes:,} nodes, functions inlined, and at most {_MOST_NODES:,} are taken; "
            "split the model"
        )


def inlined_nodes(model: ir.Model) -> int:
    """Number of nodes with those of sub-graphs, and of functions wherever they are called.

    Args:
        model: A model whose functions do not call themselves, as onnx's checker makes sure.
    """
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(body: ir.Graph | ir.Function) -> int:
        return sum(1 + called(node.op_identifier()) for node in ir.traversal.RecursiveGraphIterator(body))

    def called(name: ir.OperatorIdentifier) -> int:
        if name not in model.functions:
            return 0
        if name not in sizes:
            sizes[name] = size(model.functions[name])
        return sizes[name]

    return size(model.graph)


def check_shapes(model: ir.Model) -> None:
    """Refuse a tensor that no run can hold, and inputs that all hold nothing.

    Args:
        model: A model whose shapes are inferred.

    Raises:
        ModelError: Names the tensor.
    """
    inputs = list(model.graph.inputs)
    if inputs and all(0 in _known(value) for value in inputs):
        raise ModelError(
            f"input {inputs[0].name!r} has the shape {inputs[0].shape}; its sizes must be above 0"
        )
    for value in (*inputs, *(output for node in model.graph for output in node.outputs)):
        size = math.prod(_known(value)) * _bits(value) // 8
        if size > physical_memory():
            raise ModelError(
                f"tensor {value.name!r} of shape {value.shape} takes {in_gigabytes(size)}, more than the "
                f"{in_gigabytes(physical_memory())} of this machine; check the shapes of the model"
            )


def check_bytes(model: ir.Model) -> None:
    """Refuse a constant of more or fewer bytes than its shape takes; onnx's checker finds fewer alone.

    Args:
        model: Its constants are initializers.

    Raises:
        ModelError: Names the tensor.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.TensorProtoTensor) and tensor.raw.HasField("raw_data"):
            found = len(tensor.raw.raw_data)
            if found != tensor.nbytes:
                raise ModelError(
                    f"tensor {value.name!r} of shape {tensor.shape} has {found} bytes in place of "
                    f"{tensor.nbytes}; export the model again"
                )


def has_long_ranges(model: ir.Model) -> bool:
    """Whether a Range has too many values for onnx's shape inference, which writes each of them out."""
    return any(
        node.op_type == "Range" and math.prod(_known(node.outputs[0])) > _LONG_RANGE
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
    )


def _known(value: ir.Value) -> list[int]:
    """The sizes of a value that are no symbols."""
    return [] if value.shape is None else [size for size in value.shape if isinstance(size, int)]


def _bits(value: ir.Value) -> int:
    return 8 if value.dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING) else value.dtype.bitwidth
