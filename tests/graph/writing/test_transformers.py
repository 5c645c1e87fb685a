"""Sums in front of LayerNormalization, and masks in front of Softmax, as onnxruntime is quick on them."""

from collections import Counter

import numpy as np
import onnx
import pytest
from networks import quantized
from onnx import TensorProto, numpy_helper
from small_models import Builder, encoder, feeds

from onnx_lapq.runtime.session import open_file, open_session, run


def number(b: Builder, value: float) -> str:
    return b.constant(np.array(value, np.float32))


def test_sums_are_not_fused_into_layer_normalisation(tmp_path):
    model = encoder()
    onnx.save(quantized(model, feeds(model, 8)).written(), tmp_path / "model.onnx")
    open_file(tmp_path / "model.onnx", optimized=tmp_path / "optimized.onnx")
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert found["LayerNormalization"] > 0
    assert found["Sum"] > 0
    assert found["SkipLayerNormalization"] == 0


def attention(form: str, *, read_elsewhere: bool = False) -> onnx.ModelProto:
    """Scores [N, 4, 4] of x [N, 4, 8], with a mask [N, 4] of zeros and ones."""
    b = Builder()
    huge = number(b, np.finfo(np.float32).min)
    keys = b.node("MatMul", ["x", b.weight(8, 8)])
    scores = b.node("MatMul", [keys, b.node("Transpose", ["x"], perm=[0, 2, 1])])
    mask = b.node("Unsqueeze", ["mask", b.constant(np.array([1]))])
    if form == "product":
        hidden = b.node("Mul", [b.node("Sub", [number(b, 1), mask]), huge])
        masked = b.node("Add", [scores, hidden])
    else:
        hidden = masked = b.node("Where", [b.node("Cast", [mask], to=TensorProto.BOOL), scores, huge])
    mixed = b.node("MatMul", [b.node("Softmax", [masked], axis=-1), keys])
    if read_elsewhere:
        mixed = b.node("Add", [mixed, b.node("ReduceMax", [hidden])])
    b.node("MatMul", [mixed, b.weight(8, 3)], name="y")
    return b.model({"x": ["N", 4, 8], "mask": ["N", 4]}, {"y": ["N", 4, 3]})


def samples():
    random = np.random.default_rng(0)
    mask = np.tri(4, dtype=np.float32)[random.integers(0, 4, 16)]
    return {"x": random.standard_normal((16, 4, 8)).astype(np.float32), "mask": mask}


def lowest(model: onnx.ModelProto) -> float:
    tensors = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return min(array.min() for array in tensors if array.dtype == np.float32 and array.size)


@pytest.mark.parametrize("form", ["product", "choice"])
def test_a_mask_makes_no_denormal_numbers(form):
    model = attention(form)
    ours, others = (quantized(model, samples(), target=target).written() for target in ("ort-arm", "generic"))
    assert lowest(ours) == -64
    assert lowest(others) < -1e38
    one, two = (run(open_session(written), samples())[0] for written in (ours, others))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


def test_a_huge_number_that_is_read_elsewhere_stays():
    written = quantized(attention("product", read_elsewhere=True), samples(), target="ort-arm").written()
    assert lowest(written) < -1e38
