"""Pack the codes of low-bit weights: two 4-bit or four 2-bit codes to a byte.

The bytes are uint8, and a Gather looks up the codes of each in a table of all 256. Onnxruntime folds these
nodes when it loads the model, so the file is small and the integer kernels are those of int8 storage, bit for
bit. Every runtime has these operators; tensors of INT4 and INT2 need onnxruntime 1.23 and 1.24.
"""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.graph.attributes import new_initializer
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.writing.export import weight_codes_name
from onnx_lapq.graph.writing.qdq import make_initializer

__all__ = ["TABLE_BYTES", "pack", "packed_bytes", "unpacking_bytes"]

_WIDTHS = {2: 2, 3: 4, 4: 4}
"""Bits of a code to the bits that it takes."""

TABLE_BYTES = 1700
"""Of the tables of 2-bit and 4-bit codes in a file, at most."""


def packed_bytes(codes: int, bits: int) -> int:
    """Bytes that so many packed codes take."""
    return -(-codes // (8 // _WIDTHS.get(bits, 8)))


def unpacking_bytes(codes: int, bits: int, name: str) -> int:
    """Bytes that the nodes behind so many packed codes take in a file, at most."""
    if bits not in _WIDTHS:
        return 0
    return (1 if codes * _WIDTHS[bits] % 8 == 0 else 2) * (390 + 14 * len(name))


def pack(model: ir.Model, placement: Placement) -> None:
    """Store weights of 4 bits and fewer packed, in place.

    Args:
        model: What `export` gives.
        placement: Its quantizers.
    """
    for site in placement.weights:
        if site.bits in _WIDTHS and not site.block:
            _pack(model.graph, weight_codes_name(site.name), _WIDTHS[site.bits])


def _pack(graph: ir.Graph, name: str, width: int) -> None:
    """Put packed bytes, and the nodes that unpack them, in the place of an initializer."""
    value = graph.initializers.pop(name)
    assert value.const_value is not None
    codes = value.const_value.numpy()
    packed = new_initializer(graph, f"{name}_packed", _bytes_of(codes, width))
    table = make_initializer(graph, f"codes_of_{width}_bits", _codes_of_bytes(width))
    nodes = [ir.node("Cast", [packed], {"to": ir.DataType.INT32})]
    nodes.append(ir.node("Gather", [table, nodes[-1].outputs[0]]))
    if codes.size % (8 // width):
        nodes.append(_shaped(graph, nodes[-1], f"{name}_flat_packed", (-1,)))
        ends = [new_initializer(graph, f"{name}_to{end}_packed", np.array([end])) for end in (0, codes.size)]
        nodes.append(ir.node("Slice", [nodes[-1].outputs[0], *ends]))
    nodes.append(_shaped(graph, nodes[-1], f"{name}_shape_packed", codes.shape))
    for index, node in enumerate(nodes):
        node.name = f"{name}_{node.op_type}{index}"
        node.outputs[0].name = f"{name}_{index}_packed"
    unpacked = nodes[-1].outputs[0]
    unpacked.shape, unpacked.type = value.shape, ir.TensorType(ir.DataType.INT8)
    value.replace_all_uses_with(unpacked)
    unpacked.name = name
    graph.insert_before(graph[0], nodes)


def _shaped(graph: ir.Graph, node: ir.Node, name: str, shape: tuple[int, ...]) -> ir.Node:
    """A Reshape of what a node gives."""
    return ir.node("Reshape", [node.outputs[0], new_initializer(graph, name, np.array(shape, np.int64))])


def _bytes_of(codes: npt.NDArray[np.int8], width: int) -> npt.NDArray[np.uint8]:
    """The first code in the lowest bits of the first byte, zeros behind the last one; uint8 [bytes]."""
    count = 8 // width
    rows = np.zeros((-(-codes.size // count), count), np.uint8)
    rows.reshape(-1)[: codes.size] = codes.reshape(-1).view(np.uint8) & (2**width - 1)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(rows << _places(width), axis=1)
    return packed


def _codes_of_bytes(width: int) -> npt.NDArray[np.int8]:
    """The codes in every byte, [256, codes in a byte]."""
    codes = np.arange(256, dtype=np.int16)[:, None] >> _places(width) & (2**width - 1)
    codes[codes >= 2 ** (width - 1)] -= 2**width
    table: npt.NDArray[np.int8] = codes.astype(np.int8)
    return table


def _places(width: int) -> npt.NDArray[np.uint8]:
    """How far each code of a byte is shifted."""
    return np.arange(0, 8, width, dtype=np.uint8)
