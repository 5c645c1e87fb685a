"""The demo in the repository: a real network on real images."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.samples import read_samples
from onnx_lapq.runtime.session import open_file, open_session, run
from onnx_lapq.study.scores import evaluate_models

DEMO = Path(__file__).parents[2] / "demo"
MODEL = DEMO / "model.onnx"
PREPROCESSING = Preprocessing(mean=(0.2860,), std=(0.3530,))


@pytest.fixture(scope="module")
def w4a4(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "w4a4.onnx"
    config = QuantizationConfig(weight_bits=4, activation_bits=4, preprocessing=PREPROCESSING)
    return output, quantize(MODEL, DEMO / "calib", config).save(output)


def images(folder: str) -> dict[str, np.ndarray]:
    samples = read_samples(load(MODEL), DEMO / folder, PREPROCESSING, 100, lambda done: None)
    return samples.batch(0, 100)


def test_demo_model_is_small_and_good():
    (score,) = evaluate_models([MODEL], DEMO / "test", PREPROCESSING)
    assert score.bytes <= 1_500_000
    assert score.top1 >= 0.88


def test_preparation_folds_the_batch_norms_and_keeps_the_outputs():
    prepared = prepare(load(MODEL))
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph}
    before, after = run(open_file(MODEL), images("test"))[0], run(open_session(prepared), images("test"))[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())


def test_4_bits_keep_the_accuracy(w4a4):
    output, _ = w4a4
    before, after = evaluate_models([MODEL, output], DEMO / "test", PREPROCESSING)
    assert after.top1 >= before.top1 - 0.02
    assert after.kl <= 0.02


def test_the_loss_falls_from_stage_to_stage(w4a4):
    _, report = w4a4
    losses = {stage.stage: stage.loss for stage in report.stages}
    assert losses["joint"] < losses["compensated"] < losses["p=2"]
    assert losses["joint"] < losses["quadratic"] < losses["p=2"]


def test_the_reported_loss_is_that_of_the_written_model(w4a4):
    output, report = w4a4
    _, written = evaluate_models([MODEL, output], DEMO / "calib", PREPROCESSING)
    joint = report.stages[-1]
    guards = round(0.2 * 200)
    simulated = (joint.loss * (200 - guards) + joint.guard_loss * guards) / 200
    assert written.kl == pytest.approx(simulated, rel=1e-6)


def test_every_layer_between_the_quantizers_runs_on_integer_kernels(w4a4, tmp_path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(w4a4[0], options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= kinds
    assert not {"Conv", "Add", "Gemm"} & kinds


def test_where_another_p_has_a_far_lower_loss_both_are_rounded_from_and_the_better_outcome_is_kept():
    config = QuantizationConfig(2, 4, preprocessing=PREPROCESSING, optimizer="none")
    report = quantize(MODEL, DEMO / "calib", config).report
    rounded = [stage for stage in report.stages if stage.stage.startswith("compensated")]
    assert [stage.stage for stage in rounded] == ["compensated from p=2", "compensated"]
    given_up, kept = (0.8 * stage.loss + 0.2 * stage.guard_loss for stage in rounded)
    assert kept < given_up


def test_the_number_of_workers_does_not_change_the_bytes(w4a4, tmp_path):
    output = tmp_path / "again.onnx"
    config = QuantizationConfig(weight_bits=4, activation_bits=4, preprocessing=PREPROCESSING, workers=1)
    quantize(MODEL, DEMO / "calib", config).save(output)
    assert output.read_bytes() == w4a4[0].read_bytes()
