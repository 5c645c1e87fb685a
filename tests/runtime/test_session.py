from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, feeds

from onnx_lapq.runtime.session import detach, open_session, run


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_tensors_go_beside_the_model(order):
    b = Builder()
    weight = np.asarray(b.random.standard_normal((700, 512)).astype(np.float32), order=order)
    b.node("MatMul", ["x", b.constant(np.zeros((700, 512), np.float32), "weight")], name="y")
    model = ir.from_proto(b.model({"x": ["N", 700]}, {"y": ["N", 512]}))
    model.graph.initializers["weight"].const_value = ir.tensor(weight, name="weight")
    proto, tensors = detach(model)
    assert list(tensors) == ["weight"]
    assert proto.ByteSize() < 1000
    x = np.ones((2, 700), np.float32)
    session = open_session(model)
    expected = x @ weight
    del model, tensors, weight
    first = run(session, {"x": x})[0]
    np.testing.assert_array_equal(run(session, {"x": x})[0], first)
    np.testing.assert_allclose(first, expected, rtol=1e-3, atol=1e-3)


def test_precise_kernels_take_a_weight_that_two_layers_read():
    b = Builder()
    weight = b.weight(8, 8)
    first = b.node("Gemm", ["x", weight, b.constant(np.zeros(8, np.float32))], transB=1)
    b.node("Gemm", [b.relu(first), weight, b.constant(np.ones(8, np.float32))], name="y", transB=1)
    model = b.model({"x": ["N", 8]}, {"y": ["N", 8]})
    network = quantized(model, feeds(model, 16), target="generic", first_last="same")
    written = network.written()
    before = written.SerializeToString(deterministic=True)
    precise = run(open_session(written, precise=True), network.samples.feeds)[0]
    np.testing.assert_allclose(precise, network.outputs[0], atol=0.1 * np.ptp(network.outputs[0]))
    assert onnx.ModelProto.FromString(before) == written


def test_precise_kernels_take_a_weight_that_two_convolutions_read():
    b = Builder()
    weight = b.weight(4, 4, 3, 3)
    x = b.relu(b.conv("x", 3, 4))
    for _ in range(2):
        x = b.relu(b.node("Conv", [x, weight], pads=[1] * 4))
    b.node("GlobalAveragePool", [x], name="y")
    model = b.model({"x": ["N", 3, 8, 8]}, {"y": ["N", 4, 1, 1]})
    network = quantized(model, feeds(model, 16), target="generic", first_last="same")
    precise = run(open_session(network.written(), precise=True), network.samples.feeds)[0]
    np.testing.assert_allclose(precise, network.outputs[0], atol=0.1 * np.ptp(network.outputs[0]))


def test_sessions_that_share_an_arena_keep_its_memory_once():
    """Each of eight sessions runs through 64 MiB; by themselves they would keep 512 MiB."""
    b = Builder()
    b.node("Identity", [b.relu(b.node("Neg", ["x"]))], name="y")
    model = ir.from_proto(b.model({"x": ["N"]}, {"y": ["N"]}))
    x = -np.ones(16 << 20, np.float32)
    sessions = [open_session(model, arena="shared") for _ in range(8)]
    before = resident_mib()
    for session in sessions:
        np.testing.assert_array_equal(run(session, {"x": x})[0], -x)
    assert resident_mib() - before < 300


def resident_mib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) // 1024
