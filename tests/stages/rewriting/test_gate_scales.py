"""Wide channels of what gates multiply are divided where that helps."""

import onnx_ir as ir
from networks import Arrays
from small_models import feeds, squeeze_and_excitation

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.stages.rewriting.gate_scales import scale_gated_values


def scaled(wide: float, samples: int = 32) -> int:
    model = squeeze_and_excitation(wide)
    prepared, config = prepare(ir.from_proto(model)), QuantizationConfig()
    arrays = Arrays(feeds(model, samples))
    return scale_gated_values(prepared, place(prepared, config.placement_options()), arrays, config)


def test_a_wide_channel_that_its_gate_closes_is_divided():
    assert scaled(wide=30.0) == 1


def test_three_samples_are_too_few_to_choose():
    assert scaled(wide=30.0, samples=3) == 0


def test_the_model_comes_nearer_to_the_float_one():
    model = squeeze_and_excitation(seed=1)
    images = feeds(model, 64)["image"]

    def decibels(*, moves: bool) -> float:
        result = quantize(model, images, QuantizationConfig(move_scales=moves))
        (output,) = result.report.outputs
        assert output.snr_db is not None
        return output.snr_db

    assert decibels(moves=True) > decibels(moves=False) + 6
