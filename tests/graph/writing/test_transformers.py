"""Sums in front of LayerNormalization, and masks in front of Softmax, as onnxruntime is quick on them."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from onnx import TensorProto, numpy_helper
from small_models import Builder, encoder, feeds

from onnx_lapq.graph.writing.transformers import limit_masks
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


def attention(
    mask: str = "int", *, form: str = "product", read_elsewhere: bool = False, last: bool = False
) -> onnx.ModelProto:
    """Scores [N, 4, 4] of x [N, 4, 8], with a mask [N, 4] of zeros and ones."""
    b = Builder()
    huge = number(b, np.finfo(np.float32).min)
    keys = b.node("MatMul", ["x", b.weight(8, 8)])
    scores = b.node("MatMul", [keys, b.node("Transpose", ["x"], perm=[0, 2, 1])])
    shown = b.node("Unsqueeze", ["mask", b.constant(np.array([1]))])
    if mask != "float":
        shown = b.node("Cast", [shown], to=TensorProto.FLOAT)
    if mask == "product":
        shown = b.node("Mul", [shown, shown])
    if form == "product":
        hidden = b.node("Mul", [b.node("Sub", [number(b, 1), shown]), huge])
        masked = b.node("Add", [scores, hidden])
    else:
        hidden = masked = b.node("Where", [b.node("Cast", [shown], to=TensorProto.BOOL), scores, huge])
    if last:
        b.node("Softmax", [masked], axis=-1, name="y")
        return finished(b, mask, 4)
    mixed = b.node("MatMul", [b.node("Softmax", [masked], axis=-1), keys])
    if read_elsewhere:
        mixed = b.node("Add", [mixed, b.node("ReduceMax", [hidden])])
    b.node("MatMul", [mixed, b.weight(8, 3)], name="y")
    return finished(b, mask, 3)


def finished(b: Builder, mask: str, width: int) -> onnx.ModelProto:
    model = b.model({"x": ["N", 4, 8], "mask": ["N", 4]}, {"y": ["N", 4, width]})
    kinds = {"bool": TensorProto.BOOL, "float": TensorProto.FLOAT}
    model.graph.input[1].type.tensor_type.elem_type = kinds.get(mask, TensorProto.INT64)
    return model


def samples(mask: str = "int", scale: float = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    kinds = {"bool": np.bool_, "float": np.float32}
    shown = np.tri(4)[random.integers(0, 4, 16)].astype(kinds.get(mask, np.int64))
    return {"x": scale * random.standard_normal((16, 4, 8)).astype(np.float32), "mask": shown}


def lowest(model: onnx.ModelProto) -> float:
    tensors = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return min(array.min() for array in tensors if array.dtype == np.float32 and array.size)


@pytest.mark.parametrize("mask", ["int", "bool"])
def test_a_mask_makes_no_denormal_numbers(mask):
    model, values = attention(mask), samples(mask)
    ours, others = (quantized(model, values, target=target).written() for target in ("ort-arm", "generic"))
    assert lowest(ours) == -64
    assert lowest(others) < -1e38
    one, two = (run(open_session(written), values)[0] for written in (ours, others))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        ("int", {"read_elsewhere": True}),
        ("int", {"last": True}),
        ("int", {"form": "choice"}),
        ("float", {}),
        ("product", {}),
    ],
)
def test_a_huge_number_stays_where_another_might_change_the_function(mask, options):
    written = quantized(attention(mask, **options), samples(mask), target="ort-arm").written()
    assert lowest(written) < -1e38


def test_a_choice_of_large_scores_computes_the_same():
    """Scores of a row may all lie below -64: what is masked stays below them."""
    model, values = attention(form="choice"), samples(scale=6)
    ours, others = (quantized(model, values, target=target).written() for target in ("ort-arm", "generic"))
    one, two = (run(open_session(written), values)[0] for written in (ours, others))
    np.testing.assert_array_equal(one, two)


def masked_scores() -> ir.Model:
    """Attention of one query whose scores are inputs."""
    return ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        masks (float[4] scores, bool[4] hidden, float[4, 2] keys) => (float[2] y) <float huge = {-1e9}> {
            number = Cast <to = 1> (hidden)
            far = Mul (number, huge)
            masked = Add (scores, far)
            weights = Softmax (masked)
            y = MatMul (weights, keys)
        }"""
    )


def test_a_masked_score_well_above_the_others_gets_no_weight():
    model = masked_scores()
    values = {
        "scores": np.array([20, 0, -1, 0], np.float32),
        "hidden": np.array([True, False, False, False]),
        "keys": np.eye(4, 2, dtype=np.float32),
    }
    before = run(open_session(ir.to_proto(model)), values)[0]
    limit_masks(model)
    assert model.graph[1].inputs[1].const_value.numpy() == -64
    after = run(open_session(ir.to_proto(model)), values)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-18)
