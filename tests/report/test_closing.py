"""A run says how close its model is to the user's file, and how fast."""

import numpy as np
import pytest
from small_models import Builder, feeds, residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.graph.placement.roles import FloatNode
from onnx_lapq.report.closing import _slow

FAST = {"optimizer": "none", "rounding": "nearest", "p_values": (2.0, 3.0, 4.0)}


def report(**options):
    return quantize(residual(), feeds(residual(), 20), QuantizationConfig(**{**FAST, **options})).report


def test_every_float_output_has_its_snr_and_the_run_its_ratio():
    fine, coarse = report(), report(weight_bits=2, activation_bits=2)
    assert [output.name for output in fine.outputs] == ["logits"]
    assert fine.outputs[0].snr_db > 20 > coarse.outputs[0].snr_db
    assert fine.latency_ratio > 0


def test_a_model_for_another_runtime_is_not_timed():
    assert report(target="qnn").latency_ratio is None


@pytest.mark.parametrize(("ratio", "told"), [(None, 0), (0.4, 0), (1.0, 0), (1.5, 1)])
def test_a_slower_model_is_told(ratio, told):
    assert len(list(_slow(ratio, [], has_wide=False))) == told


@pytest.mark.parametrize("exclude", [(), ("node_y",)])
def test_a_slower_model_names_layers_without_an_integer_kernel(monkeypatch, exclude):
    monkeypatch.setattr("onnx_lapq.report.closing.latency_ratio", lambda *given: 1.5)
    b = Builder()
    x = b.relu(b.conv("image", 3, 8))
    b.node(
        "ConvTranspose", [x, b.weight(8, 2, 2, 2), b.constant(np.zeros(2, np.float32))], "y", strides=[2, 2]
    )
    model = b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 2, 16, 16]})
    told = quantize(model, feeds(model, 20), QuantizationConfig(**FAST, exclude=exclude)).report.warnings
    (said,) = (text for text in told if "times as long" in text)
    assert "in float run 1 ConvTranspose ('node_y')" in said


def test_a_slower_model_names_what_runs_in_float():
    nodes = [FloatNode("a", "Erf", ""), *(FloatNode(f"lstm_{at}", "LSTM", "") for at in (1, 2))]
    (said,) = _slow(1.5, nodes, has_wide=False)
    assert "in float run 2 LSTM ('lstm_1'), 1 Erf ('a'); leave the layers beside them" in said
    (wide,) = _slow(1.5, nodes, has_wide=True)
    assert "16 bits" in wide
    (small,) = _slow(1.5, [], has_wide=False)
    assert "too small to gain" in small


def test_a_model_of_a_fixed_batch_is_timed_on_whole_batches():
    model, samples = residual(), feeds(residual(), 20)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    assert quantize(model, samples, QuantizationConfig(**FAST)).report.latency_ratio > 0
