"""Weights of recurrent layers: stored in codes, unpacked when the model is loaded."""

from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import quantized
from onnx import TensorProto, helper, numpy_helper
from small_models import Builder, feeds, tagger

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import ModelError
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run

COUNT = 16
CELLS = ("LSTM", "GRU", "RNN")


def network_of(model=None, **options):
    model = model or tagger()
    inputs = feeds(model, COUNT)
    return quantized(model, inputs, first_last="same", **options), inputs


def codes_of(model: onnx.ModelProto, cell: str) -> list[np.ndarray]:
    """The codes that the two weights of the cell are computed from."""
    producers = {output: node for node in model.graph.node for output in node.output}
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (layer,) = (node for node in model.graph.node if node.op_type == cell)
    found = []
    for name in layer.input[1:3]:
        while name in producers:
            name = producers[name].input[0]
        found.append(tensors[name])
    return found


def with_a_loop(op_type: str) -> onnx.ModelProto:
    """Steps [N, 6, 8] -> 5 scores each: a dense layer, a recurrence as Scan or Loop, a dense layer."""
    b = Builder()
    inner = b.constant((b.random.standard_normal((8, 8)) / 3).astype(np.float32))
    steps = b.node("MatMul", ["x", b.weight(8, 8)])
    state = b.node("ReduceMean", [steps], axes=[1], keepdims=0)
    nodes = [
        helper.make_node("MatMul", ["state", inner], ["product"]),
        helper.make_node("Tanh", ["product"], ["next"]),
        helper.make_node("Identity", ["next"], ["seen"]),
    ]
    float_row = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=["N", 8])
    reads, writes = [float_row("state"), float_row("step")], [float_row("next"), float_row("seen")]
    inputs, attributes = [state, steps], {"num_scan_inputs": 1, "scan_input_axes": [1]}
    if op_type == "Loop":
        nodes.append(helper.make_node("Identity", ["on"], ["still_on"]))
        on, still_on = (
            helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("on", "still_on")
        )
        number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
        reads, writes = [number, on, reads[0]], [still_on, *writes]
        inputs, attributes = [b.constant(np.array(6)), b.constant(np.array(True)), state], {}
    body = helper.make_graph(nodes, "body", reads, writes)
    b.nodes.append(helper.make_node(op_type, inputs, ["last", "all"], "loop", body=body, **attributes))
    b.node("MatMul", [b.node("Transpose", ["all"], perm=[1, 0, 2]), b.weight(8, 5)], "scores")
    return b.model({"x": ["N", 6, 8]}, {"scores": ["N", 6, 5]})


@pytest.mark.parametrize("op_type", ["Scan", "Loop"])
def test_dense_layers_behind_a_loop_are_quantized(op_type):
    network, inputs = network_of(with_a_loop(op_type))
    assert [site.value for site in network.placement.activations] == ["x", "all"]
    assert all(site.input_site is not None for site in network.placement.weights)
    assert len(network.placement.weights) == 2
    found = run(open_session(network.written()), inputs)[0]
    simulated = network.simulated_outputs()
    np.testing.assert_allclose(found, simulated, rtol=0, atol=1e-6 * np.ptp(simulated))


@pytest.mark.parametrize("cell", CELLS)
def test_both_weights_are_stored_in_codes_with_a_scale_for_every_row(cell):
    network, _ = network_of(tagger(cell))
    rows = 2 * 8 * {"LSTM": 4, "GRU": 3, "RNN": 1}[cell]
    assert [(codes.dtype, codes.shape) for codes in codes_of(network.written(), cell)] == [
        (np.int8, (rows, 12)),
        (np.int8, (rows, 8)),
    ]
    weights = [
        site.name for site in network.placement.weights if network.network.layers[site.name].kind.in_float
    ]
    assert [network.steps[name].shape for name in weights] == [(rows,)] * 2


@pytest.mark.parametrize(
    "options", [{}, {"weight_bits": 3}, {"per_channel": False}, {"target": "qnn"}], ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_the_written_model_computes_what_was_simulated(cell, options):
    network, inputs = network_of(tagger(cell), **options)
    simulated = network.simulated_outputs()
    written = network.written()
    onnx.checker.check_model(written, full_check=True)
    found = run(open_session(written), inputs)[0]
    np.testing.assert_allclose(found, simulated, rtol=0, atol=1e-6 * np.ptp(simulated))
    assert np.sqrt(np.mean((found - network.outputs[0]) ** 2)) < np.std(network.outputs[0])


def test_onnxruntime_folds_what_unpacks_the_codes(tmp_path):
    network, _ = network_of()
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(network.written().SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    (lstm,) = (node for node in optimised.graph.node if node.op_type == "LSTM")
    assert set(lstm.input[1:3]) <= {tensor.name for tensor in optimised.graph.initializer}


def test_codes_share_no_16_bits_where_no_integer_kernel_reads_them():
    network, _ = network_of()
    sites = {(layer.kind.node.op_type, layer.site) for layer in network.network.layers.values()}
    assert {(kind, site.bits, site.apart) for kind, site in sites} == {
        ("Gather", 8, 0),
        ("LSTM", 8, 0),
        ("MatMul", 8, 1),
    }


def test_4_bits_are_packed_and_compute_the_same():
    inputs, found = feeds(tagger(), COUNT), []
    for storage in ("int8", "packed"):
        config = QuantizationConfig(4, rounding="nearest", storage=storage, max_evaluations=1, workers=1)
        found.append(run(open_session(quantize(tagger(), inputs, config).model), inputs)[0])
    np.testing.assert_array_equal(*found)


def test_two_layers_may_share_their_weights():
    b = Builder()
    kernel = [b.weight(1, 16, 4), b.weight(1, 16, 4)]
    steps = b.node("Transpose", ["x"], perm=[1, 0, 2])
    for name in ("low", "high"):
        states = b.node("LSTM", [steps, *kernel], hidden_size=4)
        steps = b.node("Squeeze", [states, b.constant(np.array([1], np.int64))])
        b.node("Transpose", [steps], name, perm=[1, 0, 2])
    model = b.model({"x": ["N", 6, 4]}, {"low": ["N", 6, 4], "high": ["N", 6, 4]})
    network, inputs = network_of(model)
    np.testing.assert_array_equal(
        network.simulated_outputs(), run(open_session(network.written()), inputs)[0]
    )


def test_a_layer_that_is_left_out_keeps_its_float_weights():
    network, _ = network_of(exclude=("LSTM",))
    assert {codes.dtype for codes in codes_of(network.written(), "LSTM")} == {np.dtype(np.float32)}
    (reason,) = (node.reason for node in network.placement.in_float if node.op_type == "LSTM")
    assert reason == "left out by the options"


def test_a_model_whose_only_codes_are_those_of_an_lstm_is_not_quantized_again():
    network, _ = network_of(exclude=("Gather", "MatMul"))
    with pytest.raises(ModelError, match="its weight is stored as integer codes"):
        prepare(ir.from_proto(network.written()))
