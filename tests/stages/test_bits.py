"""Bits of weights by measured loss: what is asked for is what is written."""

from pathlib import Path

import pytest

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.errors import ConfigError

DEMO = Path(__file__).parents[2] / "demo"


def run(**options):
    config = QuantizationConfig(
        preprocessing=Preprocessing(mean=(0.2860,), std=(0.3530,)),
        samples=40,
        optimizer="none",
        rounding="nearest",
        p_values=(2.0, 3.0, 4.0),
        **options,
    )
    return quantize(DEMO / "model.onnx", DEMO / "calib", config)


def weight_bits(report) -> dict[str, int]:
    return {record.name: record.bits for record in report.quantizers if record.kind == "weight"}


def test_the_file_fits_the_budget_and_the_report_says_how(tmp_path):
    result = run(size_budget=0.2)
    report = result.save(tmp_path / "out.onnx")
    assert 0.16 * report.model.bytes < report.output.bytes <= report.ladder.bytes <= 0.2 * report.model.bytes
    taken = {rung.layer: rung.after for rung in report.ladder.rungs}
    bits = weight_bits(report)
    assert {name: bits[name] for name in taken} == taken
    assert set(bits.values()) >= {4, 7}
    assert '"ladder"' in report.to_json()


def test_a_budget_counts_weights_that_are_packed_from_the_start(tmp_path):
    uniform = run(weight_bits=4, storage="packed").save(tmp_path / "uniform.onnx")
    share = uniform.output.bytes / uniform.model.bytes
    report = run(weight_bits=4, size_budget=0.95 * share).save(tmp_path / "out.onnx")
    assert report.output.bytes <= report.ladder.bytes <= 0.95 * uniform.output.bytes
    assert 2 in weight_bits(report).values()


def test_automatic_bits_stay_within_the_bound():
    report = run(bits=("auto",)).report
    assert report.ladder.budget is None
    assert 0 < report.ladder.rungs[-1].loss <= 0.01


def test_no_bits_are_tried_that_save_nothing():
    report = run(bits=("auto",)).report
    free = len(weight_bits(report)) - 2  # the first and the last layer keep 8
    assert report.ladder.evaluations == 1 + 2 * free
    assert {rung.after for rung in report.ladder.rungs} <= {2, 4}


def test_rules_hold_beside_automatic_bits():
    report = run(weight_bits=4, bits=("auto", "Conv=w5")).report
    assert set(list(weight_bits(report).values())[:-1]) == {5}
    assert report.ladder.rungs == ()


def test_a_budget_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match="the fewest bits take"):
        run(size_budget=0.05)


def test_a_target_without_packed_tensors_is_refused():
    with pytest.raises(ConfigError, match="does not read packed tensors"):
        QuantizationConfig(size_budget=0.2, target="qnn")


@pytest.mark.parametrize(
    ("options", "named"), [({"size_budget": 0.2}, "size_budget"), ({"bits": ("auto",)}, "--bits auto")]
)
def test_bits_of_float_weights_cannot_be_chosen(options, named):
    with pytest.raises(ConfigError, match=f"^{named} chooses bits of weights"):
        QuantizationConfig(weight_bits=32, **options)


@pytest.mark.parametrize("budget", [0.0, -0.1, 1.5])
def test_a_budget_is_a_share(budget):
    with pytest.raises(ConfigError, match="give a share"):
        QuantizationConfig(size_budget=budget)
