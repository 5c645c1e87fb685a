"""Quantizers on activations stand where an integer kernel reads or writes codes."""

import collections

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, encoder, feeds, residual

from onnx_lapq.graph.placement.options import PlacementOptions, parse_bits_rule
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.kernels import kernels
from onnx_lapq.runtime.session import open_file

WIDTH = 16


def placed(model, **options):
    prepared = prepare(ir.from_proto(model))
    return prepared, place(prepared, PlacementOptions(**options))


def optimized(model, tmp_path):
    """Counts of the operators in the graph that onnxruntime makes of a model."""
    source, result = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    onnx.save(model, source)
    open_file(source, optimized=result)
    return collections.Counter(node.op_type for node in onnx.load(result).graph.node)


def written(model, **options):
    return quantized(model, feeds(model, 8), **options).written()


def values_of(sites):
    return {site.value for site in sites}


def test_fusions_of_a_transformer_are_as_many_after_as_before(tmp_path):
    before, after = (optimized(model, tmp_path) for model in (encoder(), written(encoder())))
    for fused in (("LayerNormalization", "SkipLayerNormalization"), ("BiasGelu", "Gelu"), ("Softmax",)):
        assert sum(after[name] for name in fused) == sum(before[name] for name in fused) > 0
    assert after["BiasGelu"] == before["BiasGelu"] == 1
    assert after["MatMul"] + after["FusedMatMul"] == 2  # scores, and what they mix


def test_products_of_two_activations_run_on_integers_where_these_are_faster(tmp_path):
    found = optimized(written(encoder(), target="ort-arm"), tmp_path)
    assert found["MatMul"] == found["FusedMatMul"] == 0


def test_sums_and_biases_of_a_transformer_stay_in_float():
    model, placement = placed(encoder())
    producers = {value: node.op_type for node in model.graph for value in (out.name for out in node.outputs)}
    read = {producers[site.value] for site in placement.activations if not site.moved}
    assert read == {"LayerNormalization", "Mul", "ReduceMean", "Softmax"}


def test_a_float_reader_of_a_shared_value_reads_the_float_value():
    b = Builder()
    gain = b.constant(np.ones(WIDTH, np.float32))
    normal = b.node("LayerNormalization", ["x", gain], axis=-1)
    product = b.node("MatMul", [normal, b.weight(WIDTH, WIDTH)])
    b.node("Tanh", [b.node("Add", [normal, product])], name="y")
    model = b.model({"x": ["N", 4, WIDTH]}, {"y": ["N", 4, WIDTH]})
    graph = written(model).graph
    (add,) = [node for node in graph.node if node.op_type == "Add"]
    assert add.input[0] == normal
    assert [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"] == [normal]


def test_a_quantizer_stands_before_what_moves_a_value_to_its_reader():
    b = Builder()
    gain = b.constant(np.ones(WIDTH, np.float32))
    normal = b.node("LayerNormalization", ["x", gain], axis=-1)
    moved = b.node("Transpose", [normal], perm=[1, 0, 2])
    product = b.node("MatMul", [moved, b.weight(WIDTH, WIDTH)])
    b.node("Concat", [normal, b.node("Transpose", [product], perm=[1, 0, 2])], name="y", axis=-1)
    _, placement = placed(b.model({"x": ["N", 4, WIDTH]}, {"y": ["N", 4, 2 * WIDTH]}))
    (site,) = placement.activations
    assert (site.value, site.moved) == (normal, (moved,))
    assert site.edges == ((f"node_{moved}", 0), (f"node_{product}", 0))


def test_readers_of_a_float_value_have_quantizers_of_their_own_bits():
    b = Builder()
    gain = b.constant(np.ones(WIDTH, np.float32))
    normal = b.node("LayerNormalization", [b.node("MatMul", ["x", b.weight(WIDTH, WIDTH)]), gain], axis=-1)
    low, high = (b.node("MatMul", [normal, b.weight(WIDTH, WIDTH)], name=name) for name in ("low", "high"))
    b.node("Add", [b.node("Tanh", [low]), high], name="y")
    model = b.model({"x": ["N", 4, WIDTH]}, {"y": ["N", 4, WIDTH]})
    rules = tuple(parse_bits_rule(text) for text in ("node_low=a4", "node_high=a8"))
    _, placement = placed(model, bits=rules)
    found = {site.bits: site for site in placement.activations if site.value == normal}
    assert found.keys() == {4, 8}
    assert all(site.after is None and site.searched for site in found.values())


def test_a_convolutional_network_runs_on_integers_end_to_end(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(written(residual()), path)
    assert all(kernel.integer for kernel in kernels(path))


def test_arithmetic_before_a_float_operator_stays_in_float():
    b = Builder()
    left, right = b.conv("image", 3, 4), b.conv("image", 3, 4)
    inner = b.node("Tanh", [b.node("Add", [left, right])])
    b.node("Identity", [b.conv(inner, 4, 4)], name="y")
    _, placement = placed(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]}))
    assert [node.op_type for node in placement.in_float] == ["Add", "Tanh"]


def test_a_product_with_its_weight_on_the_left_says_so():
    b = Builder()
    mel = b.node("MatMul", [b.weight(8, 6), b.node("Abs", ["x"])])
    b.node("MatMul", [mel, b.weight(5, 4)], name="y")
    model = prepare(ir.from_proto(b.model({"x": ["N", 6, 5]}, {"y": ["N", 8, 4]})))
    placement = place(model, PlacementOptions())
    assert "its weight is its first factor" in [node.reason for node in placement.in_float]


def test_a_rule_leaves_arithmetic_between_layers_in_float():
    prepared, placement = placed(residual(), bits=(parse_bits_rule("Add=32"),))
    (added,) = (node for node in prepared.graph if node.op_type == "Add")
    reasons = {node.op_type: node.reason for node in placement.in_float}
    assert reasons["Add"] == "32 bits asked for it"
    assert added.name not in {site.writer for site in placement.activations}


def gated():
    """A gate of one value per channel, as in squeeze and excitation."""
    b = Builder()
    wide = b.relu(b.conv("image", 3, 8))
    pooled = b.node("GlobalAveragePool", [wide])
    gate = b.node("HardSigmoid", [b.conv(pooled, 8, 8, size=1)])
    b.node("Identity", [b.conv(b.node("Mul", [wide, gate]), 8, 4)], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})


def test_a_small_operand_from_a_float_operator_is_quantized(tmp_path):
    assert optimized(written(gated()), tmp_path)["QLinearMul"] == 1


def outputs_inside():
    b = Builder()
    first = b.relu(b.conv("image", 3, 8))
    b.node("Identity", [first], name="early")
    b.node("Identity", [b.conv(first, 8, 4)], name="late")
    return b.model({"image": ["N", 3, 8, 8]}, {"early": ["N", 8, 8, 8], "late": ["N", 4, 8, 8]})


def test_convolutions_that_write_outputs_run_on_integers(tmp_path):
    model = written(outputs_inside())
    assert [value.name for value in model.graph.output] == ["early", "late"]
    found = optimized(model, tmp_path)
    assert (found["QLinearConv"], found["DequantizeLinear"]) == (2, 2)


def test_outputs_may_stay_in_float(tmp_path):
    found = optimized(written(outputs_inside(), float_outputs=True), tmp_path)
    assert found["QLinearConv"] == 0
    assert all(not site.outputs for site in placed(outputs_inside(), float_outputs=True)[1].activations)


def test_an_output_that_is_moved_is_moved_in_codes(tmp_path):
    b = Builder()
    b.node("Transpose", [b.conv("image", 3, 4)], name="y", perm=[0, 2, 3, 1])
    model = written(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 4]}))
    assert model.graph.output[0].name == "y"
    last = next(node for node in model.graph.node if "y" in node.output)
    assert last.op_type == "DequantizeLinear"
    assert optimized(model, tmp_path)["QLinearConv"] == 1


def test_a_joined_output_of_a_detector_stays_in_float():
    b = Builder()
    inner = b.relu(b.conv("image", 3, 8))
    boxes, scores = b.conv(inner, 8, 4), b.node("Sigmoid", [b.conv(inner, 8, 2)])
    b.node("Concat", [boxes, scores], name="y", axis=1)
    _, placement = placed(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 6, 8, 8]}))
    assert "Concat" in [node.op_type for node in placement.in_float]
    assert "y" not in values_of(placement.activations)


@pytest.mark.parametrize("behind", ["Softmax", "Sigmoid", "LayerNormalization", "Identity"])
def test_a_last_dense_layer_runs_on_integers(behind, tmp_path):
    b = Builder()
    hidden = b.relu(b.node("Add", [b.node("MatMul", ["x", b.weight(WIDTH, WIDTH)]), b.constant(_ones())]))
    last = b.node("Add", [b.constant(_ones()), b.node("MatMul", [hidden, b.weight(WIDTH, WIDTH)])])
    gain = [b.constant(_ones())] if behind == "LayerNormalization" else []
    b.node(behind, [last, *gain], name="y")
    model = b.model({"x": ["N", WIDTH]}, {"y": ["N", WIDTH]})
    found = optimized(written(model), tmp_path)
    assert (found["QGemm"], found["Gemm"], found["MatMul"]) == (2, 0, 0)


def _ones():
    return np.ones(WIDTH, np.float32)
