"""Models as exporters and people write them: each is quantized where it can be, and stays what it was."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from onnx import TensorProto, helper, numpy_helper
from small_models import Builder, feeds, residual

from onnx_lapq.graph.placement.options import PlacementOptions
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run

COUNT = 16


def head(b: Builder, x: str, channels: int, output: str = "scores") -> None:
    b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [x])]), channels, 10)
    b.nodes[-1].output[0] = output


def image_model(b: Builder, **options) -> onnx.ModelProto:
    return b.model({"image": ["N", 3, 8, 8]}, {"scores": ["N", 10]}, **options)


def branch(name: str, source: str, op: str) -> onnx.GraphProto:
    """A sub-graph of no inputs that reads a value of the graph around it."""
    output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(op, [source], [f"{name}_out"], name=name)], name, [], [output])


def with_control_flow() -> onnx.ModelProto:
    b = Builder()
    stem = b.conv("image", 3, 8)
    least = b.node("ReduceMin", [b.node("Abs", [stem])], keepdims=0)
    condition = b.node("Greater", [least, b.constant(np.array(-1, np.float32))])
    branches = {"then_branch": branch("yes", stem, "Relu"), "else_branch": branch("no", stem, "Tanh")}
    chosen = b.node("If", [condition], **branches)
    head(b, b.relu(b.conv(chosen, 8, 8)), 8)
    return image_model(b)


def with_lstm() -> onnx.ModelProto:
    b = Builder()
    rows = b.node("Transpose", [b.node("Squeeze", [b.relu(b.conv("image", 3, 1))])], perm=[1, 0, 2])
    kernel = [b.weight(1, 16, 8), b.weight(1, 16, 4)]
    outputs = ["all", "last"]
    b.nodes.append(helper.make_node("LSTM", [rows, *kernel], outputs, name="lstm", hidden_size=4))
    b.gemm(b.node("Squeeze", ["last"]), 4, 10)
    b.nodes[-1].output[0] = "scores"
    return image_model(b)


def with_an_unknown_domain() -> onnx.ModelProto:
    b = Builder()
    gelu = b.node("Gelu", [b.conv("image", 3, 8, size=5)], domain="com.microsoft")
    head(b, b.relu(b.conv(gelu, 8, 8)), 8)
    return image_model(b, domains=["com.microsoft"])


def with_a_function() -> onnx.ModelProto:
    model = residual()
    body = [helper.make_node("Relu", ["x"], ["y"], name="inner")]
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Rectify", ["x"], ["y"], body, opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Rectify", "own"
    return model


def without_names() -> onnx.ModelProto:
    model = residual()
    for node in model.graph.node:
        node.name = ""
    return model


def with_odd_names() -> onnx.ModelProto:
    model = residual()
    renamed: dict[str, str] = {}
    for index, node in enumerate(model.graph.node):
        node.name = f"/слой {index}/Conv:0"
        renamed |= {name: f"/värde {index}\\{name}" for name in node.output}
    renamed |= {tensor.name: f"重み/{tensor.name} " for tensor in model.graph.initializer}
    renamed |= {"image": "serving default/image:0", "logits": "классы"}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = renamed[value.name]
    return model


def with_two_outputs() -> onnx.ModelProto:
    b = Builder()
    stem = b.relu(b.conv("image", 3, 8))
    features = b.relu(b.conv(stem, 8, 8))
    head(b, features, 8)
    return b.model({"image": ["N", 3, 8, 8]}, {"scores": ["N", 10], features: ["N", 8, 8, 8]})


def with_a_shared_weight() -> onnx.ModelProto:
    b = Builder()
    weight = b.weight(8, 8, 3, 3)
    x = b.relu(b.conv("image", 3, 8))
    for _ in range(2):
        x = b.relu(b.node("Conv", [x, weight], pads=[1] * 4))
    head(b, x, 8)
    return image_model(b)


def without_value_info_and_with_a_fixed_batch() -> onnx.ModelProto:
    model = residual()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    del model.graph.value_info[:]
    return model


def with_one_weight_as_output() -> onnx.ModelProto:
    model = residual()
    tensor = model.graph.initializer[4]
    model.graph.output.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def with_names_of_quantizers() -> onnx.ModelProto:
    b = Builder()
    kernels = [(b.random.standard_normal((4, size, 3, 3)) / 5).astype(np.float32) for size in (3, 4)]
    weights = [b.constant(kernels[0], "image_scale"), b.constant(kernels[1], "image_scale_codes")]
    x = b.node("Conv", ["image", weights[0]], "image_codes", pads=[1] * 4)
    x = b.node("Relu", [x], "image_dequantized")
    head(b, b.relu(b.node("Conv", [x, weights[1]], pads=[1] * 4)), 4)
    return image_model(b)


def with_a_batch_of_one_in_a_reshape() -> onnx.ModelProto:
    """What a view(1, -1) leaves of a batch: the input says N, the graph takes 1."""
    b = Builder()
    pooled = b.node("GlobalAveragePool", [b.relu(b.conv("image", 3, 8))])
    b.gemm(b.node("Reshape", [pooled, b.constant(np.array([1, 8], np.int64))]), 8, 10)
    b.nodes[-1].output[0] = "scores"
    return b.model({"image": ["N", 3, 8, 8]}, {"scores": [1, 10]})


def with_a_batch_of_one_merged_into_channels() -> onnx.ModelProto:
    """Takes any batch, and makes one row of it."""
    b = Builder()
    stem = b.relu(b.conv("image", 3, 8))
    rows = b.node("Reshape", [stem, b.constant(np.array([1, 8, -1], np.int64))])
    b.gemm(b.node("ReduceMean", [rows], axes=[2], keepdims=0), 8, 10)
    b.nodes[-1].output[0] = "scores"
    return b.model({"image": ["N", 3, 8, 8]}, {"scores": [1, 10]})


AS_THEY_COME = {
    function.__name__: function
    for function in (
        with_control_flow,
        with_lstm,
        with_an_unknown_domain,
        with_a_function,
        without_names,
        with_odd_names,
        with_two_outputs,
        with_a_shared_weight,
        with_names_of_quantizers,
        with_a_batch_of_one_in_a_reshape,
        with_a_batch_of_one_merged_into_channels,
        without_value_info_and_with_a_fixed_batch,
        with_one_weight_as_output,
    )
}


def signature(model: onnx.ModelProto) -> list[bytes]:
    return [value.SerializeToString() for value in (*model.graph.input, *model.graph.output)]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", AS_THEY_COME)
def test_written_model_is_valid_and_computes_what_was_simulated(name, bits):
    model = AS_THEY_COME[name]()
    inputs = feeds(model, COUNT)
    network = quantized(model, inputs, weight_bits=bits, activation_bits=bits)
    written = network.written()
    onnx.checker.check_model(written, full_check=True)
    assert signature(written) == signature(model)
    size = model.graph.output[0].type.tensor_type.shape.dim[0].dim_value or COUNT
    session = open_session(written)
    parts = [
        run(session, {name: array[at : at + size] for name, array in inputs.items()})[0]
        for at in range(0, COUNT, size)
    ]
    simulated = network.simulated_outputs()
    np.testing.assert_allclose(np.concatenate(parts), simulated, rtol=0, atol=1e-6 * np.ptp(simulated))


@pytest.mark.parametrize("name", AS_THEY_COME)
def test_at_8_bits_the_model_stays_close_to_float(name):
    model = AS_THEY_COME[name]()
    inputs = feeds(model, COUNT)
    network = quantized(model, inputs)
    error = network.simulated_outputs() - network.outputs[0]
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.std(network.outputs[0])


@pytest.mark.parametrize(
    ("name", "op_type", "reason"),
    [
        ("with_control_flow", "If", "control flow"),
        ("with_lstm", "LSTM", "recurrent"),
        ("with_an_unknown_domain", "Gelu", "domain 'com.microsoft'"),
    ],
)
def test_what_stays_in_float_is_named_and_the_rest_is_quantized(name, op_type, reason):
    model = AS_THEY_COME[name]()
    placement = quantized(model, feeds(model, COUNT)).placement
    (found,) = (node for node in placement.in_float if node.op_type == op_type)
    assert reason in found.reason
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    layers = {layer for site in placement.weights for layer in site.layers}
    assert sum("conv" in name for name in layers) == convolutions
    written = {site.name for site in placement.activations}
    on_codes = [site for site in placement.weights if "lstm" not in site.layers]
    assert {site.input_site for site in on_codes} <= written
    in_float = {node.name for node in placement.in_float if node.op_type != "LSTM"}
    assert not layers & in_float


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 15, 17, 19, 21, onnx.defs.onnx_opset_version()])
def test_every_opset(opset):
    b = Builder()
    x = b.relu(b.conv("image", 3, 8))
    head(b, b.node("Add", [x, b.relu(b.conv(x, 8, 8))]), 8)
    model = image_model(b, opset=opset)
    model.ir_version = 3 if opset == 7 else 10
    if opset == 7:
        tensors = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in b.initializers]
        model.graph.input.extend(tensors)
    inputs = {"image": feeds(residual(), COUNT)["image"]}
    network = quantized(model, inputs, weight_bits=4, activation_bits=4)
    onnx.checker.check_model(network.written(), full_check=True)
    assert [value.name for value in network.written().graph.input] == ["image"]
    assert len(network.placement.weights) == 3


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_computed_in_float_and_the_signature_stays(dtype):
    wide = residual()
    model = onnx.ModelProto()
    model.CopyFrom(wide)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    prepared = prepare(ir.from_proto(model))
    assert [value.dtype for value in (*prepared.graph.inputs, *prepared.graph.outputs)] == [kind, kind]
    assert len(place(prepared, PlacementOptions()).weights) == 6
    inputs = feeds(wide, COUNT)
    before = run(open_session(wide), inputs)[0]
    prepared.graph.inputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    prepared.graph.outputs[0].producer().attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
    prepared.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    after = run(open_session(prepared), inputs)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=0.02 * np.ptp(before))
