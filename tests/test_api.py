"""The Python API, as a program calls it."""

import json
import threading
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from small_models import feeds, recommender, residual

from onnx_lapq import CancelledError, ConfigError, ModelError, OutputError, QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing

FAST = QuantizationConfig(
    weight_bits=4, activation_bits=4, p_values=(2.0, 3.0, 4.0), max_evaluations=12, workers=1
)
SAMPLES = feeds(residual(), 12)


def bytes_of(result) -> bytes:
    return result.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "foo"}, "optimizer is 'foo'; give one of auto, powell, scipy-powell, none"),
        ({"rounding": "foo"}, "rounding is 'foo'; give one of auto, compensated, nearest"),
        ({"storage": "foo"}, "storage is 'foo'; give one of int8, packed"),
        ({"first_last": 8}, "first_last is 8; give one of 8, float, same"),
        ({"placement": "foo"}, "placement is 'foo'; give one of integer, paper"),
        ({"transform": "foo"}, "transform is 'foo'; give one of none, ocs, dual"),
        ({"target": "foo"}, "target is 'foo'; give one of ort-x86,"),
        ({"executor": "foo"}, "executor is 'foo'; give one of local, ray"),
        ({"method": np.zeros(2)}, "give one of lapq, minmax"),
        ({"loss": None}, "loss is None; give one of auto, kl"),
        ({"weight_bits": "4"}, "weight_bits is '4'; give 2 to 8, or 32 for float"),
        ({"weight_bits": 4.0}, "weight_bits is 4.0; give 2 to 8"),
        ({"weight_bits": True}, "weight_bits is True; give 2 to 8"),
        ({"samples": "x"}, "samples is 'x'; give an integer above 0 or None"),
        ({"max_minutes": float("nan")}, "max_minutes is nan; give a number from 0 on or None"),
        ({"equalize": 1}, "equalize is 1; give true or false"),
        ({"per_channel": 1}, "per_channel is 1; give true or false or None"),
        ({"include": "Gemm"}, "include is 'Gemm'; give a tuple, each a text"),
        ({"p_values": (2, "3", 4)}, "give a tuple, each a number"),
        ({"preprocessing": "imagenet"}, "preprocessing is 'imagenet'; give a Preprocessing"),
    ],
)
def test_an_option_of_another_kind_is_refused(options, words):
    with pytest.raises(ConfigError) as caught:
        QuantizationConfig(**options)
    assert words in str(caught.value)


def test_preprocessing_of_another_kind_is_refused():
    for options, words in (
        ({"mean": 0.5}, "mean is 0.5; give a tuple, each a number"),
        ({"crop": (1, 2, 3)}, "crop is (1, 2, 3); give a pair, each an integer or None"),
        ({"color": "grey"}, "color is 'grey'; give one of auto, rgb, bgr, gray"),
    ):
        with pytest.raises(ConfigError) as caught:
            Preprocessing(**options)
        assert words in str(caught.value)


def test_lists_stand_for_tuples_and_integers_for_floats():
    assert QuantizationConfig(p_values=[2, 3, 4], include=["Conv"], max_minutes=1).guard == 0.2


def test_a_model_or_options_of_another_type_are_refused():
    with pytest.raises(ModelError, match="the model is of type int; give a path"):
        quantize(3, SAMPLES, FAST)
    with pytest.raises(ConfigError, match="config is of type dict; give a QuantizationConfig"):
        quantize(residual(), SAMPLES, {"weight_bits": 4})


@pytest.fixture(scope="module")
def expected() -> bytes:
    return bytes_of(quantize(residual(), SAMPLES, FAST))


def as_path(model, folder):
    onnx.save(model, folder / "model.onnx")
    return str(folder / "model.onnx")


@pytest.mark.parametrize(
    "form", [as_path, lambda model, _: model.SerializeToString(), lambda model, _: ir.from_proto(model)]
)
def test_a_model_in_any_form_gives_the_same_network(form, tmp_path, expected):
    result = quantize(form(residual(), tmp_path), SAMPLES, FAST)
    proto, before = result.model, onnx.load_from_string(expected)
    assert proto.graph == before.graph


def test_the_callers_model_is_left_as_it_was():
    proto = residual()
    model = ir.from_proto(proto)
    before = proto.SerializeToString(deterministic=True)
    quantize(model, SAMPLES, FAST)
    quantize(proto, SAMPLES, FAST)
    assert proto.SerializeToString(deterministic=True) == before
    assert ir.to_proto(model) == ir.to_proto(ir.from_proto(proto))


def test_a_model_in_memory_whose_tensors_are_in_files_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(residual(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(ModelError, match=r"lies in the file 'w\.bin'"):
        quantize(onnx.load(path, load_external_data=False), SAMPLES, FAST)
    assert quantize(ir.load(path), SAMPLES, FAST).report.model.path is None


@pytest.mark.parametrize("broken", [b"", b"\xff" * 99, onnx.ModelProto()])
def test_a_broken_model_in_memory_is_one_sentence(broken):
    with pytest.raises(ModelError, match="the model: "):
        quantize(broken, SAMPLES, FAST)


def test_the_result_is_a_model_and_a_record_until_it_is_saved(tmp_path):
    result = quantize(residual(), SAMPLES, FAST)
    assert result.report.output is None
    ort.InferenceSession(result.model.SerializeToString()).run(None, feeds(residual(), 2))
    report = result.save(tmp_path / "out.onnx")
    assert report.output.bytes == (tmp_path / "out.onnx").stat().st_size
    assert json.loads((tmp_path / "out.onnx.report.json").read_text()) == json.loads(report.to_json())


def test_a_result_is_not_saved_over_the_float_model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(residual(), path)
    before = path.read_bytes()
    result = quantize(path, SAMPLES, FAST)
    (tmp_path / "link.onnx").symlink_to(path)
    for name in ("model.onnx", "link.onnx"):
        with pytest.raises(OutputError, match="that is the float model; give another path"):
            result.save(str(tmp_path / name))
    assert path.read_bytes() == before
    path.unlink()
    result.save(path)


def test_a_state_may_be_named_by_a_string(tmp_path):
    quantize(residual(), SAMPLES, FAST, state=str(tmp_path / "run.state"))
    assert (tmp_path / "run.state").exists()


def test_a_loss_of_the_caller_is_what_the_search_minimises():
    seen = []

    def squares(outputs, reference, labels):
        (name,) = outputs
        seen.append(labels)
        return ((outputs[name] - reference[name]) ** 2).sum(axis=1)

    named = QuantizationConfig(p_values=(2.0, 3.0, 4.0), optimizer="none")
    result = quantize(residual(), SAMPLES | {"labels": np.arange(12) % 10}, named, loss=squares)
    assert result.report.loss == "custom"
    assert result.report.stages[0].loss == 0
    assert {len(labels) for labels in seen} == {12}


def test_a_loss_of_another_shape_or_two_losses_are_refused():
    with pytest.raises(ConfigError, match="return one number per sample"):
        quantize(residual(), SAMPLES, FAST, loss=lambda outputs, reference, labels: 0.0)
    with pytest.raises(ConfigError, match="give one of them"):
        quantize(residual(), SAMPLES, QuantizationConfig(loss="mse"), loss=lambda *arguments: 0.0)


def test_progress_is_told_and_a_run_can_be_cancelled():
    cancel, phases = threading.Event(), []

    def observe(progress):
        phases.append(progress.phase)
        if progress.phase == "joint" and progress.done == 2:
            cancel.set()

    with pytest.raises(CancelledError, match="cancelled in phase 'joint'"):
        quantize(residual(), SAMPLES, replace(FAST, loss="mse"), observer=observe, cancel=cancel)
    assert list(dict.fromkeys(phases)) == [
        *("prepare", "samples", "scales", "calibrate", "step sizes", "quadratic", "rounding", "joint")
    ]


def test_two_threads_at_once_give_what_one_gives(expected):
    jobs = {"residual": (residual(), SAMPLES), "recommender": (recommender(), feeds(recommender(), 16))}
    alone = {"residual": expected, "recommender": bytes_of(quantize(*jobs["recommender"], FAST))}
    together = {}

    def run(key, name):
        together[key] = (name, bytes_of(quantize(*jobs[name], FAST)))

    threads = [threading.Thread(target=run, args=(i, name)) for i, name in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == len(threads)
    assert all(written == alone[name] for name, written in together.values())


def test_one_of_two_runs_is_cancelled_from_outside_and_the_other_goes_on(expected):
    cancel, searching, ends = threading.Event(), threading.Event(), {}

    def observe(progress):
        if progress.phase == "rounding":
            searching.set()
            assert cancel.wait(60)

    def run(name, **options):
        try:
            ends[name] = bytes_of(quantize(residual(), SAMPLES, FAST, **options))
        except CancelledError as error:
            ends[name] = str(error)

    first = threading.Thread(target=run, args=("first",), kwargs={"observer": observe, "cancel": cancel})
    other = threading.Thread(target=run, args=("other",))
    first.start()
    other.start()
    assert searching.wait(60)
    cancel.set()
    first.join()
    other.join()
    assert ends == {"first": "cancelled in phase 'rounding'; nothing was written", "other": expected}


def test_nothing_is_printed(capfd):
    quantize(residual(), SAMPLES, FAST)
    assert capfd.readouterr() == ("", "")
