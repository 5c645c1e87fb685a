"""A prepared model that computes something else is refused; rounding, ties and chance are let through."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import Arrays
from onnx import TensorProto, helper
from small_models import Builder, feeds, residual

from onnx_lapq.errors import ModelError, RunError
from onnx_lapq.evaluation.fidelity import check_prepared, open_given, outputs_beside
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.prepare import prepare


def images(count: int = 4) -> Arrays:
    return Arrays(feeds(residual(), count))


def image_model(b: Builder, output: str, rank: int = 4, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    sizes = [f"d{axis}" for axis in range(rank)]
    return b.model({"image": ["N", 3, 8, 8]}, {output: sizes}, types={output: kind})


def test_a_sound_preparation_passes():
    model = residual()
    assert check_prepared(model, prepare(load(model)), images(), None) == []


@pytest.mark.parametrize("node", ["Conv", "Add", "GlobalAveragePool"])
def test_a_fault_names_the_output_its_size_and_the_first_inner_value(node):
    model = residual()
    prepared = prepare(load(model))
    (spoiled, *_) = (each for each in prepared.graph if each.op_type == node)
    value = spoiled.outputs[0]
    twice = ir.node("Add", [value, value])
    readers = list(value.uses())
    for reader, index in readers:
        if reader is not twice:
            reader.replace_input_with(index, twice.outputs[0])
    prepared.graph.insert_after(spoiled, twice)
    value.name, twice.outputs[0].name = f"{value.name}_half", value.name
    with pytest.raises(RunError, match=rf"output 'logits' .*% of its spread.* first in value .* {node}\)"):
        check_prepared(model, prepared, images(), None)


def test_an_output_of_another_shape_is_a_fault():
    model = residual()
    prepared = prepare(load(model))
    (old,) = prepared.graph.outputs
    old.name = "logits_4d"
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([0], np.int64)))
    prepared.graph.register_initializer(axes)
    deeper = ir.node("Unsqueeze", [old, axes])
    deeper.outputs[0].name = "logits"
    prepared.graph.append(deeper)
    prepared.graph.outputs[0] = deeper.outputs[0]
    with pytest.raises(RunError, match=r"output 'logits' has another shape .* first in value 'logits'"):
        check_prepared(model, prepared, images(), None)


def test_a_tie_that_rounding_decides_is_no_fault():
    """Two maps are the same but for an ulp, and the larger one is chosen."""
    b = Builder()
    kernel = np.abs(b.random.standard_normal((1, 3, 3, 3))).astype(np.float32)
    weight = b.constant(np.repeat(kernel, 2, axis=0), "weight")
    positive = b.node("Conv", [b.node("Abs", ["image"]), weight])
    b.node("ArgMax", [positive], name="chosen", axis=1)
    model = image_model(b, "chosen", kind=TensorProto.INT64)
    prepared = prepare(load(model))
    ulp = np.array([1, 1 + 1e-6], np.float32).reshape(2, 1, 1, 1)
    prepared.graph.initializers["weight"].const_value = ir.tensor(np.repeat(kernel, 2, axis=0) * ulp)
    (note,) = check_prepared(model, prepared, images(), None)
    assert note.startswith("output 'chosen' differs")


def test_a_random_operator_is_not_compared():
    b = Builder()
    noise = b.node("RandomNormalLike", ["image"])
    b.node(
        "Add", [b.conv(b.node("Add", ["image", noise]), 3, 4), b.constant(np.array(1, np.float32))], name="y"
    )
    model = image_model(b, "y")
    check_prepared(model, prepare(load(model)), images(), None)


def test_a_sample_that_the_given_model_does_not_take_is_the_models_fault():
    b = Builder()
    b.node("Reshape", [b.conv("image", 3, 4), b.constant(np.array([5, -1], np.int64))], name="y")
    model = image_model(b, "y", 2)
    prepared = prepare(load(model))
    with pytest.raises(ModelError, match="cannot be run on its first samples"):
        check_prepared(model, prepared, images(1), None)


def test_a_batch_that_the_graph_does_not_take_is_compared_one_by_one():
    b = Builder()
    pooled = b.node("GlobalAveragePool", [b.relu(b.conv("image", 3, 8))])
    b.gemm(b.node("Reshape", [pooled, b.constant(np.array([1, 8], np.int64))]), 8, 10)
    b.nodes[-1].output[0] = "y"
    model = image_model(b, "y", 2)
    assert check_prepared(model, prepare(load(model)), images(), None) == []


def test_half_precision_is_compared_loosely(tmp_path):
    b = Builder()
    half = b.node("Cast", ["image"], to=TensorProto.FLOAT16)
    weight = b.constant(b.random.standard_normal((4, 3, 3, 3)).astype(np.float16))
    narrow = b.node("Conv", [half, weight])
    b.node("Cast", [b.node("Mul", [narrow, narrow])], name="y", to=TensorProto.FLOAT)
    model = image_model(b, "y")
    (tmp_path / "half.onnx").write_bytes(model.SerializeToString())
    check_prepared(tmp_path / "half.onnx", prepare(load(model)), images(), None)


def test_a_model_that_onnxruntime_does_not_run_is_not_compared():
    b = Builder()
    kind = TensorProto.BFLOAT16
    b.node("Cast", [b.node("Erf", [b.node("Cast", ["image"], to=kind)])], name="y", to=TensorProto.FLOAT)
    model = image_model(b, "y")
    (note,) = check_prepared(model, prepare(load(model)), images(), None)
    assert note.startswith("the prepared model was not compared")


def test_float_outputs_of_both_models_are_put_beside_each_other():
    b = Builder()
    b.node("Mul", ["image", b.constant(np.array(2, np.float32))], name="y")
    b.node("ArgMax", ["y"], name="index", axis=1)
    outputs = {"y": ["N", 3, 8, 8], "index": ["N", 1, 8, 8]}
    model = b.model({"image": ["N", 3, 8, 8]}, outputs, types={"index": TensorProto.INT64})
    other = load(model)
    other.graph.initializers["c0"].const_value = ir.tensor(np.array(2.02, np.float32))
    samples = images()
    feeds = [samples.batch(0, 2), samples.batch(2, 4)]
    wanted, found = outputs_beside(open_given(model), open_given(other), feeds)
    assert list(wanted) == list(found) == ["y"]
    np.testing.assert_allclose(found["y"], 1.01 * wanted["y"], rtol=1e-6)
    assert wanted["y"].shape == (4, 3, 8, 8)


def test_control_flow_and_functions_are_compared_as_one_step():
    model = residual()
    opset = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Rectify", ["x"], ["y"], body, opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Rectify", "own"
    prepared = prepare(load(model))
    assert check_prepared(model, prepared, images(), None) == []
    weight = next(iter(prepared.graph.initializers.values()))
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.1))
    with pytest.raises(RunError, match="first in value 'conv0'"):
        check_prepared(model, prepared, images(), None)
