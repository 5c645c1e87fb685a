"""Masks of minus infinity: values that carry them stay in float, and what is around them is quantized."""

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession
from small_models import Builder

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import CalibrationError

FAST = {"optimizer": "none", "rounding": "nearest", "p_values": (2.0, 3.0, 4.0), "workers": 1}
LENGTH, WIDTH, COUNT = 6, 16, 12
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((COUNT, LENGTH, WIDTH)).astype(np.float32)
CAUSAL = np.triu(np.full((LENGTH, LENGTH), -np.inf, np.float32), 1)
PADDED = np.where(np.arange(LENGTH) < RANDOM.integers(2, LENGTH + 1, (COUNT, 1)), 0, -np.inf)


def attention(b: Builder, masked) -> onnx.NodeProto:
    """Scores of queries and keys, a mask, and the values that are chosen; gives the name of the output."""
    query, key, value = (b.node("MatMul", ["x", b.weight(WIDTH, WIDTH)]) for _ in range(3))
    scores = b.node("MatMul", [query, b.node("Transpose", [key], perm=[0, 2, 1])])
    chosen = b.node("MatMul", [b.node("Softmax", [masked(scores)]), value])
    return b.node("MatMul", [chosen, b.weight(WIDTH, 8)], "y")


def snr(model: onnx.ModelProto, samples: dict[str, np.ndarray]) -> float:
    """Decibels of the output of the quantized model, where the float one is finite."""
    result = quantize(model, samples, QuantizationConfig(**FAST))
    wanted, found = (
        InferenceSession(one.SerializeToString()).run(["y"], samples)[0] for one in (model, result.model)
    )
    finite = np.isfinite(wanted)
    assert (finite == np.isfinite(found)).all()
    assert result.report.outputs
    assert all(score.snr_db is not None and score.snr_db > 25 for score in result.report.outputs)
    wanted, found = wanted[finite], found[finite]
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


@pytest.mark.parametrize("how", ["added", "chosen", "fed"])
def test_attention_with_a_mask_of_minus_infinity_is_quantized(how):
    b, inputs, samples = Builder(), {"x": ["N", LENGTH, WIDTH]}, {"x": X}
    if how == "added":
        attention(b, lambda scores: b.node("Add", [scores, b.constant(CAUSAL)]))
    elif how == "chosen":
        never = b.constant(np.array(-np.inf, np.float32))
        attention(b, lambda scores: b.node("Where", [b.constant(CAUSAL == 0), scores, never]))
    else:
        inputs["attention_mask"], samples["attention_mask"] = ["N", 1, LENGTH], PADDED[:, None].astype("f")
        attention(b, lambda scores: b.node("Add", [scores, "attention_mask"]))
    assert snr(b.model(inputs, {"y": ["N", LENGTH, 8]}), samples) > 25


@pytest.mark.parametrize("operator", ["Add", "Where", "LogSoftmax"])
def test_classes_that_a_mask_rules_out_have_no_part_in_the_loss(operator):
    b, ruled_out = Builder(), np.arange(10) % 3 == 0
    logits = b.gemm(b.relu(b.gemm("x", WIDTH, 32)), 32, 10)
    mask = np.where(ruled_out, -np.inf, 0).astype(np.float32)
    if operator == "Where":
        b.node("Where", [b.constant(ruled_out), b.constant(mask), logits], "y")
    elif operator == "Add":
        b.node("Add", [logits, b.constant(mask)], "y")
    else:
        b.node("LogSoftmax", [b.node("Add", [logits, b.constant(mask)])], "y")
    assert snr(b.model({"x": ["N", WIDTH]}, {"y": ["N", 10]}), {"x": X[:, 0]}) > 25


def test_an_input_that_is_quantized_holds_no_infinity():
    b, bad = Builder(), X[:, 0].copy()
    b.node("Relu", [b.gemm("x", WIDTH, 8)], "y")
    bad[3, 2] = -np.inf
    model = b.model({"x": ["N", WIDTH]}, {"y": ["N", 8]})
    with pytest.raises(CalibrationError, match="input 'x' is quantized, and holds infinity in one of the"):
        quantize(model, bad, QuantizationConfig(**FAST))
    bad[3, 2] = np.inf
    with pytest.raises(CalibrationError, match="sample 3 holds NaN or infinity"):
        quantize(model, bad, QuantizationConfig(**FAST))
