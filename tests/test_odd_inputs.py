"""Inputs and weights of odd shapes, from the file to the written model."""

import numpy as np
import onnx
import pytest
from commands import run
from small_models import Builder, feeds

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.errors import CalibrationError, ModelError
from onnx_lapq.study.scores import evaluate_models

FAST = {"optimizer": "none", "rounding": "nearest", "p_values": (2.0, 3.0, 4.0)}


def with_a_cache() -> onnx.ModelProto:
    b = Builder()
    joined = b.node("Concat", ["cache", "x"], axis=2)
    kernel = b.constant((b.random.standard_normal((8, 8, 3)) / 5).astype(np.float32))
    rows = b.relu(b.node("Conv", [joined, kernel], pads=[1, 1]))
    b.gemm(b.node("ReduceMean", [rows], axes=[2], keepdims=0), 8, 5)
    b.nodes[-1].output[0] = "y"
    return b.model({"x": ["N", 8, 16], "cache": ["N", 8, "C"]}, {"y": ["N", 5]})


SAMPLES_OF_A_CACHE = {
    "x": np.random.default_rng(0).standard_normal((32, 8, 16)).astype(np.float32),
    "cache": np.zeros((32, 8, 0), np.float32),
}


def test_an_input_without_values_has_nothing_to_quantize(tmp_path):
    result = quantize(with_a_cache(), SAMPLES_OF_A_CACHE, QuantizationConfig(**FAST))
    assert result.save(tmp_path / "out.onnx").output is not None
    assert {node.op_type for node in result.model.graph.node} >= {"QuantizeLinear", "Conv"}


def test_the_closing_lines_say_that_an_input_has_no_values(tmp_path):
    model, samples, out = tmp_path / "model.onnx", tmp_path / "samples.npz", tmp_path / "out.onnx"
    onnx.save(with_a_cache(), model)
    np.savez(samples, **SAMPLES_OF_A_CACHE)
    done = run("quantize", str(model), str(samples), "-o", str(out), "--report")
    assert done.exit_code == 0, done.output
    assert "cache without values" in done.output
    assert out.exists()


@pytest.mark.parametrize("target", ["ort-arm", "tensorrt", "openvino", "generic"])
def test_a_weight_that_two_convolutions_read_is_delivered_for_every_target(tmp_path, target):
    b = Builder()
    weight = b.weight(8, 8, 3, 3)
    x = b.relu(b.conv("image", 3, 8))
    for _ in range(2):
        x = b.relu(b.node("Conv", [x, weight], pads=[1] * 4))
    b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [x])]), 8, 5)
    b.nodes[-1].output[0] = "y"
    model = b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 5]})
    config = QuantizationConfig(target=target, **FAST)
    quantize(model, feeds(model, 32), config).save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").exists()


def test_samples_that_overflow_in_the_model_are_refused():
    b = Builder()
    b.gemm(b.relu(b.gemm("x", 16, 8)), 8, 4)
    b.nodes[-1].output[0] = "y"
    model = b.model({"x": ["N", 16]}, {"y": ["N", 4]})
    with pytest.raises(CalibrationError, match="the float model computes NaN or infinity in tensor 'relu1'"):
        quantize(model, np.full((32, 16), 3e38, np.float32), QuantizationConfig(**FAST))


def test_an_output_of_a_single_number_is_not_scored():
    b = Builder()
    b.node("ReduceMean", [b.gemm("x", 16, 4)], "mean", keepdims=0)
    single = b.model({"x": [4, 16]}, {"mean": []})
    b.node("Relu", [b.nodes[0].output[0]], "y")
    model = b.model({"x": ["N", 16]}, {"y": ["N", 4], "mean": []})
    x = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    for score in evaluate_models([model, model], x, Preprocessing()):
        assert [output.name for output in score.outputs] == ["y"]
    with pytest.raises(ModelError, match="all outputs are single numbers"):
        evaluate_models([single], x, Preprocessing())
