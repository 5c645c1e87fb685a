"""Channels of a Relu6 in front of a depthwise convolution get clips of their own."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import Arrays
from small_models import Builder

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import CalibrationError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run
from onnx_lapq.stages.rewriting.channel_clips import clipped_values
from onnx_lapq.stages.rewriting.observing import scale_channels

CHANNELS = 6
CONFIG = QuantizationConfig(weight_bits=4, activation_bits=4)
GAINS = 8.0 ** -np.linspace(0, 1, CHANNELS)
"""The last channel is an eighth of the first one."""


def separable(rectify: str = "Clip") -> onnx.ModelProto:
    """A convolution, a rectifier, a depthwise convolution that undoes the gains, and a classifier."""
    b = Builder()
    weight = b.random.standard_normal((CHANNELS, 3, 3, 3)) * GAINS[:, None, None, None]
    bias = b.constant(np.full(CHANNELS, 0.1, np.float32))
    x = b.node("Conv", ["image", b.constant(weight.astype(np.float32)), bias], pads=[1] * 4)
    x = b.relu6(x) if rectify == "Clip" else b.relu(x)
    undone = b.random.standard_normal((CHANNELS, 1, 3, 3)) / GAINS[:, None, None, None]
    zeros = b.constant(np.zeros(CHANNELS, np.float32))
    x = b.node("Conv", [x, b.constant(undone.astype(np.float32)), zeros], pads=[1] * 4, group=CHANNELS)
    flat = b.node("Flatten", [b.node("GlobalAveragePool", [b.relu(x)])])
    return b.model({"image": ["N", 3, 8, 8]}, {b.gemm(flat, CHANNELS, 5): ["N", 5]})


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def clipped(proto: onnx.ModelProto, x: np.ndarray, config: QuantizationConfig) -> tuple[ir.Model, int]:
    model = prepare(ir.from_proto(proto))
    placement = place(model, config.placement_options())
    return model, scale_channels(model, Arrays({"image": x}), config, clipped_values(model, placement))


def test_the_float_network_stays_and_codes_of_all_channels_end_at_six():
    model, scaled = clipped(separable(), images(64), CONFIG)
    assert scaled == 1
    given, rewritten = prepare(ir.from_proto(separable())), open_session(model)
    far = images(16, seed=1) * 4  # beyond all clips, and beyond 6
    (before,), (after,) = run(open_session(given), {"image": far}), run(rewritten, {"image": far})
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    limited = [
        site for site in place(model, CONFIG.placement_options()).activations if np.isfinite(site.maximum)
    ]
    assert [(site.maximum, site.limits) for site in limited] == [(6.0, ())]


@pytest.mark.parametrize(
    ("bits", "rectify", "options"),
    [(8, "Clip", {}), (4, "Relu", {}), (4, "Clip", {"per_channel": False})],
    ids=["many bits", "no upper limit", "one scale per tensor in front"],
)
def test_others_keep_their_channels(bits: int, rectify: str, options: dict[str, bool]):
    config = QuantizationConfig(weight_bits=bits, activation_bits=bits, **options)
    assert clipped(separable(rectify), images(32), config)[1] == 0


def test_a_run_at_four_bits_comes_nearer_to_float_and_has_no_more_nodes():
    x = images(128)
    held_out = images(256, seed=2)
    (wanted,) = run(open_session(prepare(ir.from_proto(separable()))), {"image": held_out})
    errors, kinds = [], []
    for move in (False, True):
        config = QuantizationConfig(weight_bits=8, activation_bits=4, move_scales=move, optimizer="none")
        model = quantize(separable(), x, config).model
        (found,) = run(open_session(ir.from_proto(model)), {"image": held_out})
        errors.append(float(np.square(found - wanted).sum()))
        kinds.append(sorted(node.op_type for node in model.graph.node))
    assert errors[1] < 0.7 * errors[0]
    assert kinds[0] == kinds[1]


def test_nodes_that_are_scaled_away_may_still_be_named():
    for options in ({"exclude": ("Clip",)}, {"bits": ("Clip=8",)}):
        config = QuantizationConfig(weight_bits=4, activation_bits=4, optimizer="none", **options)
        assert quantize(separable(), images(64), config).model.graph.node


def test_clips_are_those_of_the_whole_image_and_not_of_its_frame():
    x = images(64)
    x[:, :, :, 0] = x[:, :, :, -1] = 0
    model, scaled = clipped(separable(), x, CONFIG)
    (least,) = [node.inputs[1].const_value.numpy().ravel() for node in model.graph if node.op_type == "Min"]
    assert scaled == 1
    assert least[0] == 6
    assert least[-1] > 12


def test_clips_that_bring_nothing_are_left_out():
    b = Builder()
    alike = np.tile(b.random.standard_normal((1, 3, 3, 3)), (4, 1, 1, 1)).astype(np.float32)
    bias = b.constant(np.zeros(4, np.float32))
    x = b.relu6(b.node("Conv", ["image", b.constant(alike), bias], pads=[1] * 4))
    weight = b.constant(np.ones((4, 1, 1, 1), np.float32))
    x = b.node("Conv", [x, weight, b.constant(np.zeros(4, np.float32))], group=4)
    b.node("Identity", [b.conv(x, 4, 4)], name="y")
    proto = b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})
    assert clipped(proto, images(64), CONFIG)[1] == 0  # all channels are the same
    assert clipped(separable(), images(3), CONFIG)[1] == 0  # none is held out


def test_values_that_are_no_numbers_are_left_to_the_calibration():
    x = images(32)
    x[3] = 3e38 * np.sign(x[3])  # sums of convolutions are infinite, or no numbers
    with pytest.raises(CalibrationError, match="NaN"):
        quantize(separable(), x, CONFIG)
