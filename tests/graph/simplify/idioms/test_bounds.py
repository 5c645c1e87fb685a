import numpy as np
import onnx
import onnx_ir as ir
from small_models import Builder, feeds

from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.folding import fold
from onnx_lapq.graph.simplify.idioms.bounds import flatten_bounds
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run


def ramp() -> tuple[onnx.ModelProto, list[str]]:
    b = Builder()
    bounds = [b.constant(np.array(number, np.float32), f"bound{number}") for number in (0, 8, 1)]
    b.node("Add", [b.conv("image", 3, 4), b.node("Range", bounds)], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]}), bounds


def test_bounds_of_a_range_that_are_vectors_of_one_number_are_single_numbers():
    model, bounds = ramp()
    inputs = feeds(model, 2)
    wanted = run(open_session(model), inputs)[0]
    for tensor in model.graph.initializer:
        if tensor.name in bounds:
            tensor.dims.append(1)
    found = load(model)
    fold(found)
    flatten_bounds(found)
    np.testing.assert_array_equal(run(open_session(found), inputs)[0], wanted)


def test_bounds_of_a_clip_of_shape_1_become_single_numbers():
    b = Builder()
    low, high = (b.constant(np.array([bound], np.float32)) for bound in (0, 6))
    first = b.node("Clip", [b.conv("image", 3, 4), low, high])
    b.node("Clip", [b.conv(first, 4, 4), low, high], name="y")
    prepared = prepare(ir.from_proto(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})))
    for node in prepared.graph:
        if node.op_type == "Clip":
            bounds = [value.const_value for value in node.inputs[1:]]
            assert [(bound.numpy().shape, float(bound.numpy())) for bound in bounds] == [((), 0), ((), 6)]
