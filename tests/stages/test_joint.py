"""What a run says of how far its joint step is."""

from dataclasses import replace

import pytest
from small_models import feeds, residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.cli.progress import show_progress

CONFIG = QuantizationConfig(
    weight_bits=3, activation_bits=4, p_values=(2.0, 3.0, 4.0), loss="mse", rounding="nearest"
)


def joint_progress(config, observers=()):
    seen = []

    def observe(progress):
        for observer in observers:
            observer(progress)
        if progress.phase == "joint":
            seen.append(progress)

    quantize(residual(), feeds(residual(), 24), config, observer=observe)
    return seen


@pytest.mark.parametrize("optimizer", ["powell", "scipy-powell"])
@pytest.mark.parametrize("most", [None, 60])
def test_the_joint_step_says_what_is_done_and_what_is_left_under_a_cap(optimizer, most, capsys, monkeypatch):
    monkeypatch.setattr("onnx_lapq.cli.progress._SECONDS_BETWEEN_LINES", -1.0)
    config = replace(CONFIG, optimizer=optimizer, max_evaluations=most)
    with show_progress(quiet=False) as observer:
        seen = joint_progress(config, [observer])
    assert {progress.total for progress in seen} == {most}
    assert [progress.done for progress in seen] == list(range(len(seen)))
    losses = [progress.loss for progress in seen if progress.loss is not None]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("joint")]
    assert len(said) > 20
    assert any("left" in line for line in said[:-2]) == (most is not None)


@pytest.mark.parametrize(
    ("bits", "optimizer", "method", "searches"),
    [
        ((7, 8), "auto", "lapq", False),
        ((6, 8), "auto", "lapq", True),
        ((8, 6), "auto", "lapq", True),
        ((8, 8), "powell", "lapq", True),
        ((4, 4), "none", "lapq", False),
        ((4, 4), "auto", "minmax", False),
    ],
)
def test_by_itself_the_joint_step_runs_where_a_tensor_has_few_bits(bits, optimizer, method, searches):
    weights, activations = bits
    options = {"p_values": (2.0, 3.0, 4.0), "loss": "mse", "rounding": "nearest", "max_evaluations": 2}
    config = QuantizationConfig(weights, activations, optimizer=optimizer, method=method, **options)
    result = quantize(residual(), feeds(residual(), 24), config)
    assert ("joint" in [stage.stage for stage in result.report.stages]) == searches


@pytest.mark.parametrize(("most", "said"), [(1, True), (60, False)])
def test_a_joint_step_that_finds_nothing_says_so(most, said, caplog):
    caplog.set_level("INFO", "onnx_lapq")
    quantize(residual(), feeds(residual(), 24), replace(CONFIG, max_evaluations=most))
    assert (f"nothing better found; evaluations: {most}" in caplog.text) == said
