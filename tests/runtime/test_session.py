import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, encoder, feeds

from onnx_lapq.runtime.session import detach, give_back_shared_memory, open_session, run


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


def test_sessions_that_share_an_arena_keep_its_memory_once_until_it_is_given_back():
    """Each of eight sessions runs through 64 MiB; by themselves they would keep 512 MiB."""
    b = Builder()
    b.node("Identity", [b.relu(b.node("Neg", ["x"]))], name="y")
    model = ir.from_proto(b.model({"x": ["N"]}, {"y": ["N"]}))
    x = -np.ones(16 << 20, np.float32)
    sessions = [open_session(model, arena="shared") for _ in range(8)]
    give_back_shared_memory()  # what other tests have left
    before = resident_mib()
    for session in sessions:
        np.testing.assert_array_equal(run(session, {"x": x})[0], -x)
    kept = resident_mib() - before
    assert 100 < kept < 300
    give_back_shared_memory()
    assert resident_mib() - before < kept / 2


@pytest.mark.parametrize(
    ("provider", "arena", "has_one"),
    [
        *[("CPUExecutionProvider", arena, arena != "none") for arena in ("none", "own", "shared")],
        ("AzureExecutionProvider", "shared", False),
    ],
)
def test_only_sessions_of_the_cpu_share_an_arena(provider, arena, has_one):
    session = open_session(ir.from_proto(encoder()), provider=provider, arena=arena)
    assert session.get_session_options().enable_cpu_mem_arena == has_one


def test_an_arena_that_the_program_has_made_is_shared():
    """In a process of its own: old releases take one registration alone."""
    program = """
import onnxruntime as ort
cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
ort.create_and_register_allocator(cpu, ort.OrtArenaCfg({"arena_extend_strategy": 0}))
def refused(*given):
    raise RuntimeError("An allocator for this device has already been registered for sharing.")
ort.create_and_register_allocator = refused
from onnx_lapq.runtime import session
session.give_back_shared_memory()
least = session._in_shared_memory()
session.give_back_shared_memory()
print(session.run(least, {"x": [3.0]})[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[-3.]\n"


def resident_mib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) // 1024
