"""A run says in one line when its model is bad, what costs most, and which command would help."""

import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from networks import bench_of
from small_models import Builder, feeds, residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.report import alarm
from onnx_lapq.report.alarm import trouble
from onnx_lapq.stages.found import Found, StageRecord

FAST = {"optimizer": "none", "rounding": "nearest", "p_values": (2.0, 3.0, 4.0)}
GOOD = OutputScore("logits", None, "kl", 30.0, None, None, 0.99)
FOUND = Found(stages=(StageRecord("float", 0.0, 0.0, 0), StageRecord("joint", 0.01, 0.02, 9)))


def bad(model, **options):
    """The warnings of a run that say what is bad."""
    report = quantize(model, feeds(model, 40), QuantizationConfig(**{**FAST, **options})).report
    return [text for text in report.warnings if "on calibration samples" in text or "say nothing" in text]


class FakeBench:
    """As much of a bench as the look at a loss needs."""

    def __init__(self, flat):
        self.loss = type("Loss", (), {"flat": flat})


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (GOOD, None),
        (replace(GOOD, snr_db=9.9), "output 'logits' keeps only 9.9 dB"),
        (replace(GOOD, snr_db=-np.inf), "output 'logits' keeps only -inf dB"),
        (
            replace(GOOD, rows="[4:6]", worst_row=5, worst_db=3.0),
            "row 5 of output 'logits[4:6]' keeps only 3.0 dB",
        ),
        (replace(GOOD, agreement=0.84), "output 'logits' agrees to only 84 %"),
        (replace(GOOD, loss="direction", agreement=0.84), "output 'logits' agrees to only 0.84"),
    ],
)
def test_a_part_that_is_lost_is_told(score, said):
    found = trouble([replace(GOOD, name="other"), score], FakeBench(1.0), FOUND)
    assert found is None if said is None else (found.said.startswith(said) and found.score is score)


@pytest.mark.parametrize(("flat", "told"), [(0.07, True), (0.09, False), (None, False)])
def test_a_loss_above_a_quarter_of_no_signal_is_told(flat, told):
    said = trouble([GOOD], FakeBench(flat), FOUND)
    assert (said and said.said) == (
        f"the guard loss is {0.02 / 0.07:.0%} of that of outputs that say nothing of the input"
        if told
        else None
    )


def test_a_good_model_is_not_told():
    assert bad(residual()) == []


def test_few_bits_name_the_layers_that_would_help():
    (line,) = bad(residual(), weight_bits=2, activation_bits=2)
    patterns = [
        text.rpartition("=")[0] for text in shlex.split(line.partition("; try ")[2]) if text != "--bits"
    ]
    assert 1 <= len(patterns) <= 3
    before = float(re.search(r"keeps only (-?[\d.]+) dB", line)[1])
    again = bad(residual(), weight_bits=2, activation_bits=2, bits=tuple(f"{one}=8" for one in patterns))
    assert again == [] or float(re.search(r"keeps only (-?[\d.]+) dB", again[0])[1]) > before


def test_activations_are_tried_though_less_is_left_of_weights(monkeypatch):
    monkeypatch.setattr(alarm, "_TRIED", 2)
    (line,) = bad(residual(), weight_bits=2, activation_bits=4, move_scales=False)
    assert "most is lost by 'add7' (+" in line


def test_a_layer_that_8_bits_ruin_is_to_be_left_in_float():
    b = Builder()
    wide = np.array([1] * 7 + [1e4], np.float32)
    first, even = b.random.standard_normal((2, 8, 8, 1, 1)).astype(np.float32)
    first *= wide.reshape(8, 1, 1, 1)
    x = b.relu(b.node("Conv", [b.conv("image", 3, 8), b.constant(first)]))
    even /= wide.reshape(1, 8, 1, 1)
    y = b.node("Conv", [x, b.constant(even)], "y")
    model = b.model({"image": ["N", 3, 8, 8]}, {y: ["N", 8, 8, 8]})
    (line,) = bad(model, move_scales=False)
    assert "'relu2' (+" in line
    excluded = line.partition("; try --exclude ")[2].split(",")
    assert "node_y" in excluded
    assert bad(model, move_scales=False, exclude=tuple(excluded)) == []


@pytest.mark.parametrize(
    ("worth", "advice"),
    [
        (0.0, "; try --bits node_"),
        (
            60.0,
            "by many; try more bits, such as -w 8 -a 8 or -w 4 -a 8, or find them by --min-snr 10 --promote",
        ),
    ],
)
def test_a_loss_that_many_tensors_make_asks_for_more_bits_of_all(monkeypatch, worth, advice):
    monkeypatch.setattr(alarm, "_WORTH_DB", worth)
    (line,) = bad(residual(), weight_bits=2, activation_bits=2)
    assert "most is lost by 'add7' (+2.3 dB without), 'c6' (+1.5 dB without), 'c10' (+1.3 dB without)" in line
    assert advice in line


def test_a_command_leaves_something_to_quantize():
    bench = bench_of(residual())
    every = list(bench.network.placement.bits_by_name)
    assert alarm._command(bench, every) == "try more samples, or samples more like the real ones"
    assert alarm._command(bench, every[:1]).startswith("try --exclude ")


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"weight_bits": 2, "activation_bits": 32}, "such as -w 8 -a 32 or -w 4 -a 32,"),
        ({"weight_bits": 4, "activation_bits": 8}, "such as -w 8 -a 8,"),
        ({"weight_bits": 4, "activation_bits": 4}, "such as -w 8 -a 8 or -w 4 -a 8,"),
        ({"weight_bits": 8, "activation_bits": 4}, "such as -w 8 -a 8,"),
        ({"weight_bits": 8, "activation_bits": 8, "bits": ("*=w2",)}, "such as -w 8 -a 8 or -w 4 -a 8,"),
        ({"weight_bits": 8, "activation_bits": 8}, "try more samples,"),
    ],
)
def test_the_advice_is_more_than_the_bits_that_there_are(options, advice):
    assert advice in alarm._for_all(bench_of(residual(), **options))


def test_float_activations_stay_float_in_the_command():
    bench = bench_of(residual(), weight_bits=2, activation_bits=32)
    assert re.fullmatch(r"try --bits '?\S+=w8'?", alarm._command(bench, list(bench.network.layers)[1:2]))
