"""The search of promotion goes on down to neighbouring steps, and up to one tensor left quantized."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import FAST, run
from small_models import Builder, feeds


def forked():
    """A large layer between small ones, and beside them one that adds little to the output."""
    b = Builder()
    wide = b.node("Tanh", [b.gemm("x", 8, 128)])
    inner = b.gemm(b.node("Tanh", [b.gemm(wide, 128, 128)]), 128, 8)
    less = b.node("Mul", [b.node("Tanh", [b.gemm("x", 8, 8)]), b.constant(np.float32(0.2))])
    b.node("Add", [inner, less], name="y")
    return b.model({"x": ["N", 8]}, {"y": ["N", 8]})


def lopsided():
    """A huge layer, and apart from it a chain of small ones, which together weigh hardly anything."""
    b = Builder()
    b.gemm("x", 512, 512)
    b.nodes[-1].output[0] = "huge"
    last = "z"
    for _ in range(6):
        last = b.node("Tanh", [b.gemm(last, 8, 8)])
    b.node("Identity", [last], name="y")
    return b.model({"x": ["N", 512], "z": ["N", 8]}, {"huge": ["N", 512], "y": ["N", 8]})


def promoted(model, limit, *options):
    """A run on the samples that it is judged on, and its report where it wrote a model."""
    onnx.save(model, "model.onnx")
    np.savez("calib.npz", **feeds(model, 64))
    limits = ("--min-snr", str(limit), "--test", "calib.npz", "--promote")
    done = run("model.onnx", "calib.npz", "-o", "out.onnx", *FAST, *limits, *options)
    if done.exit_code:
        return done, None
    return done, json.loads(Path("out.onnx.report.json").read_text())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_last_tensor_that_stays_quantized_is_one_that_does_little():
    done, found = promoted(forked(), 45)
    assert done.exit_code == 0, done.output
    trials = found["promotion"]["trials"]
    assert any(trial["missed"] and trial["steps"] >= 5 for trial in trials)
    assert [one["name"] for one in found["quantizers"]] == ["c7"]
    assert found["test"][1]["outputs"][0]["worst_db"] >= 45


def test_where_nothing_but_float_keeps_a_limit_the_message_says_so():
    done, _ = promoted(forked(), 140)
    assert done.exit_code == 3
    found = [float(text.split(" dB")[0]) for text in done.stderr.split(" of y is ")[1:]]
    *trials, best = found
    assert best == max(trials)
    assert done.stderr.count("6 of 7 steps") > 2
    assert "trials of bits, the last ones with a single tensor quantized; nothing was written" in done.stderr
    assert "loosen the limit, or stay with the float model" in done.stderr


@pytest.mark.parametrize("limit", [20, 28])
def test_steps_that_cost_hardly_anything_are_told_apart(limit):
    done, found = promoted(lopsided(), limit, "-w", "4", "-a", "4")
    assert done.exit_code == 0, done.output
    trials, steps = found["promotion"]["trials"], len(found["promotion"]["steps"])
    assert steps > 2
    assert {"steps": steps, "joint": False, "missed": []} in trials
    assert max(trial["steps"] for trial in trials if trial["missed"]) == steps - 1
