"""Preparation changes the graph and not what it computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import MODELS, Builder, feeds, residual

from onnx_lapq import quantize
from onnx_lapq.errors import ModelError
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.operator_sets import MINIMUM_OPSET
from onnx_lapq.graph.simplify.opsets import NEWEST_OPSET
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import is_loadable, open_session, run

COUNT = 4


def image_model(b: Builder, output: str, channels: int, opset: int = 17) -> onnx.ModelProto:
    pooled = b.node("GlobalAveragePool", [output])
    b.node("Flatten", [pooled], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", channels]}, opset=opset)


def batch_norm(b: Builder, x: str, channels: int) -> str:
    statistics = [b.constant(b.random.uniform(0.5, 2, channels).astype(np.float32)) for _ in range(4)]
    return b.node("BatchNormalization", [x, *statistics])


def with_batch_norm() -> onnx.ModelProto:
    b = Builder()
    return image_model(b, b.relu(batch_norm(b, b.conv("image", 3, 4, bias=False), 4)), 4)


def with_pad_and_identity() -> onnx.ModelProto:
    b = Builder()
    pads = b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64))
    padded = b.node("Pad", [b.node("Identity", ["image"]), pads])
    return image_model(b, b.node("Dropout", [b.conv(padded, 3, 4, pads=[0, 0, 0, 0])]), 4)


def with_computed_pads() -> onnx.ModelProto:
    """Pads as TorchScript exports them: zeros from ConstantOfShape beside the constant ones."""
    b = Builder()
    zeros = b.node(
        "ConstantOfShape",
        [b.constant(np.array([2], dtype=np.int64))],
        value=helper.make_tensor("", TensorProto.INT64, [1], [0]),
    )
    ones = b.constant(np.array([1, 1], dtype=np.int64))
    padded = b.node("Pad", ["image", b.node("Concat", [zeros, ones, zeros, ones], axis=0)])
    return image_model(b, b.conv(padded, 3, 4, pads=[0, 0, 0, 0]), 4)


def with_weight_behind_nodes() -> onnx.ModelProto:
    b = Builder()
    half = b.constant(b.random.standard_normal((3, 3, 3, 4)).astype(np.float16))
    weight = b.node(
        "Transpose", [b.node("Cast", [b.node("Identity", [half])], to=TensorProto.FLOAT)], perm=[3, 2, 0, 1]
    )
    return image_model(b, b.node("Conv", ["image", weight], pads=[1, 1, 1, 1]), 4)


def with_constant_nodes() -> onnx.ModelProto:
    model = residual()
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    nodes = [helper.make_node("Constant", [], [t.name], name=f"k_{t.name}", value=t) for t in tensors]
    body = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes + body)
    return model


def with_initializers_as_inputs() -> onnx.ModelProto:
    model = residual()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def with_a_shared_weight_and_bias() -> onnx.ModelProto:
    b = Builder()
    weight, bias = b.weight(3, 3, 3, 3), b.constant(np.ones(3, np.float32))
    first = b.relu(b.node("Conv", ["image", weight, bias], pads=[1, 1, 1, 1]))
    return image_model(b, b.node("Conv", [first, weight, bias], pads=[1, 1, 1, 1]), 3)


def with_odd_names() -> onnx.ModelProto:
    model = residual()
    for number, node in enumerate(model.graph.node):
        node.name = ["", f"{number}/slash", f"mit Leerzeichen und äöü {number}"][number % 3]
    return model


def with_a_function() -> onnx.ModelProto:
    model = residual()
    function = helper.make_function(
        "custom",
        "Halve",
        ["x"],
        ["y"],
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    (relu, *_) = (node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "Halve", "custom"
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("custom", 1))
    return model


def with_opset(opset: int) -> onnx.ModelProto:
    b = Builder()
    added = b.node("Add", [b.relu(b.conv("image", 3, 3)), "image"])
    pooled = b.node("MaxPool", [added], kernel_shape=[2, 2], strides=[2, 2])
    return image_model(b, b.node("Softmax", [pooled], axis=1), 3, opset=opset)


def with_a_layer_norm_in_pieces() -> onnx.ModelProto:
    """A statistic of the last of three axes, which is no global pooling."""
    b = Builder()
    rows = b.node("Reshape", [b.conv("image", 3, 8), b.constant(np.array([0, 8, -1], np.int64))])
    centred = b.node("Sub", [rows, b.node("ReduceMean", [rows], axes=[2])])
    variance = b.node("ReduceMean", [b.node("Mul", [centred, centred])], axes=[2])
    normal = b.node("Div", [centred, b.node("Sqrt", [variance])])
    b.gemm(b.node("ReduceMax", [normal], axes=[2], keepdims=0), 8, 10)
    b.nodes[-1].output[0] = "scores"
    return b.model({"image": ["N", 3, 8, 8]}, {"scores": ["N", 10]})


def with_a_mean_of_integers() -> onnx.ModelProto:
    b = Builder()
    pixels = b.node(
        "Cast", [b.node("Mul", ["image", b.constant(np.array(9, np.float32))])], to=TensorProto.INT32
    )
    mean = b.node("Cast", [b.node("ReduceMean", [pixels], axes=[2, 3])], to=TensorProto.FLOAT)
    return image_model(b, b.node("Add", [mean, b.conv("image", 3, 3)]), 3)


VARIANTS = {
    **MODELS,
    "batch norm": with_batch_norm,
    "pad, identity, dropout": with_pad_and_identity,
    "computed pads": with_computed_pads,
    "weight behind nodes": with_weight_behind_nodes,
    "constant nodes": with_constant_nodes,
    "initializers as inputs": with_initializers_as_inputs,
    "shared weight": with_a_shared_weight_and_bias,
    "odd names": with_odd_names,
    "function": with_a_function,
    "opset 7": lambda: with_opset(7),
    "opset 9": lambda: with_opset(9),
    "opset 11": lambda: with_opset(11),
    "opset 21": lambda: with_opset(21),
    "newest opset": lambda: with_opset(onnx.defs.onnx_opset_version()),
    "layer norm in pieces": with_a_layer_norm_in_pieces,
    "mean of integers": with_a_mean_of_integers,
}


def fed(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return {name: values for name, values in feeds(model, COUNT).items() if name not in constants}


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_stay_the_same(name):
    model = VARIANTS[name]()
    if name == "newest opset" and not is_loadable(model):
        pytest.skip("an opset newer than the installed onnxruntime")
    inputs = fed(model)
    before = run(open_session(model), inputs)[0]
    prepared = prepare(ir.from_proto(model))
    after = run(open_session(prepared), inputs)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())
    assert prepared.opset_imports[""] >= MINIMUM_OPSET
    names = [node.name for node in prepared.graph]
    assert len(set(names)) == len(names)
    assert all(names)


def test_statistics_of_a_layer_norm_are_no_pooling():
    for model, means in ((with_a_layer_norm_in_pieces(), 2), (with_a_mean_of_integers(), 1)):
        kinds = [node.op_type for node in prepare(ir.from_proto(model)).graph]
        assert kinds.count("ReduceMean") == means


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 28, reason="onnx does not know opset 28")
def test_an_operator_that_is_newer_than_onnxruntime_quantizes_is_refused():
    b = Builder()
    x = b.node("Cast", [b.conv("image", 3, 3)], name="cast", to=TensorProto.FLOAT)
    model = image_model(b, x, 3, opset=28)
    with pytest.raises(ModelError, match=rf"'node_cast' \(Cast\): its opset, 28, .* opset {NEWEST_OPSET}"):
        prepare(ir.from_proto(model))


@pytest.mark.parametrize("make", [with_batch_norm, with_pad_and_identity])
def test_a_layer_keeps_its_name_when_it_takes_up_what_is_beside_it(make):
    model = make()
    (layer,) = (node for node in model.graph.node if node.op_type == "Conv")
    layer.name = "backbone/conv@1"
    (folded,) = (node for node in prepare(ir.from_proto(model)).graph if node.op_type == "Conv")
    assert folded.name == "backbone/conv@1"


def test_what_exporters_leave_is_folded():
    kinds = [node.op_type for node in prepare(ir.from_proto(with_batch_norm())).graph]
    assert "BatchNormalization" not in kinds
    kinds = [node.op_type for node in prepare(ir.from_proto(with_pad_and_identity())).graph]
    assert kinds[0] == "Conv"
    kinds = [node.op_type for node in prepare(ir.from_proto(with_computed_pads())).graph]
    assert kinds[0] == "Conv"
    (conv, *_) = prepare(ir.from_proto(with_weight_behind_nodes())).graph
    assert conv.op_type == "Conv"
    assert conv.inputs[1].is_initializer()


def test_every_layer_has_a_bias_of_its_own():
    prepared = prepare(ir.from_proto(with_a_shared_weight_and_bias()))
    biases = [node.inputs[2].name for node in prepared.graph if node.op_type == "Conv"]
    assert len(set(biases)) == 2


def test_a_quantized_model_is_refused():
    b = Builder()
    scale = b.constant(np.array(0.1, np.float32))
    b.node("QuantizeLinear", ["image", scale], name="y")
    model = ir.from_proto(b.model({"image": ["N"]}, {"y": ["N"]}, types={"y": TensorProto.UINT8}))
    with pytest.raises(ModelError, match="quantized already"):
        prepare(model)


def test_an_input_as_output_is_refused():
    model = residual()
    model.graph.output.append(model.graph.input[0])
    with pytest.raises(ModelError, match="'image' is an input"):
        prepare(ir.from_proto(model))


def test_external_data_is_read(tmp_path):
    model = residual()
    inputs = feeds(model, COUNT)
    before = run(open_session(model), inputs)[0]
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    after = run(open_session(prepare(load(tmp_path / "m.onnx"))), inputs)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())


def with_a_tensor_of_the_wrong_size() -> onnx.ModelProto:
    model = residual()
    broken = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), model.graph.initializer[0].name)
    broken.raw_data = broken.raw_data[:-4]
    model.graph.initializer[0].CopyFrom(broken)
    return model


@pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < 28, reason="the checker of onnx does not look before 1.23"
)
def test_a_tensor_of_the_wrong_size_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(with_a_tensor_of_the_wrong_size().SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx"):
        prepare(load(tmp_path / "m.onnx"))


def test_a_tensor_of_the_wrong_size_is_refused_by_a_run():
    with pytest.raises(ModelError):
        quantize(with_a_tensor_of_the_wrong_size(), feeds(residual(), 8))


def test_a_tensor_of_a_byte_too_many_is_refused():
    model = residual()
    model.graph.initializer[0].raw_data += b"\0"
    with pytest.raises(ModelError, match=r"865 bytes in place of 864; export the model again"):
        prepare(load(model))


def test_batch_norms_and_pads_whose_constants_are_nodes_are_folded():
    b = Builder()
    pads = b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64))
    padded = b.node("Pad", ["image", pads])
    model = image_model(b, batch_norm(b, b.conv(padded, 3, 4, pads=[0] * 4), 4), 4)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    kinds = {node.op_type for node in prepare(load(model)).graph}
    assert not kinds & {"Pad", "BatchNormalization", "Constant"}
