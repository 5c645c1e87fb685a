"""A layer that is left in float between two quantizers computes in float in onnxruntime."""

from collections import Counter

import numpy as np
import onnx
import pytest
from networks import quantized
from small_models import Builder, feeds

from onnx_lapq.runtime.session import open_file

KINDS = ("Conv", "ConvTranspose", "Gemm")


def three(kind: str, *, bias: bool) -> onnx.ModelProto:
    """x [N, 8, ...] -> y: three layers of a kind with Relus between, the second of which is `node_middle`."""
    b = Builder()
    sizes = () if kind == "Gemm" else (1, 1)
    biases = [b.constant(np.linspace(-1, 1, 8, dtype=np.float32))] if bias else []
    first = b.relu(b.node(kind, ["x", b.weight(8, 8, *sizes)]))
    middle = b.relu(b.node(kind, [first, b.weight(8, 8, *sizes), *biases], "middle"))
    b.node(kind, [middle, b.weight(8, 8, *sizes)], "y")
    shape = ["N", 8, *(4 for _ in sizes)]
    return b.model({"x": shape}, {"y": shape})


def in_float(model: onnx.ModelProto, path) -> Counter[str]:
    """The nodes that read a float constant of two axes or more in what onnxruntime makes of a file."""
    onnx.save(model, path / "model.onnx")
    open_file(path / "model.onnx", optimized=path / "optimized.onnx")
    graph = onnx.load(path / "optimized.onnx").graph
    floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1}
    return Counter(node.op_type for node in graph.node if floats & set(node.input))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_float_weights_run_float_kernels(kind, bias, tmp_path):
    model = three(kind, bias=bias)
    assert in_float(quantized(model, feeds(model, 8), weight_bits=32).written(), tmp_path) == {kind: 3}


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_a_layer_left_out_runs_a_float_kernel(kind, tmp_path):
    model = three(kind, bias=True)
    written = quantized(model, feeds(model, 8), exclude=("node_middle",)).written()
    assert in_float(written, tmp_path) == {kind: 1}
    (same,) = (node for node in written.graph.node if node.op_type == "LeakyRelu")
    assert list(same.output) == ["node_middle_source"]


def test_names_that_are_taken_stay():
    model = three("Conv", bias=True)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "node_middle_source"
    written = quantized(model, feeds(model, 8), exclude=("node_middle",)).written()
    (same,) = (node for node in written.graph.node if node.op_type == "LeakyRelu")
    assert list(same.output) == ["node_middle_source_"]
    assert written.graph.output[0].name == "node_middle_source"


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_left_in_float_there_is_no_leaky_relu(kind):
    model = three(kind, bias=True)
    written = quantized(model, feeds(model, 8)).written()
    assert "LeakyRelu" not in {node.op_type for node in written.graph.node}
