"""Wide channels of what convolutions write for activation functions in float are divided where that helps."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import Arrays, decibels_of_moving
from onnx import helper, numpy_helper
from small_models import Builder, activated_images, feeds

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import CalibrationError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.stages.rewriting.observing import scale_channels
from onnx_lapq.stages.rewriting.output_scales import outputs_of_layers


def scaled(wide: float, samples: int = 32) -> int:
    model = activated_images(wide=wide)
    prepared, config = prepare(ir.from_proto(model)), QuantizationConfig()
    candidates = outputs_of_layers(prepared, place(prepared, config.placement_options()))
    return scale_channels(prepared, Arrays(feeds(model, samples)), config, candidates)


@pytest.mark.parametrize(("wide", "found"), [(20.0, 1), (1.0, 0)])
def test_a_wide_channel_is_divided_and_even_ones_stay(wide: float, found: int):
    assert scaled(wide) == found


def test_three_samples_are_too_few_to_choose():
    assert scaled(wide=20.0, samples=3) == 0


def test_samples_that_overflow_are_left_to_the_calibration():
    model = activated_images()
    images = feeds(model, 16)["image"]
    images[3] = 3e38
    with pytest.raises(CalibrationError, match="computes NaN or infinity"):
        quantize(model, images)


def test_the_model_comes_nearer_to_the_float_one():
    moved, kept = decibels_of_moving(activated_images(), 64)
    assert moved > kept + 6


def test_a_graph_that_takes_one_sample_at_a_time_is_looked_at_one_at_a_time():
    model = activated_images()
    first = model.graph.node[0]
    model.graph.node.insert(0, helper.make_node("Reshape", ["image", "one"], ["single"], name="node_single"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 8, 8]), "one"))
    first.input[0] = "single"
    prepared, config = prepare(ir.from_proto(model)), QuantizationConfig()
    candidates = outputs_of_layers(prepared, place(prepared, config.placement_options()))
    assert scale_channels(prepared, Arrays(feeds(model, 32)), config, candidates) == 1


def test_a_rectifier_and_a_residual_sum_are_no_such_functions():
    b = Builder()
    x = b.conv("image", 3, 8)
    kept = b.conv(b.relu(x), 8, 8)
    summed = b.node("Add", [b.conv(b.node("Softplus", [x]), 8, 8), kept])
    model = b.model({"image": ["N", 3, 8, 8]}, {b.node("Tanh", [summed]): ["N", 8, 8, 8]})
    prepared = prepare(ir.from_proto(model))
    assert outputs_of_layers(prepared, place(prepared, QuantizationConfig().placement_options())) == []
