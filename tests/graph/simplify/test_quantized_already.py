"""A model is quantized already when it holds codes, whatever the operators around them are."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from small_models import Builder, feeds

from onnx_lapq.errors import ModelError
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.graph.simplify.quantized_already import is_quantized
from onnx_lapq.runtime.session import open_session, run


def with_codes(form: str = "scaled", dtype=np.int8) -> onnx.ModelProto:
    b = Builder()
    codes = b.constant(b.random.integers(0, 100, (5, 12)).astype(dtype))
    weight = b.node("Cast", [codes], to=TensorProto.FLOAT)
    if form == "shifted":
        weight = b.node("Sub", [weight, b.constant(np.array(50, np.float32))])
    weight = b.node("Mul", [weight, b.constant(b.random.uniform(0.01, 0.02, (5, 1)).astype(np.float32))])
    if form == "turned":
        b.node("MatMul", ["x", b.node("Transpose", [weight])])
    else:
        b.node("Gemm", ["x", weight], transB=1)
    b.nodes[-1].output[0] = "y"
    return b.model({"x": ["N", 12]}, {"y": ["N", 5]})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("form", ["scaled", "shifted", "turned"])
def test_codes_behind_cast_and_mul_are_refused_with_what_to_do(form, dtype):
    with pytest.raises(ModelError, match=r"quantized already; give the float model, or .* --fold-codes"):
        prepare(ir.from_proto(with_codes(form, dtype)))


def test_codes_are_folded_where_the_user_says_so():
    model = with_codes("shifted")
    prepared = prepare(ir.from_proto(model), fold_codes=True)
    assert [node.op_type for node in prepared.graph] == ["Gemm"]
    inputs = feeds(model, 3)
    expected = run(open_session(model), inputs)[0]
    np.testing.assert_allclose(run(open_session(prepared), inputs)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_weights_of_other_types_behind_cast_are_no_codes(dtype):
    assert [node.op_type for node in prepare(ir.from_proto(with_codes(dtype=dtype))).graph] == ["Gemm"]


def test_bytes_that_are_an_input_are_no_codes():
    b = Builder()
    b.node("Gemm", [b.node("Cast", ["x"], to=TensorProto.FLOAT), b.weight(5, 12)], name="y", transB=1)
    model = b.model({"x": ["N", 12]}, {"y": ["N", 5]}, types={"x": TensorProto.UINT8})
    assert not is_quantized(prepare(ir.from_proto(model)))
