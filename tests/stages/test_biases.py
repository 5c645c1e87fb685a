"""At the end every layer's mean output is that of the float network."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import Arrays
from small_models import Builder

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.bench import set_up
from onnx_lapq.progress import Clock, silent
from onnx_lapq.runtime.session import open_session, run
from onnx_lapq.stages.biases import correctable, matched_codes


def every_kind() -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> 5 scores and the inner values: all kinds of layers with a bias."""
    b = Builder(0)
    x = b.relu(b.conv("image", 3, 8, strides=[2, 2]))
    x = b.relu(b.conv(x, 8, 8, group=8))
    up = [x, b.weight(8, 3, 3, 3), b.constant(np.zeros(6, np.float32))]
    x = b.relu(b.node("ConvTranspose", up, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1], group=2))
    x = b.relu(b.conv(x, 6, 8, group=2, dilations=[2, 2], pads=[2] * 4))
    x = b.relu(b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [x])]), 8, 8))
    rows = b.node("Unsqueeze", [x, b.constant(np.array([1], np.int64))])
    product = b.node("MatMul", [rows, b.weight(8, 5)])
    scores = b.node("Add", [product, b.constant(np.zeros(5, np.float32))])
    return b.model({"image": ["N", 3, 8, 8]}, {scores: ["N", 1, 5]})


@pytest.mark.parametrize("bits", [(4, 4), (8, 4), (3, 8)])
def test_mean_outputs_of_all_kinds_of_layers_are_those_of_the_float_network(bits):
    model = every_kind()
    feeds = {"image": np.random.default_rng(1).standard_normal((16, 3, 8, 8)).astype(np.float32)}
    config = QuantizationConfig(weight_bits=bits[0], activation_bits=bits[1], loss="mse", workers=1)
    prepared = prepare(ir.from_proto(model))
    bench = set_up(
        prepared, place(prepared, config.placement_options()), Arrays(feeds), config, Clock(silent)
    )
    (steps,) = bench.layerwise.for_p([2.5], lambda done: None)
    assert {layer.kind.node.op_type for layer in correctable(bench.network)} == {
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
    }
    corrected = bench.network.with_codes(matched_codes(bench, steps, lambda done: None))

    (reference,) = bench.captured.blocks[0].outputs.values()

    def mean_error(network):
        (quantized,) = run(open_session(network.written(network.point(steps)), precise=True), feeds)
        return np.abs((quantized - reference).mean(axis=0)).max()

    spread = reference.std(axis=0).min()
    assert mean_error(corrected) < 0.02 * spread
    assert mean_error(corrected) < 0.2 * mean_error(bench.network)


def test_a_bias_behind_a_stack_of_matrices_stays_as_it_is():
    b = Builder(0)
    hidden = b.node("MatMul", ["x", b.weight(2, 6, 5)])
    hidden = b.relu(b.node("Add", [hidden, b.constant(np.ones(5, np.float32))]))
    model = b.model({"x": ["N", 2, 3, 6]}, {b.node("MatMul", [hidden, b.weight(5, 4)]): ["N", 2, 3, 4]})
    feeds = {"x": np.random.default_rng(0).standard_normal((16, 2, 3, 6)).astype(np.float32)}
    config = QuantizationConfig(weight_bits=4, activation_bits=4, loss="mse", max_evaluations=8)
    stages = quantize(model, feeds, config).report.stages
    assert stages[-1].loss <= stages[1].loss


def test_a_layer_of_more_rows_than_samples_gets_the_float_networks_mean():
    b = Builder(0)
    rows = b.node("Reshape", ["x", b.constant(np.array([-1, 8]))])
    scores = b.gemm(b.relu(b.gemm(rows, 8, 6)), 6, 5)
    model = b.model(
        {"x": ["N", 4, 8]}, {b.node("Reshape", [scores, b.constant(np.array([-1, 4, 5]))]): ["N", 4, 5]}
    )
    feeds = {"x": np.random.default_rng(1).standard_normal((16, 4, 8)).astype(np.float32)}
    config = QuantizationConfig(weight_bits=3, loss="mse", workers=1)
    prepared = prepare(ir.from_proto(model))
    bench = set_up(
        prepared, place(prepared, config.placement_options()), Arrays(feeds), config, Clock(silent)
    )
    (steps,) = bench.layerwise.for_p([2.5], lambda done: None)
    corrected = bench.network.with_codes(matched_codes(bench, steps, lambda done: None))
    (wanted,) = bench.captured.blocks[0].outputs.values()
    (found,) = run(open_session(corrected.written(corrected.point(steps)), precise=True), feeds)
    assert np.abs((found - wanted).mean(axis=(0, 1))).max() < 0.02 * wanted.std()
