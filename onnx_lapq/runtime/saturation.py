"""Whether this processor is an x86 one that adds products of uint8 and int8 without loss, by VNNI."""

import platform
from functools import cache

import numpy as np

__all__ = ["has_vnni"]

_X86 = ("amd64", "x86_64")
_DEPTH = 64


@cache
def has_vnni() -> bool:
    """Whether integer kernels of onnxruntime add all products of full range exactly here.

    Processors without VNNI add two of them in int16, which 2 * 255 * 127 overflows. What onnxruntime gives
    for such a product says more than the flags of the processor: it has to use VNNI, too.
    """
    if platform.machine().lower() not in _X86:
        return False
    import onnx

    from onnx_lapq.runtime.session import open_session, run

    weight = onnx.numpy_helper.from_array(np.full((_DEPTH, _DEPTH), 127, np.int8), "w")
    values = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [_DEPTH, _DEPTH])]
    sums = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [_DEPTH, _DEPTH])]
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "products", values, sums, [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)
    (found,) = run(open_session(model), {"x": np.full((_DEPTH, _DEPTH), 255, np.uint8)})
    return bool((found == _DEPTH * 255 * 127).all())
