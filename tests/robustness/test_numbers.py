import numpy as np
import onnx
import onnxruntime as ort
import pytest
from image_folders import write_images
from onnx import numpy_helper
from small_models import Builder, feeds, residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import InputError

FAST = {"p_values": (2.0, 3.0, 4.0), "max_evaluations": 2, "weight_bits": 4, "activation_bits": 4}


def with_first_weight(change) -> onnx.ModelProto:
    model = residual()
    tensor = model.graph.initializer[0]
    values = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(change(values).astype(np.float32), tensor.name))
    return model


def one_dead_channel(values):
    values[3] = 0
    return values


def never_firing() -> onnx.ModelProto:
    """The bias of the first layer is so low that its Relu never opens."""
    model = residual()
    tensor = model.graph.initializer[1]
    tensor.CopyFrom(numpy_helper.from_array(np.full(8, -1e3, np.float32), tensor.name))
    return model


def without_variance() -> onnx.ModelProto:
    b = Builder()
    parts = [b.constant(np.full(8, value, np.float32)) for value in (1, 0, 0, 0)]
    normal = b.node("BatchNormalization", [b.conv("image", 3, 8), *parts], epsilon=1e-5)
    pooled = b.node("Flatten", [b.node("GlobalAveragePool", [b.relu(normal)])])
    b.gemm(pooled, 8, 10)
    b.nodes[-1].output[0] = "logits"
    return b.model({"image": ["N", 3, 8, 8]}, {"logits": ["N", 10]})


ODD = {
    "zero weight": (lambda: with_first_weight(np.zeros_like), "weight 'c0' is zero everywhere"),
    "weights of 1e-30": (lambda: with_first_weight(lambda v: v * 1e-30), "weight 'c0' goes up to"),
    "denormal weights": (lambda: with_first_weight(lambda v: v * 1e-40), "weight 'c0' goes up to"),
    "weights of 1e12": (lambda: with_first_weight(lambda v: v * 1e12), "weight 'c0' goes up to"),
    "weights of 1e30": (lambda: with_first_weight(lambda v: v * 1e30), "weight 'c0' goes up to"),
    "dead channel": (lambda: with_first_weight(one_dead_channel), "zero in 1 of its 8 output channels"),
    "never firing": (never_firing, "is 0 on all samples"),
    "no variance": (without_variance, ""),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_numbers_end_in_sound_scales_and_a_warning(tmp_path, name):
    write, words = ODD[name]
    write_images(tmp_path / "calib", per_class=2)
    result = quantize(write(), tmp_path / "calib", QuantizationConfig(**FAST))
    scales = np.array([quantizer.scale for quantizer in result.report.quantizers])
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    assert any(words in warning for warning in result.report.warnings) or not words
    result.save(tmp_path / "out.onnx")
    (outputs,) = ort.InferenceSession(tmp_path / "out.onnx").run(None, feeds(residual(), 4))
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_no_number_is_refused_by_name(tmp_path, value):
    write_images(tmp_path / "calib", per_class=2)
    with pytest.raises(InputError, match=r"(weight|tensor) '\w+'"):
        quantize(with_first_weight(lambda v: v * 0 + value), tmp_path / "calib", QuantizationConfig(**FAST))


@pytest.mark.parametrize(("classes", "per_class"), [(1, 1), (1, 8)])
def test_one_sample_and_one_class_are_enough(tmp_path, classes, per_class):
    write_images(tmp_path / "calib", classes=classes, per_class=per_class)
    result = quantize(residual(), tmp_path / "calib", QuantizationConfig(**FAST))
    assert all(np.isfinite(quantizer.scale) and quantizer.scale > 0 for quantizer in result.report.quantizers)


@pytest.mark.parametrize("value", [0.0, 0.7, -0.7, 1e-40, 1e30])
def test_samples_that_are_constant_give_sound_scales(tmp_path, value):
    samples = {"image": np.full((8, 3, 8, 8), value, np.float32)}
    result = quantize(residual(), samples, QuantizationConfig(**FAST))
    assert all(np.isfinite(quantizer.scale) and quantizer.scale > 0 for quantizer in result.report.quantizers)
    result.save(tmp_path / "out.onnx")
    (outputs,) = ort.InferenceSession(tmp_path / "out.onnx").run(None, feeds(residual(), 4))
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_by_name(value):
    samples = {"image": np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    samples["image"][3, 1, 2, 2] = value
    with pytest.raises(InputError, match="image"):
        quantize(residual(), samples, QuantizationConfig(**FAST))
