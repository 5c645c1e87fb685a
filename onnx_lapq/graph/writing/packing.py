"""Pack the codes of low-bit weights: two 4-bit or four 2-bit codes to a byte.

A packed tensor is INT4 or INT2 with a Cast to int8 behind it. Onnxruntime folds the Cast when it loads the
model, so the file is small and the integer kernels are those of int8 storage, bit for bit. A
DequantizeLinear straight from INT4 would run in float, and from INT2 does not load.
"""

import ml_dtypes
import onnx_ir as ir

from onnx_lapq.graph.attributes import new_initializer
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.writing.export import weight_codes_name

__all__ = ["opset_for", "pack", "packed_bytes"]

_PACKED_TYPES = {2: ml_dtypes.int2, 3: ml_dtypes.int4, 4: ml_dtypes.int4}
_OPSETS = {2: (25, 13), 3: (21, 10), 4: (21, 10)}
"""Bits to the opset and IR version that have the type."""


def opset_for(bits: int) -> int:
    """The lowest opset that stores weights of so many bits packed; 0 where int8 is as good."""
    return _OPSETS.get(bits, (0, 0))[0]


def packed_bytes(codes: int, bits: int) -> int:
    """Bytes that so many packed codes take."""
    return -(-codes // (8 // (2 if bits == 2 else 4))) if bits in _PACKED_TYPES else codes


def pack(model: ir.Model, placement: Placement) -> None:
    """Store weights of 4 bits and fewer packed, in place.

    Args:
        model: What `export` gives, of an opset that has the types.
        placement: Its quantizers.
    """
    for site in placement.weights:
        if site.bits in _PACKED_TYPES:
            _pack(model.graph, weight_codes_name(site.name), site.bits)
            model.ir_version = max(model.ir_version, _OPSETS[site.bits][1])


def _pack(graph: ir.Graph, name: str, bits: int) -> None:
    value = graph.initializers.pop(name)
    assert value.const_value is not None
    codes = value.const_value.numpy().astype(_PACKED_TYPES[bits])
    packed = new_initializer(graph, f"{name}_packed", codes)
    cast = ir.node("Cast", [packed], {"to": ir.DataType.INT8}, name=f"{name}_Cast")
    cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(ir.DataType.INT8)
    value.replace_all_uses_with(cast.outputs[0])
    cast.outputs[0].name = name
    graph.insert_before(graph[0], cast)
