"""Wide channels of what convolutions write for activation functions in float are divided where that helps."""

import onnx_ir as ir
import pytest
from networks import Arrays
from small_models import activated_images, feeds

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
    model = activated_images()
    images = feeds(model, 64)["image"]

    def decibels(*, moves: bool) -> float:
        result = quantize(model, images, QuantizationConfig(move_scales=moves))
        (output,) = result.report.outputs
        assert output.snr_db is not None
        return output.snr_db

    assert decibels(moves=True) > decibels(moves=False) + 6
