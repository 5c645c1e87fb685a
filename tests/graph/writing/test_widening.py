"""Depthwise convolutions get channels of zeros, up to what their integer kernel takes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, feeds

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.graph.attributes import integer
from onnx_lapq.graph.writing.widening import widen_depthwise
from onnx_lapq.runtime.session import open_session, run


def mobile(channels: int, *, joined: bool = False) -> onnx.ModelProto:
    """An inverted residual with squeeze and excitation."""
    b = Builder()
    wide = b.relu6(b.conv("image", 3, channels, size=5))
    deep = b.node("HardSwish", [b.conv(wide, channels, channels, group=channels)])
    squeezed = b.relu(b.conv(b.node("GlobalAveragePool", [deep]), channels, 4, size=1))
    gate = b.node("HardSigmoid", [b.conv(squeezed, 4, channels, size=1)])
    gated = b.node("Mul", [deep, gate])
    if joined:
        gated, channels = b.node("Concat", [gated, wide], axis=1), 2 * channels
    b.node("Identity", [b.conv(gated, channels, 4, size=1)], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})


def groups(model: ir.Model) -> set[int]:
    return {integer(node, "group", 1) for node in model.graph if node.op_type == "Conv"} - {1}


OPTIONS = {
    "8 bits": {},
    "4 bits": {"weight_bits": 4, "activation_bits": 4},
    "one scale": {"per_channel": False},
    "full range": {"full_range": True},
    "float biases": {"target": "generic"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_channels_of_zeros_change_nothing(name):
    model = mobile(30)
    samples = feeds(model, 8)
    written = ir.from_proto(quantized(model, samples, **OPTIONS[name]).written())
    before = run(open_session(written), samples)
    widen_depthwise(written, 16)
    assert groups(written) == {32}
    onnx.checker.check_model(ir.to_proto(written), full_check=True)
    assert np.array_equal(run(open_session(written), samples)[0], before[0])


@pytest.mark.parametrize("channels", [32, 20])
def test_what_fits_or_is_too_far_off_stays(channels):
    model = mobile(channels)
    written = ir.from_proto(quantized(model, feeds(model, 8)).written())
    widen_depthwise(written, 16)
    assert groups(written) == {channels}


def test_channels_that_meet_others_stay():
    model = mobile(30, joined=True)
    written = ir.from_proto(quantized(model, feeds(model, 8)).written())
    widen_depthwise(written, 16)
    assert groups(written) == {30}


@pytest.mark.parametrize(("target", "wanted"), [("ort-x86", 32), ("ort-arm", 30)])
def test_a_run_widens_for_onnxruntime_on_x86(target, wanted):
    model = mobile(30)
    config = QuantizationConfig(target=target, method="minmax", rounding="nearest", optimizer="none")
    assert groups(ir.from_proto(quantize(model, feeds(model, 8), config).model)) == {wanted}
