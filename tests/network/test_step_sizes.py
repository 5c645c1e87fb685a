"""Step sizes of the whole network, before the search."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import Arrays, bench_of, quantized
from small_models import Builder, activated_images, feeds

from onnx_lapq.calibration.histogram import StreamingHistogram
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.written_values import divide_written, written_values
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.float_network import calibrate
from onnx_lapq.network.layer_windows import LayerWindows
from onnx_lapq.network.layers import read_layers
from onnx_lapq.network.step_sizes import LayerwiseSteps, activation_grid


@pytest.mark.parametrize(("bits", "inputs", "the_same"), [(8, 64, True), (8, 9, False), (4, 64, False)])
def test_long_rows_of_many_bits_have_the_steps_of_min_max_at_every_p(bits, inputs, the_same):
    b = Builder()
    b.node("MatMul", ["x", b.weight(inputs, 16)], "y")
    model = b.model({"x": ["N", inputs]}, {"y": ["N", 16]})
    samples = {"x": np.random.default_rng(0).standard_normal((32, inputs)).astype(np.float32)}
    network = quantized(
        model, samples, weight_bits=bits, first_last="same", per_channel=True, target="generic"
    )
    (name,) = network.network.layers
    low, high = (steps[name] for steps in network.layerwise.for_p([2, 4], lambda done: None))
    assert np.array_equal(low, network.layerwise.minmax()[name]) == the_same
    assert np.array_equal(low, high) == the_same
    assert low.shape == (16,)


def test_codes_that_share_16_bits_are_not_cut_off():
    b = Builder()
    b.node("MatMul", ["x", b.weight(8, 16)], "y")
    model = b.model({"x": ["N", 8]}, {"y": ["N", 16]})
    samples = {"x": np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)}
    network = quantized(model, samples, per_channel=True)
    (layer,) = network.network.layers.values()
    steps, rows = network.steps[layer.site.name], layer.rows(layer.values)
    pairs = (
        np.maximum(rows, 0).reshape(16, 4, 2).sum(axis=2),
        np.maximum(-rows, 0).reshape(16, 4, 2).sum(axis=2),
    )
    assert (np.maximum(*pairs).max(axis=1) <= 128.001 * steps).all()
    assert (steps < 2.1 * np.abs(rows).max(axis=1) / 127).all()


def test_what_factors_multiply_is_not_cut_off_for_all_p():
    proto = activated_images()
    model = prepare(ir.from_proto(proto))
    options = QuantizationConfig().placement_options()
    (written,) = written_values(model, place(model, options))
    divide_written(model.graph, written, np.arange(1.0, 9.0))
    placement = place(model, options)
    (site,) = (site for site in placement.activations if site.value == "inner")
    captured, _ = calibrate(model, placement, Arrays(feeds(proto, 32)), 1, lambda done: None)
    histogram = captured.histograms["inner"]
    grids = {
        one.name: activation_grid(
            captured.histograms[one.value], one.bits, curve=one.curve, cuts_off=one.cuts_off
        )
        for one in placement.activations
    }
    layers = read_layers(model, placement.weights)
    layerwise = LayerwiseSteps(placement.activations, grids, captured.histograms, layers, 1)
    grid = grids[site.name]
    for steps in layerwise.for_p([2, 4], lambda done: None):
        assert steps[site.name] * (grid.qmax - grid.zero_point) >= histogram.maximum * 0.999
    cut = activation_grid(histogram, site.bits, curve=site.curve)
    assert cut.zero_point > grid.zero_point  # which leaves fewer codes above


@pytest.mark.parametrize(("bits", "reach"), [(4, 2.0), (6, 2.0), (7, 9.0), (8, 9.0)])
def test_many_codes_reach_as_far_as_rare_values_where_these_decide(bits, reach):
    values = np.random.default_rng(0).uniform(-10, 2, 4_000_000).astype(np.float32)
    values[:40], values[40] = 9.0, 30.0
    histogram = StreamingHistogram()
    histogram.update(values)
    cut, kept = (activation_grid(histogram, bits, keeps_rare=keeps) for keeps in (False, True))
    for grid, highest in ((cut, 2.0), (kept, reach)):
        above = (1 << bits) - 1 - grid.zero_point
        assert abs(above - highest / (10 + highest) * ((1 << bits) - 1)) <= 1


@pytest.mark.parametrize(
    ("last", "options", "keeps"),
    [
        ("Sigmoid", {}, True),
        ("Sigmoid", {"loss": "mse"}, True),
        (None, {}, False),
        ("Softmax", {}, False),
        ("of images", {}, False),
    ],
)
def test_scores_of_positions_keep_the_rare_values_of_inputs(last, options, keeps):
    b = Builder()
    scores, shape = b.conv("x", 4, 6), ["N", 6, 32, 32]
    if last == "of images":
        pooled = b.node("Flatten", [b.node("GlobalAveragePool", [scores])])
        y, shape = b.node("Sigmoid", [pooled]), ["N", 6]
    elif last is not None:
        y = b.node(last, [scores], **({"axis": 1} if last == "Softmax" else {}))
    else:
        y = scores
    images = np.random.default_rng(0).uniform(-10, 2, (20, 4, 32, 32)).astype(np.float32)
    images[::10, 0, 0, 0] = 9.0
    bench = bench_of(b.model({"x": ["N", 4, 32, 32]}, {y: shape}), samples={"x": images}, **options)
    highest = 9.0 if keeps else 2.0
    assert abs(255 - bench.network.grids["x"].zero_point - 255 * highest / (10 + highest)) <= 1


@pytest.mark.parametrize(
    ("inputs", "few_bits", "windows"),
    [(9, False, 4096), (100, False, 6400), (400, False, 8192), (2000, False, 16000), (9, True, 16384)],
)
def test_layers_of_few_inputs_have_fewer_windows_at_many_bits(inputs, few_bits, windows):
    b = Builder()
    b.node("MatMul", ["x", b.weight(inputs, 4)], "y")
    samples = Arrays({"x": np.zeros((4, 5000, inputs), np.float32)})
    model = prepare(ir.from_proto(b.model({"x": ["N", 5000, inputs]}, {"y": ["N", 5000, 4]})))
    placement = place(model, QuantizationConfig().placement_options())
    (layer,) = read_layers(model, placement.weights).values()
    found = LayerWindows(samples, np.array([3]), few_bits=few_bits)
    parts = found.inputs(layer, samples.feeds["x"], slice(0, 4))
    assert sum(part.shape[1] for part in parts) == windows


@pytest.mark.parametrize(("few_bits", "windows"), [(False, 1024), (True, 16384)])
def test_depthwise_convolutions_have_the_fewest_windows_at_many_bits(few_bits, windows):
    b = Builder()
    b.conv("x", 8, 8, 3, group=8, name="y")
    samples = Arrays({"x": np.zeros((4, 8, 100, 100), np.float32)})
    model = prepare(ir.from_proto(b.model({"x": ["N", 8, 100, 100]}, {"y": ["N", 8, None, None]})))
    placement = place(model, QuantizationConfig().placement_options())
    (layer,) = read_layers(model, placement.weights).values()
    found = LayerWindows(samples, np.array([3]), few_bits=few_bits)
    parts = found.inputs(layer, samples.feeds["x"], slice(0, 4))
    assert [part.shape for part in parts] == [(8, windows * 3 // 4, 9), (8, windows // 4, 9)]
