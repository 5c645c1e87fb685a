"""What plain onnxruntime does not compute as the search did is not delivered."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from image_folders import write_images
from onnxruntime import InferenceSession
from small_models import residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import RunError
from onnx_lapq.graph import saving

FAST = {"optimizer": "none", "rounding": "nearest", "p_values": (2.0, 3.0, 4.0)}


def run(tmp_path, **options):
    if not (tmp_path / "calib").exists():
        write_images(tmp_path / "calib")
    return quantize(residual(), tmp_path / "calib", QuantizationConfig(**{**FAST, **options}))


def spoil(result, factor):
    """Multiply all weight scales."""
    for name, value in result.ir_model.graph.initializers.items():
        if name.endswith("_scale") and value.const_value.shape:
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)


@pytest.mark.parametrize("factor", [0.5, np.nan])
@pytest.mark.parametrize("large", [False, True])
def test_a_file_that_computes_something_else_is_not_delivered(tmp_path, monkeypatch, factor, large):
    if large:
        monkeypatch.setattr(saving, "_PROTOBUF_LIMIT", 100)
    result = run(tmp_path)
    spoil(result, factor)
    (tmp_path / "out.onnx").write_bytes(b"old")
    with pytest.raises(RunError, match="computes output 'logits' otherwise than the search did"):
        result.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"calib", "out.onnx"}


def test_the_written_file_is_as_close_to_the_users_own_as_it_was_in_memory(tmp_path):
    result = run(tmp_path)
    beside = result.expected.beside
    (logits,) = InferenceSession(residual().SerializeToString()).run(["logits"], beside.feeds)
    np.testing.assert_array_equal(beside.given["logits"], logits)
    spoil(result, 0.5)
    (spoiled,) = InferenceSession(result.model.SerializeToString()).run(["logits"], result.expected.feeds)
    blind = replace(result, expected=replace(result.expected, outputs={"logits": spoiled}))
    with pytest.raises(RunError, match="output 'logits' of the file is off your model's by"):
        blind.save(tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["calib"]


def test_a_file_that_does_not_load_is_not_delivered(tmp_path):
    result = run(tmp_path)
    result.ir_model.graph[-1].op_type = "Blub"
    with pytest.raises(RunError, match="nothing was written: onnxruntime does not load"):
        result.save(tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["calib"]


def test_without_the_check_it_is_written_all_the_same(tmp_path):
    result = run(tmp_path, verify=False)
    spoil(result, 0.5)
    result.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("target", ["ort-x86", "ort-arm", "tensorrt", "openvino", "qnn", "generic"])
def test_files_for_every_target_pass(tmp_path, target):
    assert run(tmp_path, target=target).save(tmp_path / "out.onnx").output is not None


def test_packed_files_pass(tmp_path):
    result = run(tmp_path, weight_bits=2, activation_bits=4, storage="packed")
    assert result.save(tmp_path / "out.onnx").output is not None
