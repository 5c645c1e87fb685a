"""A soft argmax behind a convolution reads its probabilities along the last axis."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, feeds

from onnx_lapq.graph.writing.soft_argmaxes import turn_soft_argmaxes
from onnx_lapq.runtime.session import open_session, run

DISTANCES = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)


def head(
    *, axis: int = 1, read_twice: bool = False, last: bool = False, **attributes: object
) -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> the sides of a box at 64 positions."""
    b = Builder()
    flat = b.node("Reshape", [b.conv("image", 3, 32), b.constant(np.array([0, 4, 8, 64], np.int64))])
    shares = b.node("Softmax", [b.node("Transpose", [flat], perm=[0, 2, 1, 3])], axis=axis)
    mean = b.node("Conv", [shares, b.constant(DISTANCES)], "sides" if last else None, **attributes)
    if read_twice:
        mean = b.node("Add", [mean, b.node("ReduceMax", [shares])])
    if not last:
        b.node("Mul", [mean, b.constant(np.float32(8))], "sides")
    return b.model({"image": ["N", 3, 8, 8]}, {"sides": ["N", 1, None, None]})


def turned(model: onnx.ModelProto) -> ir.Model:
    found = ir.from_proto(model)
    turn_soft_argmaxes(found)
    return found


@pytest.mark.parametrize("options", [{}, {"last": True}, {"axis": -3}])
def test_the_answers_are_the_same(options):
    model = head(**options)
    found = turned(model)
    assert [node.op_type for node in found.graph].count("Conv") == 1
    assert [node.attributes.get_int("axis") for node in found.graph if node.op_type == "Softmax"] == [3]
    images = feeds(model, 4)
    wanted = run(open_session(ir.from_proto(model)), images)[0]
    np.testing.assert_allclose(run(open_session(found), images)[0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"axis": 3}, {"read_twice": True}, {"pads": [0, 1, 0, 1]}, {"strides": [1, 2]}]
)
def test_what_is_no_plain_soft_argmax_is_left_alone(options):
    found = turned(head(**options))
    assert [node.op_type for node in found.graph].count("Conv") == 2


def test_it_is_written_for_onnxruntime():
    model = head()
    network = quantized(model, feeds(model, 8))
    operators = [node.op_type for node in network.written().graph.node]
    assert (operators.count("Conv"), operators.count("MatMul")) == (1, 1)
