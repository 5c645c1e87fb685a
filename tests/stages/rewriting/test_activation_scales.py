"""Outlier channels move into the weights where that helps."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import Arrays
from onnx import TensorProto, helper
from small_models import Builder

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ModelError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.stages.rewriting.activation_scales import inputs_of_layers
from onnx_lapq.stages.rewriting.observing import scale_channels

WIDTH = 16


def scaled(model: ir.Model, samples: Arrays) -> int:
    config = QuantizationConfig()
    placement = place(model, config.placement_options())
    return scale_channels(model, samples, config, inputs_of_layers(model, placement, samples))


def moved(outlier: float, samples: int = 32) -> int:
    b = Builder()
    gain = np.ones(WIDTH, np.float32)
    gain[2] = outlier
    normal = b.node("LayerNormalization", ["x", b.constant(gain)], axis=-1)
    b.node("Tanh", [b.node("MatMul", [normal, b.weight(WIDTH, WIDTH)])], name="y")
    model = prepare(ir.from_proto(b.model({"x": ["N", 4, WIDTH]}, {"y": ["N", 4, WIDTH]})))
    x = np.random.default_rng(0).uniform(-1, 1, (samples, 4, WIDTH)).astype(np.float32)
    return scaled(model, Arrays({"x": x}))


def test_an_outlier_channel_is_moved():
    assert moved(outlier=60.0) == 1


def test_even_channels_stay():
    assert moved(outlier=1.0) == 0


def test_one_sample_is_too_few_to_choose():
    assert moved(outlier=60.0, samples=1) == 0


def test_divisors_are_not_chosen_on_a_handful_of_rows():
    assert moved(outlier=60.0, samples=12) == 0


def test_inputs_of_the_model_that_enter_no_layer_are_passed_over():
    b = Builder()
    b.node("Mul", [b.node("Add", [b.node("MatMul", ["x", b.weight(64, 5)]), "z"]), "rate"], name="y")
    inputs = {"x": ["N", 64], "z": ["N", 5], "rate": []}
    model = prepare(ir.from_proto(b.model(inputs, {"y": ["N", 5]})))
    random = np.random.default_rng(0)
    feeds = {
        name: random.standard_normal((32, *shape[1:])).astype(np.float32) for name, shape in inputs.items()
    }
    assert scaled(model, Arrays(feeds)) == 0


def test_other_methods_and_the_placement_of_the_paper_keep_the_scales():
    assert QuantizationConfig().moves_scales
    assert not QuantizationConfig(method="minmax").moves_scales
    assert not QuantizationConfig(placement="paper").moves_scales
    assert not QuantizationConfig(move_scales=False).moves_scales


def test_a_layer_that_does_not_fit_its_input_is_refused_in_one_sentence():
    b = Builder()
    b.node("Gemm", ["x", b.weight(4, 5)], "y")
    model = b.model({"x": ["N", 4]}, {"y": ["N", 5]})
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8]))
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    with pytest.raises(ModelError, match="onnxruntime does not load the model"):
        quantize(model, images)


def test_samples_are_taken_in_whole_batches_where_the_model_fixes_their_size():
    b = Builder()
    b.node("MatMul", ["x", b.weight(64, 5)], name="y")
    model = prepare(ir.from_proto(b.model({"x": [7, 64]}, {"y": [7, 5]})))
    feeds = {"x": np.random.default_rng(0).standard_normal((140, 64)).astype(np.float32)}
    assert scaled(model, Arrays(feeds)) == 0
