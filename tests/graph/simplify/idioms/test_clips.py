import numpy as np
import onnx_ir as ir
from small_models import Builder

from onnx_lapq.graph.simplify.prepare import prepare


def test_bounds_of_shape_1_become_single_numbers():
    b = Builder()
    low, high = (b.constant(np.array([bound], np.float32)) for bound in (0, 6))
    first = b.node("Clip", [b.conv("image", 3, 4), low, high])
    b.node("Clip", [b.conv(first, 4, 4), low, high], name="y")
    prepared = prepare(ir.from_proto(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})))
    for node in prepared.graph:
        if node.op_type == "Clip":
            bounds = [value.const_value for value in node.inputs[1:]]
            assert [(bound.numpy().shape, float(bound.numpy())) for bound in bounds] == [((), 0), ((), 6)]
