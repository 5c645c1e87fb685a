"""A Fourier transform and a filter bank are told from layers that were trained."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import quantized
from onnx import TensorProto
from small_models import Builder

from onnx_lapq.graph.placement.fixed_transforms import is_fixed_transform
from onnx_lapq.graph.placement.options import PlacementOptions, parse_bits_rule
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run

SIZE, BINS, BANDS = 128, 65, 24


def fourier(window: int = SIZE) -> np.ndarray:
    """Cosines and sines in a window in the middle, [2 * BINS, SIZE]."""
    shape = np.zeros(SIZE)
    start = (SIZE - window) // 2
    shape[start : start + window] = np.hanning(window)
    angles = 2 * np.pi * np.outer(np.arange(BINS), np.arange(SIZE)) / SIZE
    return (np.concatenate([np.cos(angles), np.sin(angles)]) * shape).astype(np.float32)


def filter_bank() -> np.ndarray:
    """Triangles that grow wider, [BANDS, BINS]."""
    corners = np.geomspace(2, BINS + 1, BANDS + 2) - 2
    at = np.arange(BINS)
    up, down = (
        (at - corners[shift:][:BANDS, None]) / np.diff(corners)[first:][:BANDS, None]
        for shift, first in ((0, 0), (2, 1))
    )
    return np.maximum(np.minimum(up, -down), 0).astype(np.float32)


def smooth(random: np.random.Generator) -> np.ndarray:
    """Rows that a trained layer might have: few frequencies, all of them low."""
    return np.cumsum(random.standard_normal((BINS, SIZE)), axis=1).astype(np.float32)


def spectrogram(levelled: bool = True) -> ir.Model:
    """Sound [N, 1, 640] -> 3 scores: Fourier transform, power, filter bank, logarithm, two trained layers."""
    b = Builder()
    waves = b.node("Conv", ["sound", b.constant(fourier()[:, None])], strides=[64])
    both = b.node("Reshape", [waves, b.constant(np.array([0, 2, BINS, -1], np.int64))])
    power = b.node(
        "ReduceSum", [b.node("Mul", [both, both]), b.constant(np.array([1], np.int64))], keepdims=0
    )
    bands = b.node(
        "MatMul", [b.node("Transpose", [power], perm=[0, 2, 1]), b.constant(filter_bank().T.copy())]
    )
    above = b.node("Add", [bands, b.constant(np.array(1e-3, np.float32))])
    read = b.node("Log" if levelled else "Sqrt", [above])
    b.node("MatMul", [b.relu(b.node("MatMul", [read, b.weight(BANDS, 8)])), b.weight(8, 3)], "scores")
    return ir.from_proto(b.model({"sound": ["N", 1, 640]}, {"scores": ["N", 9, 3]}))


def layer(op_type: str, weight: np.ndarray, **attributes: object) -> ir.Node:
    b = Builder()
    b.node(op_type, ["x", b.constant(np.ascontiguousarray(weight))], "y", **attributes)
    shape = [None] * (2 if op_type == "Gemm" else 3 if op_type == "MatMul" else weight.ndim)
    return ir.from_proto(b.model({"x": shape}, {"y": shape})).graph[0]


@pytest.mark.parametrize(
    "node",
    [
        layer("Conv", fourier()[:, None]),
        layer("Conv", fourier(100)[:, None]),
        layer("Conv", fourier(40)[:, None, :, None]),
        layer("MatMul", fourier().T),
        layer("Gemm", fourier(), transB=1),
        layer("MatMul", filter_bank().T),
        layer("Conv", filter_bank()[:, :, None]),
    ],
    ids=lambda node: f"{node.op_type} {node.inputs[1].shape}",
)
def test_transforms_are_found(node):
    assert is_fixed_transform(node)


@pytest.mark.parametrize(
    "node",
    [
        layer("Conv", np.random.default_rng(0).standard_normal((64, 1, 128)).astype(np.float32)),
        layer("Conv", smooth(np.random.default_rng(0))[:, None]),
        layer("Conv", fourier().reshape(130, 1, 8, 16)),
        layer("Conv", fourier().reshape(130, 2, 64)),
        layer("MatMul", smooth(np.random.default_rng(1)).T),
        layer("MatMul", np.abs(np.random.default_rng(1).standard_normal((128, 32))).astype(np.float32)),
        layer("MatMul", np.zeros((128, 32), np.float32)),
    ],
    ids=lambda node: f"{node.op_type} {node.inputs[1].shape}",
)
def test_trained_layers_are_none(node):
    assert not is_fixed_transform(node)


def test_their_inputs_stay_in_float_and_their_weights_have_16_bits():
    placement = place(prepare(spectrogram()), PlacementOptions())
    assert len(placement.weights) == len(placement.activations) == 2
    assert [site.axis for site in placement.wide] == [0, 1]
    reasons = [node.reason for node in placement.in_float if node.op_type in ("Conv", "MatMul")]
    assert ["fixed transform" in reason for reason in reasons] == [True, True]


def test_a_rule_gives_them_bits_all_the_same():
    options = PlacementOptions(bits=(parse_bits_rule("Conv=a8"), parse_bits_rule("MatMul=w4")))
    placement = place(prepare(spectrogram()), options)
    assert placement.activations[0].value == "sound"
    assert sorted(site.bits for site in placement.weights) == [4, 4, 4, 8]
    assert placement.wide == ()


def test_the_first_layer_behind_a_spectrum_reads_float_unless_a_logarithm_levels_it():
    levelled, raw = (place(prepare(spectrogram(logs)), PlacementOptions()) for logs in (True, False))
    assert [site.in_float for site in levelled.weights] == [False, False]
    assert [site.in_float for site in raw.weights] == [True, False]
    assert [site.input_site is None for site in raw.weights] == [True, False]
    assert sum("reads a spectrum" in node.reason for node in raw.in_float) == 1


@pytest.mark.parametrize("levelled", [True, False])
def test_what_is_written_computes_what_was_simulated_from_half_the_bytes(levelled):
    model = ir.to_proto(spectrogram(levelled))
    inputs = {"sound": np.random.default_rng(0).standard_normal((16, 1, 640)).astype(np.float32)}
    network = quantized(model, inputs)
    written = network.written()
    types = {tensor.name: tensor.data_type for tensor in written.graph.initializer if tensor.dims}
    assert sorted(types[f"{site.name}_codes"] for site in network.placement.wide) == [TensorProto.INT16] * 2
    simulated = network.simulated_outputs()
    np.testing.assert_allclose(run(open_session(written), inputs)[0], simulated, rtol=0, atol=1e-6)
    assert np.abs(simulated - network.outputs[0]).max() < 0.05 * np.ptp(simulated)


def test_a_transform_that_is_left_out_stays_in_float():
    placement = place(prepare(spectrogram()), PlacementOptions(exclude=("Conv",)))
    assert [site.axis for site in placement.wide] == [1]
