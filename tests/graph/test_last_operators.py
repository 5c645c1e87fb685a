import numpy as np
import onnx_ir as ir
import pytest
from small_models import Builder, residual

from onnx_lapq.graph.last_operators import last_operators


def ends(b: Builder, output: str) -> set[str]:
    model = b.model({"x": ["N", 6]}, {output: ["N", "K"]})
    return set(last_operators(ir.from_proto(model))[output])


def test_a_classifier_ends_in_its_dense_layer():
    assert last_operators(ir.from_proto(residual())) == {"logits": {"Gemm"}}


def test_bias_scale_and_moving_operators_are_looked_through():
    b = Builder()
    x = b.node("Add", [b.node("MatMul", ["x", b.weight(6, 4)]), b.weight(4)])
    assert ends(b, b.node("Transpose", [b.node("Mul", [x, b.weight(1)])], perm=[0, 1])) == {"MatMul"}


def test_boxes_beside_scores_end_in_several():
    b = Builder()
    scores = b.node("Sigmoid", [b.gemm("x", 6, 3)])
    assert ends(b, b.node("Concat", [b.gemm("x", 6, 4), scores], axis=1)) == {"Gemm", "Sigmoid"}


@pytest.mark.parametrize("divisor", ["norm", "constant"])
def test_vectors_of_unit_length_end_in_a_division(divisor):
    b = Builder()
    y = b.gemm("x", 6, 4)
    norm = b.node("ReduceL2", [y], axes=[1]) if divisor == "norm" else b.constant(np.ones(1, np.float32))
    assert ends(b, b.node("Div", [y, norm])) == ({"Div"} if divisor == "norm" else {"Gemm"})


def test_what_passes_on_an_input_ends_in_nothing():
    b = Builder()
    assert ends(b, b.node("Identity", ["x"])) == set()
