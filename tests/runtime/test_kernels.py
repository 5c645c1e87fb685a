"""Which nodes onnxruntime runs on integers."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import quantized
from small_models import Builder, feeds, residual

from onnx_lapq.runtime.kernels import kernels
from onnx_lapq.runtime.session import open_file


def written(model, tmp_path, **options):
    path = tmp_path / "model.onnx"
    onnx.save(quantized(model, feeds(model, 8), **options).written(), path)
    return kernels(path)


@pytest.mark.parametrize("bits", [4, 8])
def test_layers_between_the_quantizers_run_on_integer_kernels(bits, tmp_path):
    found = written(residual(), tmp_path, weight_bits=bits, activation_bits=bits)
    kinds = [node.op_type for node in found]
    assert kinds.count("QLinearConv") == 5
    assert kinds.count("QLinearAdd") == 1
    assert kinds.count("QGemm") == 1
    assert all(node.integer for node in found)


def test_an_excluded_layer_runs_in_float_and_says_why(tmp_path):
    found = written(residual(), tmp_path, exclude=("Gemm",))
    pool, gemm = [node for node in found if not node.integer]
    assert pool.op_type == "GlobalAveragePool"  # nothing behind it reads codes
    assert gemm.op_type == "Gemm"
    assert not gemm.between
    assert "float constant" in gemm.reason or "not quantized" in gemm.reason


def test_an_operator_without_an_integer_kernel_is_named(tmp_path):
    b = Builder()
    hidden = b.node("Tanh", [b.conv("image", 3, 4, 5)])
    b.node("Identity", [b.conv(hidden, 4, 4)], name="out")
    found = written(b.model({"image": ["N", 3, 8, 8]}, {"out": ["N", 4, 8, 8]}), tmp_path)
    (tanh,) = [node for node in found if node.op_type == "Tanh"]
    assert not tanh.integer
    assert tanh.between
    assert "no integer kernel for Tanh" in tanh.reason


def ints(b: Builder, *values: int) -> str:
    return b.constant(np.array(values, np.int64))


_RELEASE = tuple(int(part) for part in ort.__version__.split(".")[:2])

BETWEEN = {
    "Add": lambda b, x: b.node("Add", [x, b.relu(b.conv(x, 4, 4))]),
    "AveragePool": lambda b, x: b.node("AveragePool", [x], kernel_shape=[2, 2]),
    "Concat": lambda b, x: b.node(
        "Slice", [b.node("Concat", [x, x], axis=1), ints(b, 0), ints(b, 4), ints(b, 1)]
    ),
    "ConvTranspose": lambda b, x: b.node("ConvTranspose", [x, b.weight(4, 4, 2, 2)], strides=[2, 2]),
    "DepthToSpace": lambda b, x: b.node("DepthToSpace", [b.node("Concat", [x] * 4, axis=1)], blocksize=2),
    "Expand": lambda b, x: b.node("Expand", [x, ints(b, 1, 1, 1, 1)]),
    "GlobalAveragePool": lambda b, x: b.node(
        "Mul", [x, b.node("Sigmoid", [b.node("GlobalAveragePool", [x])])]
    ),
    "HardSwish": lambda b, x: b.node("HardSwish", [x]),
    "LeakyRelu": lambda b, x: b.node("LeakyRelu", [x], alpha=0.1),
    "MaxPool": lambda b, x: b.node("MaxPool", [x], kernel_shape=[2, 2]),
    "Mul": lambda b, x: b.node("Mul", [x, b.conv(x, 4, 4)]),
    "Resize": lambda b, x: b.node(
        "Resize", [x, "", b.constant(np.array([1, 1, 2, 2], np.float32))], mode="nearest"
    ),
    "SiLU": lambda b, x: b.node("Mul", [x, b.node("Sigmoid", [x])]),
    "Transpose": lambda b, x: b.node("Transpose", [x], perm=[0, 1, 3, 2]),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_operators_between_convolutions_run_on_integer_kernels(name, tmp_path):
    b = Builder()
    between = BETWEEN[name](b, b.conv("image", 3, 4, 5))
    b.node("GlobalAveragePool", [b.relu(b.conv(between, 4, 4))], name="out")
    model = b.model({"image": ["N", 3, 8, 8]}, {"out": ["N", 4, 1, 1]})
    found = written(model, tmp_path)
    in_float = [node for node in found if not node.integer and node.between]
    no_kernel = {"ConvTranspose"} & {name}
    assert {node.op_type for node in in_float} == no_kernel
    open_file(tmp_path / "model.onnx", optimized=tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    if name == "DepthToSpace" and _RELEASE < (1, 23):
        return  # it moves no codes there
    assert kinds.count("DequantizeLinear") == (4 if no_kernel else 1)
