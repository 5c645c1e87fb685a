"""Wide channels in front of HardSwish or SiLU are divided where that helps depthwise convolutions."""

import onnx_ir as ir
import pytest
from networks import Arrays, decibels_of_moving
from small_models import activated_images, feeds

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import CalibrationError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.stages.rewriting.observing import scale_channels
from onnx_lapq.stages.rewriting.swish_scales import values_of_swishes

KINDS = ("HardSwish alone", "SiLU on codes")


def scaled(kind: str, wide: float, samples: int = 32) -> int:
    """How many values are scaled."""
    model = activated_images(kind, wide=wide)
    prepared, config = prepare(ir.from_proto(model)), QuantizationConfig()
    placement, given = place(prepared, config.placement_options()), Arrays(feeds(model, samples))
    return scale_channels(prepared, given, config, values_of_swishes(prepared, placement, given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("wide", "found"), [(60.0, 1), (1.0, 0)])
def test_a_wide_channel_is_divided_and_even_ones_stay(kind, wide, found):
    assert scaled(kind, wide) == found


def test_three_samples_are_too_few_to_choose():
    assert scaled("HardSwish alone", 60.0, samples=3) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_comes_nearer_to_the_float_one(kind):
    moved, kept = decibels_of_moving(activated_images(kind, wide=60.0), 64)
    assert moved > kept + 6


def test_samples_that_overflow_are_left_to_the_calibration():
    model = activated_images("HardSwish alone")
    images = feeds(model, 16)["image"]
    images[3] = 3e38
    with pytest.raises(CalibrationError, match="computes NaN or infinity"):
        quantize(model, images)
