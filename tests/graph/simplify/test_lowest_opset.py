"""A lower opset spells the same operators."""

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from old_operators import newest_operators
from onnx import TensorProto, helper
from opset_runs import is_same, run

from onnx_lapq.graph.operator_sets import MINIMUM_OPSET
from onnx_lapq.graph.simplify.lowest_opset import use_lowest_opset


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    use_lowest_opset(graph, MINIMUM_OPSET)
    return ir.to_proto(graph)


def one_node(op: str, opset: int, kind: int = TensorProto.FLOAT, **attributes: object) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, [1, 4, 6, 6]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], **attributes)], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 5)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=12)


@pytest.mark.parametrize(
    ("model", "opset", "ir_version"),
    [
        (one_node("Relu", 24), 13, 7),
        (one_node("Relu", 24, TensorProto.INT32), 14, 7),
        (one_node("HardSwish", 25), 14, 7),
        (one_node("Mish", 25), 18, 8),
        (one_node("Gelu", 21), 20, 9),
        (one_node("Cast", 24, to=TensorProto.FLOAT, saturate=1), 13, 7),
        (one_node("MaxPool", 22, kernel_shape=[1, 1]), 13, 7),
        (one_node("MaxPool", 22, kernel_shape=[1, 1], ceil_mode=1), 22, 10),
    ],
    ids=lambda value: value.graph.node[0].op_type if isinstance(value, onnx.ModelProto) else str(value),
)
def test_the_opset_is_as_low_as_the_operators_allow(model, opset, ir_version):
    found = lowered(model)
    assert [(each.domain, each.version) for each in found.opset_import] == [("", opset)]
    assert found.ir_version == ir_version
    onnx.checker.check_model(found, full_check=True)


def test_an_attribute_that_means_something_keeps_the_opset():
    shape = one_node("Shape", 20, start=1)
    shape.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert lowered(shape).opset_import[0].version == 15


@pytest.mark.filterwarnings("ignore")
def test_every_operator_of_onnx_computes_the_same_at_its_lowest_opset():
    wrong, done = [], set()
    is_new = int(ort.__version__.split(".")[1]) >= 32
    for case in newest_operators():
        (opset,) = case.opsets
        model, feeds = case.model(opset), case.feeds()
        low = lowered(model)
        if low.opset_import[0].version == opset or any(name not in feeds for name in inputs_of(model)):
            continue
        try:
            before = run(model, feeds)
        except Exception:  # an operator or a type that onnxruntime does not run
            continue
        done.add(case.op_type)
        if not all(is_same(old, new) for old, new in zip(before, run(low, feeds), strict=True)):
            wrong.append((case.op_type, opset, low.opset_import[0].version))
    assert not wrong
    assert len(done) > (60 if is_new else 10)  # old releases do not run the opsets that onnx tests


def inputs_of(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]
