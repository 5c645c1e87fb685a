"""Recommenders: two integer inputs, embedding tables, one logit."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from small_models import feeds, recommender

import onnx_lapq
from onnx_lapq import QuantizationConfig
from onnx_lapq.method.loss_formulas import binary_kl

FAST = {"p_values": (2.0, 3.0, 4.0), "max_evaluations": 30, "workers": 1}
PAIRS = feeds(recommender(), 200)


def scores(model: onnx.ModelProto) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, PAIRS)[0]


@pytest.fixture(scope="module")
def w8a8():
    return onnx_lapq.quantize(recommender(), PAIRS, QuantizationConfig(**FAST))


def test_the_tables_are_stored_as_bytes_and_looked_up_as_codes(w8a8):
    tables = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in w8a8.model.graph.initializer
        if list(tensor.dims) == [30, 8]
    }
    assert {table.dtype.itemsize for table in tables.values()} == {1}
    assert len(tables) == 2
    floats = [t for t in w8a8.model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(tensor.dims)) for tensor in floats) < 60


def test_the_default_loss_of_one_logit_is_the_divergence_of_its_probability(w8a8):
    assert w8a8.report.loss == "kl"
    last = w8a8.report.stages[-1]
    by_hand = binary_kl(scores(w8a8.model), scores(recommender())).mean()
    assert by_hand == pytest.approx(0.8 * last.loss + 0.2 * last.guard_loss, rel=0.02)


def test_the_order_of_the_scores_stays_at_8_bits(w8a8):
    before, after = scores(recommender()), scores(w8a8.model)
    assert np.corrcoef(before, after)[0, 1] > 0.999


def test_the_joint_step_is_better_than_mmse_at_4_bits():
    bits = {"weight_bits": 4, "activation_bits": 4, "first_last": "same"}
    losses = {
        method: onnx_lapq.quantize(recommender(), PAIRS, QuantizationConfig(method=method, **bits, **FAST))
        .report.stages[-1]
        .loss
        for method in ("mmse", "lapq")
    }
    assert losses["lapq"] < losses["mmse"]


def test_labels_turn_the_loss_into_the_binary_cross_entropy():
    labels = (scores(recommender()) > 0).astype(np.float32)
    data = {**PAIRS, "labels": labels}
    config = QuantizationConfig(loss="binary-cross-entropy", **FAST)
    report = onnx_lapq.quantize(recommender(), data, config).report
    assert report.loss == "binary-cross-entropy"
    assert report.stages[0].loss == pytest.approx(
        np.logaddexp(0, -np.abs(scores(recommender()))).mean(), rel=0.2
    )
