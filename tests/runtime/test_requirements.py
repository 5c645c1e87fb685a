"""The oldest onnxruntime that loads a file."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import quantized
from onnx import TensorProto, helper
from small_models import feeds, residual

from onnx_lapq.runtime.requirements import Requirement, needed_onnxruntime


def codes(kind: int, op: str, opset: int = 21, ir_version: int = 10, **attributes: object) -> ir.Model:
    x, s = helper.make_tensor("x", kind, [2], [0, 1]), helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    names = ["x", "s"] if op == "DequantizeLinear" else ["x"] * (2 if op == "Min" else 1)
    node = helper.make_node(op, names, ["y"], name="node", **attributes)
    graph = helper.make_graph([node], "g", [], [helper.make_empty_tensor_value_info("y")], [x, s])
    opsets = [helper.make_opsetid("", opset)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version))


INT8, INT4, INT2 = TensorProto.INT8, TensorProto.INT4, TensorProto.INT2


@pytest.mark.parametrize(
    ("model", "version", "reason"),
    [
        (codes(INT8, "DequantizeLinear", 13, 7), "1.15", ""),
        (codes(INT8, "DequantizeLinear", 20, 9), "1.17", "opset 20"),
        (codes(INT8, "DequantizeLinear", 21, 10), "1.18", "opset 21"),
        (codes(INT8, "DequantizeLinear", 13, 11), "1.23", "IR version 11"),
        (codes(INT8, "DequantizeLinear", 99, 8), "1.32", "opset 99"),
        (codes(INT8, "Min", 13, 7), "1.24", "Min of integers in 'node'"),
        (codes(INT4, "DequantizeLinear"), "1.19", "4-bit tensors in 'node'"),
        (codes(INT4, "Cast", to=INT8), "1.23", "4-bit tensors in 'node'"),
        (codes(INT2, "Cast", 13, 7, to=INT8), "1.24", "2-bit tensors in 'node'"),
    ],
)
def test_the_oldest_onnxruntime_and_what_it_brought(model, version, reason):
    assert needed_onnxruntime(model) == Requirement(version, reason)


@pytest.mark.parametrize(("opset", "version"), [(17, "1.17"), (21, "1.18")])
def test_activations_of_16_bits_came_later(opset, version):
    model = residual()
    network = quantized(model, feeds(model, 8), target="qnn", activation_bits=16)
    network.network.model.opset_imports[""] = opset
    assert needed_onnxruntime(ir.from_proto(network.written())).onnxruntime == version


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_written_runs_on_the_oldest(bits):
    model = residual()
    network = quantized(model, feeds(model, 8), weight_bits=bits, activation_bits=bits)
    assert needed_onnxruntime(ir.from_proto(network.written())) == Requirement("1.15")
    assert "Clip" in {node.op_type for node in network.written().graph.node} or bits == 8
    assert np.isfinite(network.outputs[0]).all()
