"""Wide channels of what gates multiply are divided where that helps."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import Arrays, decibels_of_moving
from onnx import TensorProto, helper, numpy_helper
from small_models import feeds, squeeze_and_excitation

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import CalibrationError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.gates import gated_values
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.stages.rewriting.gate_scales import values_of_gates
from onnx_lapq.stages.rewriting.observing import scale_channels


def scaled(wide: float, samples: int = 32) -> int:
    model = squeeze_and_excitation(wide)
    prepared, config = prepare(ir.from_proto(model)), QuantizationConfig()
    arrays = Arrays(feeds(model, samples))
    candidates = values_of_gates(prepared, place(prepared, config.placement_options()))
    return scale_channels(prepared, arrays, config, candidates)


def test_a_wide_channel_that_its_gate_closes_is_divided():
    assert scaled(wide=30.0) == 1


def test_three_samples_are_too_few_to_choose():
    assert scaled(wide=30.0, samples=3) == 0


def test_samples_that_overflow_are_left_to_the_calibration():
    model = squeeze_and_excitation(seed=1)
    images = feeds(model, 16)["image"]
    images[3] = 3e38
    with pytest.raises(CalibrationError, match="computes NaN or infinity"):
        quantize(model, images)


def test_frames_that_are_folded_into_the_batch_stay():
    model = squeeze_and_excitation(seed=1)
    frames = {"frames": np.random.default_rng(0).standard_normal((16, 2, 3, 8, 8)).astype(np.float32)}
    folded = helper.make_node("Reshape", ["frames", "folded"], ["image"], name="node_folded")
    model.graph.node.insert(0, folded)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 3, 8, 8]), "folded"))
    last = next(node for node in model.graph.node if node.op_type == "Identity")
    last.CopyFrom(helper.make_node("Reshape", [last.input[0], "unfolded"], ["logits"], name=last.name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 2, 10]), "unfolded"))
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["N", 2, 3, 8, 8])
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2, 10]))
    prepared, config = prepare(ir.from_proto(model)), QuantizationConfig()
    placement = place(prepared, config.placement_options())
    assert len(gated_values(prepared, placement)) == 1
    assert scale_channels(prepared, Arrays(frames), config, values_of_gates(prepared, placement)) == 0


def test_the_model_comes_nearer_to_the_float_one():
    moved, kept = decibels_of_moving(squeeze_and_excitation(seed=1), 64)
    assert moved > kept + 6
