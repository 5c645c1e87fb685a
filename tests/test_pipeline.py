import json
from importlib.metadata import PackageNotFoundError

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from image_folders import write_images, write_job
from onnx import numpy_helper
from small_models import Builder, branching, feeds, recommender, residual

import onnx_lapq
from onnx_lapq import QuantizationConfig
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.errors import CalibrationError, InputError, ModelError, OutputError
from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.result import check_output

FAST = {"p_values": (2.0, 3.0, 4.0), "max_evaluations": 12}


@pytest.fixture
def job(tmp_path):
    return write_job(tmp_path, classes=10, per_class=2)


def quantize(job, **options):
    config = QuantizationConfig(**{**FAST, **options})
    return onnx_lapq.quantize(job / "model.onnx", job / "calib", config).save(job / "out.onnx")


def test_a_run_writes_a_model_that_plain_onnxruntime_runs(job):
    report = quantize(job, weight_bits=4, activation_bits=4)
    session = ort.InferenceSession(job / "out.onnx")
    (scores,) = session.run(None, feeds(residual(), 5))
    assert scores.shape == (5, 10)
    assert np.isfinite(scores).all()
    assert report.output.bytes == (job / "out.onnx").stat().st_size


def test_a_run_needs_no_record_of_installed_packages(job, monkeypatch):
    def refuse(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", refuse)
    config = QuantizationConfig(**FAST)
    result = onnx_lapq.quantize(job / "model.onnx", job / "calib", config, state=job / "state")
    assert result.report.libraries["onnxruntime"] == ort.__version__


def test_the_report_file_holds_the_record(job):
    report = quantize(job)
    written = json.loads((job / "out.onnx.report.json").read_text())
    assert written == json.loads(report.to_json())
    assert written["schema"] == 2
    stages = [stage["stage"] for stage in written["stages"]]
    assert [name for name in stages if name != "bias"][-2:] == ["quadratic", "compensated"]
    assert {quantizer["kind"] for quantizer in written["quantizers"]} == {"weight", "activation"}
    assert written["calibration"]["count"] == 20


def test_the_model_says_how_it_was_made(job):
    report = quantize(job, weight_bits=4)
    properties = {p.key: p.value for p in onnx.load(job / "out.onnx").metadata_props}
    stamp = json.loads(properties["onnx_lapq"])
    assert stamp["options"]["weight_bits"] == 4
    assert stamp["model_sha256"] == report.model.sha256


def test_the_report_counts_every_evaluation(job, monkeypatch):
    counted = []
    losses = SegmentEvaluator.losses
    monkeypatch.setattr(
        SegmentEvaluator, "losses", lambda self, point: (counted.append(1), losses(self, point))[1]
    )
    report = quantize(job, rounding="nearest", bits=("auto",))
    assert report.evaluations == len(counted) > FAST["max_evaluations"]


def test_the_loss_never_rises_from_stage_to_stage(job):
    report = quantize(job, weight_bits=3, activation_bits=3, rounding="nearest", max_evaluations=60)
    losses = {stage.stage: stage.loss for stage in report.stages}
    (start,) = (loss for stage, loss in losses.items() if stage.startswith("start: "))
    assert losses["joint"] <= start
    assert losses["quadratic"] <= min(losses["p=2"], losses["min-max"])
    assert report.history[0][1] == pytest.approx(start)


def test_rounded_to_nearest_kld_and_multiples_compete_with_the_parabola(job):
    options = {"weight_bits": 3, "activation_bits": 3, "rounding": "nearest", "max_evaluations": 1}
    report = quantize(job, **options, move_scales=False)  # even channels leave multiples little to gain
    losses = {stage.stage: 0.8 * stage.loss + 0.2 * stage.guard_loss for stage in report.stages}
    tried = {stage: loss for stage, loss in losses.items() if stage.startswith("weights x ")}
    assert len(tried) == 24
    assert {"weights x 1.5, activations x 0.7", "weights x 1, activations x 0.9"} < set(tried)
    candidates = {"quadratic": losses["quadratic"], "kld": losses["kld"], **tried}
    best = min(candidates, key=candidates.get)
    assert best in tried
    assert losses[f"start: {best}"] == pytest.approx(candidates[best])


@pytest.mark.parametrize(
    ("bits", "tried"),
    [
        ({"weight_bits": 32}, [f"activations x {factor}" for factor in (0.7, 0.8, 0.9, 1.1)]),
        ({"activation_bits": 32}, [f"weights x {factor}" for factor in (1.1, 1.2, 1.35, 1.5)]),
        ({"weight_bits": 8, "activation_bits": 8}, []),
    ],
)  # fmt: skip
def test_only_tensors_of_few_bits_have_a_factor(job, bits, tried):
    report = quantize(job, **{"weight_bits": 4, "activation_bits": 4, **bits}, rounding="nearest",
                      placement="paper", first_last="float", max_evaluations=1)  # fmt: skip
    stages = [stage.stage for stage in report.stages if not stage.stage.startswith("start: ")]
    assert [stage for stage in stages if " x " in stage] == tried


@pytest.mark.parametrize(
    ("options", "loss"),
    [({}, "kl"), ({"rounding": "nearest"}, "soft-kl"), ({"method": "mmse"}, "kl"),
     ({"rounding": "nearest", "loss": "kl"}, "kl")],
)  # fmt: skip
def test_a_search_with_nearest_rounding_softens_the_divergence(job, options, loss):
    assert quantize(job, **options, max_evaluations=1).loss == loss


def test_two_runs_write_the_same_bytes(job):
    quantize(job, weight_bits=4, activation_bits=4, workers=1)
    first = (job / "out.onnx").read_bytes()
    quantize(job, weight_bits=4, activation_bits=4, workers=1)
    assert (job / "out.onnx").read_bytes() == first


@pytest.mark.parametrize(
    "options",
    [
        {"per_channel": True, "weight_bits": 4},
        {"placement": "paper", "first_last": "float", "weight_bits": 4, "activation_bits": 4},
        {"weight_bits": 4, "activation_bits": 32},
        {"weight_bits": 32, "activation_bits": 4},
        {"optimizer": "scipy-powell", "rounding": "nearest"},
        {"optimizer": "none"},
        {"loss": "cross-entropy"},
        {"loss": "mse", "bias_correction": False},
        {"guard": 0.0},
        {"max_minutes": 1e-6},
    ],
)
def test_options_lead_to_a_model_that_runs(job, options):
    quantize(job, **options)
    (outputs,) = ort.InferenceSession(job / "out.onnx").run(None, feeds(residual(), 2))
    assert np.isfinite(outputs).all()


def test_several_integer_inputs_come_from_an_npz(tmp_path):
    onnx.save(recommender(), tmp_path / "model.onnx")
    labels = np.arange(32) % 2
    np.savez(tmp_path / "calib.npz", labels=labels.astype(np.float32), **feeds(recommender(), 32))
    config = QuantizationConfig(**FAST, loss="binary-cross-entropy")
    result = onnx_lapq.quantize(tmp_path / "model.onnx", tmp_path / "calib.npz", config)
    report = result.save(tmp_path / "out.onnx")
    assert report.loss == "binary-cross-entropy"
    ort.InferenceSession(tmp_path / "out.onnx").run(None, feeds(recommender(), 3))


def test_a_fixed_batch_of_one_works(job):
    model = branching()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, job / "model.onnx")
    quantize(job, weight_bits=4)
    (outputs,) = ort.InferenceSession(job / "out.onnx").run(None, feeds(branching(), 1))
    assert np.isfinite(outputs).all()


def with_weight(values) -> onnx.ModelProto:
    model = residual()
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((8, 3, 3, 3), values, np.float32), model.graph.initializer[0].name)
    )
    return model


def without_layers() -> onnx.ModelProto:
    b = Builder()
    b.node("Relu", ["image"], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 3, 8, 8]})


def quantized_already() -> onnx.ModelProto:
    b = Builder()
    scale = b.constant(np.array(0.1, np.float32))
    codes = b.node("QuantizeLinear", ["image", scale])
    b.node("DequantizeLinear", [codes, scale], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 3, 8, 8]})


def external_data_gone(job) -> None:
    onnx.save(residual(), job / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (job / "w.bin").unlink()


BROKEN = {
    "no such model": (
        lambda job: (job / "model.onnx").unlink(),
        ModelError,
        "model.onnx: no such model file",
    ),
    "not a protobuf": (
        lambda job: (job / "model.onnx").write_bytes(b"\xff" * 99),
        ModelError,
        "model.onnx: not an ONNX file",
    ),
    "cut short": (
        lambda job: (job / "model.onnx").write_bytes((job / "model.onnx").read_bytes()[:3000]),
        ModelError,
        "model.onnx: not an ONNX file",
    ),
    "empty": (
        lambda job: (job / "model.onnx").write_bytes(b""),
        ModelError,
        "model.onnx: holds no ONNX graph",
    ),
    "external data": (external_data_gone, ModelError, "external data file 'w.bin'"),
    "nothing to quantize": (
        lambda job: onnx.save(without_layers(), job / "model.onnx"),
        ModelError,
        "nothing to quantize",
    ),
    "quantized already": (
        lambda job: onnx.save(quantized_already(), job / "model.onnx"),
        ModelError,
        "quantized already",
    ),
    "weight NaN": (
        lambda job: onnx.save(with_weight(np.nan), job / "model.onnx"),
        InputError,
        "NaN or infinity",
    ),
    "activation infinite": (
        lambda job: onnx.save(with_weight(3e38), job / "model.onnx"),
        CalibrationError,
        "computes NaN or infinity in tensor",
    ),
    "undecodable image": (
        lambda job: (job / "calib" / "00" / "0.png").write_bytes(b"no image"),
        CalibrationError,
        "0.png",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(job, name):
    spoil, kind, words = BROKEN[name]
    spoil(job)
    before = sorted(path.name for path in job.iterdir())
    with pytest.raises(kind, match=words) as caught:
        quantize(job)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in job.iterdir()) == before


def test_an_empty_calibration_folder_is_refused(job):
    (job / "nothing").mkdir()
    with pytest.raises(CalibrationError, match="nothing: no samples in this folder"):
        onnx_lapq.quantize(job / "model.onnx", job / "nothing")


def test_images_that_cannot_fit_are_refused(job):
    with pytest.raises(CalibrationError, match="--resize"):
        quantize(job, preprocessing=Preprocessing(crop=(4, 4)))


def test_labels_outside_the_classes_are_refused(job):
    write_images(job / "calib" / "more", classes=1)
    lines = "\n".join(f"{path.relative_to(job / 'calib')},11" for path in (job / "calib").rglob("*.png"))
    (job / "calib" / "labels.csv").write_text(lines)
    with pytest.raises(CalibrationError, match=r"label 11 of sample 0 is outside 0\.\.9"):
        quantize(job, loss="cross-entropy")


@pytest.mark.parametrize(
    ("output", "words"), [("gone/out.onnx", "no such folder"), ("calib", "is a folder; give the name")]
)
def test_an_output_that_cannot_be_written_is_refused(job, output, words):
    with pytest.raises(OutputError, match=words):
        check_output(job / output)


def test_a_failed_write_leaves_the_old_output_as_it_was(job, monkeypatch):
    (job / "out.onnx").write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx_lapq.common.whole_files.os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        quantize(job)
    assert (job / "out.onnx").read_bytes() == b"old"
    assert sorted(path.name for path in job.iterdir()) == ["calib", "model.onnx", "out.onnx"]
