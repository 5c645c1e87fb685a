import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from image_folders import write_job
from small_models import feeds, residual

import onnx_lapq
from onnx_lapq import QuantizationConfig
from onnx_lapq.errors import ConfigError

METHODS = ["minmax", "percentile", "mmse", "kld", "aciq", "lp", "random"]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    return write_job(folder, classes=5, per_class=2)


def quantize(job, method, **options):
    config = QuantizationConfig(
        **{"method": method, "weight_bits": 4, "activation_bits": 4, "workers": 1, **options}
    )
    return onnx_lapq.quantize(job / "model.onnx", job / "calib", config).save(job / f"{method}.onnx")


def scales(report):
    return {quantizer.name: quantizer.scale for quantizer in report.quantizers}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_a_model_that_runs_and_says_how_it_was_made(job, method):
    report = quantize(job, method)
    assert [stage.stage for stage in report.stages if stage.stage != "bias"] == ["float", method]
    assert (report.options["optimizer"], report.options["rounding"]) == ("none", "nearest")
    assert all(quantizer.moved_by == 1 for quantizer in report.quantizers)
    stamp = {p.key: p.value for p in onnx.load(job / f"{method}.onnx").metadata_props}["onnx_lapq"]
    assert json.loads(stamp)["method"] == method
    ort.InferenceSession(job / f"{method}.onnx").run(None, feeds(residual(), 2))


def test_methods_agree_with_the_samples_of_the_grid_of_p(job):
    alike = {"rounding": "nearest", "optimizer": "none", "loss": "kl", "move_scales": False}
    lapq = quantize(job, "lapq", p_values=(2.0, 3.0, 4.0), **alike)
    losses = {stage.stage: stage.loss for stage in lapq.stages}
    methods = {"minmax": {}, "mmse": {}, "lp": {"p": 3.0}}
    found = {method: quantize(job, method, **options).stages[1].loss for method, options in methods.items()}
    assert found["minmax"] == losses["min-max"]
    assert found["mmse"] == pytest.approx(losses["p=2"], rel=0.05)
    assert found["lp"] == pytest.approx(losses["p=3"], rel=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_no_method_takes_more_than_the_min_max_step(job, method):
    widest = scales(quantize(job, "minmax", per_channel=True))
    largest = max(
        scale / widest[name] for name, scale in scales(quantize(job, method, per_channel=True)).items()
    )
    assert largest <= (1.08 if method in ("mmse", "lp") else 1)


def test_the_seed_decides_the_random_steps(job):
    first, again = scales(quantize(job, "random")), scales(quantize(job, "random"))
    assert first == again
    assert scales(quantize(job, "random", seed=1)) != first


def test_rounding_and_the_joint_step_start_from_a_baseline_where_asked(job):
    few = {"loss": "mse", "max_evaluations": 30}
    report = quantize(job, "random", rounding="compensated", optimizer="powell", **few)
    losses = {stage.stage: stage.loss for stage in report.stages}
    assert list(losses)[:4] == ["float", "random", "compensated", "joint"]
    assert losses["joint"] < losses["compensated"]


@pytest.mark.parametrize(
    ("option", "value"), [("p", 0.0), ("p", np.inf), ("percentile", 0.0), ("percentile", 101), ("seed", -1)]
)
def test_options_that_make_no_sense_are_refused(option, value):
    with pytest.raises(ConfigError, match=f"{option} is"):
        QuantizationConfig(**{option: value})
