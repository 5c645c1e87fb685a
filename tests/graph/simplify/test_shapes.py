"""Shapes that a file claims for inner values and outputs are not believed."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import Builder, feeds

from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run


def reshaped(claim: list[int]) -> onnx.ModelProto:
    """The inner value that a Reshape gives is claimed to have a shape that it has not."""
    b = Builder()
    size = b.node("Slice", [b.node("Shape", ["image"]), *(b.constant(np.array([i])) for i in (0, 1))])
    shape = b.node("Concat", [size, b.constant(np.array([-1]))], axis=0)
    b.gemm(b.node("Reshape", [b.conv("image", 3, 2), shape], name="rows"), 128, 5)
    model = b.model({"image": ["N", 3, 8, 8]}, {b.nodes[-1].output[0]: ["N", 5]})
    model.graph.value_info.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, claim))
    return model


@pytest.mark.parametrize("claim", [[1, 128], [64, 2], [1, 2, 64]])
def test_a_wrong_claim_about_an_inner_value_changes_nothing(claim):
    model = reshaped([1, 128])
    if claim != [1, 128]:
        model.graph.value_info[0].CopyFrom(helper.make_tensor_value_info("rows", TensorProto.FLOAT, claim))
    inputs = feeds(model, 4)
    expected = run(open_session(reshaped([4, 128])), inputs)[0]
    prepared = prepare(load(model))
    np.testing.assert_allclose(run(open_session(prepared), inputs)[0], expected, rtol=1e-5, atol=1e-5)


def conv(output: list[int | str]) -> ir.Model:
    b = Builder()
    b.node("Relu", [b.conv("image", 3, 4)], name="y")
    model = b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, output))
    return prepare(load(model))


def test_an_output_keeps_the_shape_it_is_said_to_have_unless_that_is_wrong():
    assert str(conv(["any", "c", 8, 8]).graph.outputs[0].shape) == "[any,c,8,8]"
    assert str(conv(["any", 5, 8, 8]).graph.outputs[0].shape) == "[N,4,8,8]"
    assert str(conv([1, 4]).graph.outputs[0].shape) == "[N,4,8,8]"


def test_a_sequence_that_folding_constructs_is_no_tensor():
    b = Builder()
    parts = b.node("SplitToSequence", [b.conv("image", 3, 4), b.constant(np.array([1, 3]))], axis=1)
    joined = b.node("ConcatFromSequence", [parts], axis=1)
    b.node("Mul", [joined, b.node("Cast", [b.node("SequenceLength", [parts])], to=1)], name="y")
    model = b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})
    inputs = feeds(model, 2)
    found = prepare(load(model))
    wanted = run(open_session(model), inputs)[0]
    np.testing.assert_allclose(run(open_session(found), inputs)[0], wanted, rtol=1e-5, atol=1e-5)
