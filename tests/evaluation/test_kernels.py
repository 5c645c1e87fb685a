"""Which nodes onnxruntime runs on integers."""

import onnx
import pytest
from networks import quantized
from small_models import Builder, feeds, residual

from onnx_lapq.evaluation.kernels import kernels


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
    (gemm,) = [node for node in found if not node.integer]
    assert gemm.op_type == "Gemm"
    assert not gemm.between
    assert "float constant" in gemm.reason or "not quantized" in gemm.reason


def test_an_operator_without_an_integer_kernel_is_named(tmp_path):
    b = Builder()
    hidden = b.node("Tanh", [b.conv("image", 3, 4)])
    b.node("Identity", [b.conv(hidden, 4, 4)], name="out")
    found = written(b.model({"image": ["N", 3, 8, 8]}, {"out": ["N", 4, 8, 8]}), tmp_path)
    (tanh,) = [node for node in found if node.op_type == "Tanh"]
    assert not tanh.integer
    assert tanh.between
    assert "no integer kernel for Tanh" in tanh.reason
