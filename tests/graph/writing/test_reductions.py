"""Reductions that keep their axes give what they gave."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from small_models import Builder

from onnx_lapq.graph.writing.reductions import keep_reduced_axes
from onnx_lapq.runtime.session import open_session, run


def reduced(opset: int, *, is_output: bool) -> onnx.ModelProto:
    b = Builder()
    axes = [b.constant(np.array([1, -1], np.int64))] if opset > 17 else []
    attributes = {} if opset > 17 else {"axes": [1, -1]}
    y = b.node(
        "ReduceMax", [b.node("Neg", ["x"]), *axes], "y" if is_output else None, keepdims=0, **attributes
    )
    if not is_output:
        b.node("Add", [y, y], "y")
    return b.model({"x": ["N", 3, 4, 5]}, {"y": ["N", 4]}, opset=opset)


@pytest.mark.parametrize("is_output", [False, True])
@pytest.mark.parametrize("opset", [17, 18])
def test_a_squeeze_drops_the_axes_instead(opset, is_output):
    model = reduced(opset, is_output=is_output)
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)}
    rewritten = ir.from_proto(model)
    keep_reduced_axes(rewritten)
    proto = ir.to_proto(rewritten)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds[kinds.index("ReduceMax") + 1] == "Squeeze"
    np.testing.assert_array_equal(run(open_session(proto), x)[0], run(open_session(model), x)[0])


def test_a_reduction_of_everything_stays():
    nodes = [helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0)]
    values = [helper.make_tensor_value_info("x", 1, [2, 3]), helper.make_tensor_value_info("y", 1, [])]
    graph = ir.from_proto(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:])))
    keep_reduced_axes(graph)
    assert [node.op_type for node in graph.graph] == ["ReduceMax"]
