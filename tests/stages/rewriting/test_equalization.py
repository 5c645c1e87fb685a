"""Equalization leaves float outputs as they are, and evens out what one step size has to cover."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Arrays, quantized
from releases import needs
from small_models import Builder, residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.graph.rewriting.equalization_chains import chains, input_ranges, output_ranges
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run
from onnx_lapq.stages.rewriting.equalization import equalize


def uneven(b: Builder, x: str, inputs: int, outputs: int, kind: str) -> str:
    """A layer whose output channels differ in range by orders of magnitude."""
    gain = np.exp(b.random.uniform(-2, 2, outputs)).astype(np.float32)
    bias = (b.random.standard_normal(outputs) * gain).astype(np.float32)
    if kind == "transposed":
        weight = b.random.standard_normal((inputs, outputs, 2, 2)) / np.sqrt(4 * inputs) * gain[:, None, None]
        return b.node(
            "ConvTranspose", [x, b.constant(weight.astype(np.float32)), b.constant(bias)], strides=[2, 2]
        )
    groups = {"depthwise": inputs, "grouped": 2}.get(kind, 1)
    size = 1 if kind == "pointwise" else 3
    weight = b.random.standard_normal((outputs, inputs // groups, size, size)) / np.sqrt(size * inputs)
    names = [x, b.constant((weight * gain[:, None, None, None]).astype(np.float32)), b.constant(bias)]
    return b.node("Conv", names, pads=[size // 2] * 4, group=groups)


def rectified(b: Builder, x: str, kind: str) -> str:
    kinds = {
        "relu": lambda: b.relu(x),
        "relu6": lambda: b.relu6(x),
        "leaky": lambda: b.node("LeakyRelu", [x]),
    }
    return kinds[kind]() if kind in kinds else x


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    b = Builder(draw(st.integers(0, 1000)))
    x, channels = "image", 4
    for _ in range(draw(st.integers(2, 5))):
        kind = draw(st.sampled_from(["full", "pointwise", "depthwise", "grouped", "transposed"]))
        outputs = channels if kind == "depthwise" else draw(st.sampled_from([4, 6, 8]))
        x = uneven(b, x, channels, outputs, kind)
        x, channels = rectified(b, x, draw(st.sampled_from(["relu", "relu6", "leaky", "none"]))), outputs
    flat = b.node("Flatten", [b.node("GlobalAveragePool", [x])])
    hidden = b.relu(b.gemm(flat, channels, 6))
    return b.model({"image": ["N", 4, 6, 6]}, {b.gemm(hidden, 6, 5): ["N", 5]})


def images(count: int, seed: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).standard_normal((count, 4, 6, 6)).astype(np.float32)}


def equalized(model: onnx.ModelProto, feeds: dict[str, np.ndarray], *, per_channel: bool = False) -> ir.Model:
    prepared = prepare(ir.from_proto(model))
    config = QuantizationConfig(
        weight_bits=4, activation_bits=4, per_channel=per_channel, workers=1, equalize=True
    )
    equalize(prepared, Arrays(feeds), config)
    return prepared


@settings(max_examples=12, deadline=None)
@given(networks(), st.booleans())
def test_float_outputs_stay_on_the_calibration_samples(model, per_channel):
    feeds = images(8, 0)
    (before,) = run(open_session(model), feeds)
    (after,) = run(open_session(equalized(model, feeds, per_channel=per_channel)), feeds)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def padded_chain(rectifier: str, seed: int = 3) -> onnx.ModelProto:
    """Nothing but padded layers, so that no bias can move."""
    b = Builder(seed)
    x = rectified(b, uneven(b, "image", 4, 8, "full"), rectifier)
    x = rectified(b, uneven(b, x, 8, 8, "depthwise"), rectifier)
    return b.model({"image": ["N", 4, 6, 6]}, {uneven(b, x, 8, 3, "full"): ["N", 3, 6, 6]})


@pytest.mark.parametrize("rectifier", ["relu", "relu6", "leaky", "none"])
def test_without_moved_biases_float_outputs_stay_on_any_sample(rectifier):
    model, far = padded_chain(rectifier), {"image": 10 * images(8, 1)["image"]}
    (before,) = run(open_session(model), far)
    (after,) = run(open_session(equalized(model, images(8, 0))), far)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())


def test_a_high_bias_moves_to_the_next_layer():
    b = Builder(0)
    weight, bias = b.weight(4, 4, 1, 1), b.constant(np.array([50, 0, 0, 0], np.float32))
    x = b.relu(b.node("Conv", ["image", weight, bias]))
    model = b.model({"image": ["N", 4, 6, 6]}, {b.conv(x, 4, 4, size=1): ["N", 4, 6, 6]})
    after = equalized(model, images(8, 0))
    first, second = chains(after)[0][0].first, chains(after)[0][0].second
    assert 0 < first.node.inputs[2].const_value.numpy()[0] / output_ranges(first)[0] < 25
    assert np.abs(second.node.inputs[2].const_value.numpy()).max() > 5


def test_the_channels_of_a_chain_become_even():
    before = prepare(ir.from_proto(padded_chain("relu")))
    after = equalized(padded_chain("relu"), images(8, 0))

    def spread(model):
        (chain,) = chains(model)
        ranges = [*(output_ranges(link.first) for link in chain), input_ranges(chain[-1].second)]
        return sum(np.log(values).var() for values in ranges)

    assert spread(after) < 0.5 * spread(before)


@needs("onnxruntime", "1.24", "Min of integers")
def test_limits_of_channels_are_absorbed_and_simulated_as_written():
    model = padded_chain("relu6")
    feeds = {"image": 5 * images(8, 0)["image"]}
    proto = ir.to_proto(equalized(model, feeds))
    assert [node.op_type for node in proto.graph.node].count("Min") == 2
    net = quantized(proto, feeds, weight_bits=4, activation_bits=4)
    written = net.written()
    assert "Relu" not in {node.op_type for node in written.graph.node}
    limits = [tensor for tensor in written.graph.initializer if tensor.name.endswith("_limits")]
    codes = [onnx.numpy_helper.to_array(tensor) for tensor in limits]
    assert all(array.dtype == np.uint8 and array.shape == (1, 8, 1, 1) for array in codes)
    assert any(array.min() < 15 for array in codes)
    np.testing.assert_allclose(net.simulated_outputs(), run(open_session(written), feeds)[0], atol=1e-5)


def test_without_a_kernel_for_limits_of_channels_a_relu6_keeps_its_channels(monkeypatch, caplog):
    monkeypatch.setattr("onnx_lapq.stages.rewriting.equalization.library_version", lambda name: "1.20.0")
    feeds = {"image": 5 * images(8, 0)["image"]}
    assert "Min" not in {node.op_type for node in equalized(padded_chain("relu6"), feeds).graph}
    assert "need onnxruntime 1.24" in caplog.text


def test_a_value_with_other_readers_is_left_alone():
    found = [link.value for chain in chains(prepare(ir.from_proto(residual()))) for link in chain]
    assert "conv0" not in found
    assert len(found) == 2


@pytest.mark.parametrize(
    ("per_channel", "kind", "asked", "suggested"),
    [
        (False, "depthwise", False, True),
        (False, "depthwise", True, False),
        (False, "full", False, False),
        (None, "depthwise", False, False),
    ],
)
def test_one_scale_per_tensor_around_depthwise_convolutions_is_noted(per_channel, kind, asked, suggested):
    b = Builder(3)
    x = b.relu(uneven(b, b.relu(uneven(b, "image", 4, 8, "full")), 8, 8, kind))
    model = b.model({"image": ["N", 4, 6, 6]}, {uneven(b, x, 8, 3, "full"): ["N", 3, 6, 6]})
    config = QuantizationConfig(per_channel=per_channel, equalize=asked, optimizer="none", rounding="nearest")
    warnings = quantize(model, images(8, 0), config).report.warnings
    assert any("--equalize" in warning for warning in warnings) == suggested


@pytest.mark.parametrize(("rectifier", "links"), [("relu6", 0), ("relu", 2)])
def test_targets_whose_quantizers_hold_nothing_get_no_limits(rectifier, links):
    config = QuantizationConfig(target="qnn", equalize=True)
    prepared = prepare(ir.from_proto(padded_chain(rectifier)))
    assert equalize(prepared, Arrays(images(8, 0)), config) == links
    assert "Min" not in {node.op_type for node in prepared.graph}
