"""Inputs as they come: states, single numbers, and samples of different lengths."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from commands import run as run_command
from onnx import helper
from PIL import Image
from small_models import Builder
from streaming import lines, reader, steps, voice

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.request import Feeding
from onnx_lapq.calibration.stored import InputSpec
from onnx_lapq.errors import CalibrationError, ConfigError, ModelError
from onnx_lapq.graph.loading import load
from onnx_lapq.network.samples import read_samples
from onnx_lapq.runtime.session import open_file, run
from onnx_lapq.study.inspection import inspect_file
from onnx_lapq.study.scores import evaluate_models

FAST = QuantizationConfig(optimizer="none", p_values=(2.0, 3.0, 4.0), workers=1)
AT_16_KHZ = replace(FAST, set=("sr=16000",))


def stacked(feeds):
    return {
        "sound": np.concatenate([one["sound"] for one in feeds]),
        "state": np.concatenate([one["state"] for one in feeds], axis=1),
    }


def test_a_streaming_model_is_quantized_with_what_its_loop_feeds(tmp_path, caplog):
    feeds = steps(24)
    result = quantize(voice(), feeds, AT_16_KHZ)
    assert "input 'state' (float32 [2, batch, 6]): its samples lie along axis 1" in caplog.text
    assert {score.name for score in result.report.outputs} == {"speech", "next"}
    assert result.report.calibration["inputs"]["state"]["axis"] == 1
    operators = [node.op_type for node in result.model.graph.node]
    assert "If" not in operators
    assert "QuantizeLinear" in operators
    result.save(tmp_path / "out.onnx")
    session = open_file(tmp_path / "out.onnx")
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        ("sound", ["batch", 24]),
        ("state", [2, "batch", 6]),
        ("sr", []),
    ]
    both = {**stacked(feeds[:2]), "sr": np.array(16000)}
    speech, following = run(session, both)
    assert (speech.shape, following.shape) == ((2, 1), (2, 2, 6))


def test_samples_with_the_state_in_the_models_shape_are_the_same(tmp_path):
    feeds = steps(24)
    one, other = (quantize(voice(), source, AT_16_KHZ).model for source in (feeds, stacked(feeds)))
    assert one.graph == other.graph
    np.savez(tmp_path / "rows.npz", **{name: np.stack([one[name] for one in feeds]) for name in feeds[0]})
    assert quantize(voice(), tmp_path / "rows.npz", AT_16_KHZ).model.graph == one.graph


def test_states_that_do_not_lie_along_their_axis_are_refused():
    feeds = steps(8)
    rows = {"sound": stacked(feeds)["sound"], "state": np.stack([one["state"][:, 0] for one in feeds])}
    words = r"shape \[8, 2, 6\] does not fit input 'state' .* in the model's shape, along axis 1"
    with pytest.raises(CalibrationError, match=words):
        quantize(voice(), rows, AT_16_KHZ)


def test_a_batch_that_the_model_fixes_at_one_leaves_every_output_in_the_loss():
    result = quantize(voice(1), steps(24), AT_16_KHZ)
    assert {score.name for score in result.report.outputs} == {"speech", "next"}
    assert result.report.stages[-1].loss > 0


def test_a_branch_that_an_input_chooses_is_named(tmp_path):
    with pytest.raises(
        ModelError, match=r"node 'by_rate' \(If\) chooses .* by input 'sr'; .* --set sr=NUMBER"
    ):
        quantize(voice(), steps(4), FAST)


def test_a_number_that_leaves_no_layer_is_named():
    model = voice()
    (chosen,) = [node for node in model.graph.node if node.op_type == "If"]
    (idle,) = [branch.g for branch in chosen.attribute if branch.name == "else_branch"]
    ends = [value.name for value in idle.output]
    del idle.node[:]
    idle.node.extend(helper.make_node("Relu", ["sound"], [end]) for end in ends)
    with pytest.raises(ModelError, match=r"nothing reads input 'sr'; if --set gives its value, give another"):
        quantize(model, steps(4), replace(FAST, set=("sr=8000",)))


@pytest.mark.parametrize(
    ("dtype", "number", "fits"),
    [
        (np.int8, "300", False),
        (np.float32, "0.1", True),
        (np.float32, "inf", False),
        (np.float32, "1e39", False),
        (np.float16, "16001", True),
        (np.bool_, "1", True),
    ],
)
def test_a_number_is_set_where_the_type_has_it(dtype, number, fits):
    spec = InputSpec("sr", np.dtype(dtype), ())
    with nullcontext() if fits else pytest.raises(ConfigError, match="give a number of that type"):
        Feeding.parse([], [f"sr={number}"]).check([spec])


def test_samples_that_contradict_the_number_that_is_set_are_refused(tmp_path):
    feeds = [{**one, "sr": np.array(8000)} for one in steps(4)]
    np.savez(tmp_path / "rows.npz", **stacked(feeds), sr=np.array(8000))
    for source in (feeds, tmp_path / "rows.npz"):
        with pytest.raises(CalibrationError, match=r"array 'sr' contradicts set, which gives 16000 to"):
            read_samples(load(voice()), source, Preprocessing(), None, print, AT_16_KHZ.feeding())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"set": ("rate=3",)}, "set names an input 'rate', but the model's are sound, state, sr"),
        ({"set": ("state=0",)}, "set gives a number to input 'state' .*; only a single number can be set"),
        ({"set": ("sr=0.5",)}, r"set gives 0.5 to input 'sr' \(int64 \[\]\); give a number of that type"),
        ({"set": ("sr=inf",)}, r"set gives inf to input 'sr' .*; give a number of that type"),
        ({"set": ("sr=nan",)}, r"set gives nan to input 'sr' .*; give a number of that type"),
        ({"set": ("sr=99999999999999999999",)}, r"set gives 9+ to input 'sr' .*; give a number of that type"),
        ({"set": ("sr",)}, "set is 'sr'; give INPUT=NUMBER"),
        ({"batch_axis": ("state=x",)}, "batch_axis is 'state=x'; give INPUT=AXIS"),
    ],
)
def test_what_does_not_fit_an_input_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        quantize(voice(), steps(4), replace(FAST, **options))


def test_inspect_shows_what_is_left_of_the_branches(tmp_path):
    (tmp_path / "voice.onnx").write_bytes(voice().SerializeToString())
    plan = inspect_file(tmp_path / "voice.onnx", AT_16_KHZ)
    assert [layer.op_type for layer in plan.layers] == ["Conv", "Gemm"]


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("rounding", ["compensated", "nearest"])
def test_samples_of_different_lengths_count_the_same(time_first, rounding):
    model, pictures = reader(time_first=time_first), lines(30)
    result = quantize(model, pictures, replace(FAST, weight_bits=4, rounding=rounding))
    assert result.report.calibration["inputs"]["picture"]["shape"] == [30, 1, 8, None]
    (score,) = result.report.outputs
    assert score.snr_db > 10
    scores = evaluate_models([model, result.ir_model], pictures, Preprocessing())
    assert scores[1].outputs[0].snr_db > 10


def test_samples_of_one_length_give_the_same_whether_in_a_list_or_an_array():
    pictures = lines(12, widths=(16,))
    one, other = (quantize(reader(), source, FAST).model for source in (pictures, np.stack(pictures)))
    assert one.graph == other.graph


def test_the_number_of_threads_changes_nothing_for_samples_of_different_lengths():
    one, other = (quantize(reader(), lines(30), replace(FAST, workers=workers)).model for workers in (1, 3))
    assert one.graph == other.graph


def test_single_numbers_of_the_samples_are_fed_as_they_are():
    feeds = [one | {"sr": np.array(rate)} for one, rate in zip(steps(8), [8000, 16000] * 4, strict=True)]
    scores = evaluate_models([voice(), voice()], feeds, Preprocessing())
    assert [output.snr_db for output in scores[1].outputs] == [np.inf, np.inf]


def test_a_resumed_run_on_samples_of_different_lengths_ends_at_the_same_bytes(tmp_path):
    config = replace(FAST, weight_bits=4)
    whole = quantize(reader(), lines(20), config)

    def interrupt(progress):
        if progress.phase == "rounding" and progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(reader(), lines(20), config, observer=interrupt, state=tmp_path / "state")
    resumed = quantize(reader(), lines(20), replace(config, resume=True), state=tmp_path / "state")
    assert resumed.model.graph == whole.model.graph


def test_options_on_inputs_may_stand_in_a_file(tmp_path):
    (tmp_path / "voice.onnx").write_bytes(voice(1).SerializeToString())
    for number, feed in enumerate(steps(6)):
        feed.pop("sr")
        (tmp_path / "steps").mkdir(exist_ok=True)
        np.savez(tmp_path / "steps" / f"{number}.npz", **feed)
    (tmp_path / "lapq.toml").write_text('set = ["sr=16000"]\nbatch_axis = ["state=1"]\nmethod = "minmax"\n')
    files = [str(tmp_path / name) for name in ("voice.onnx", "steps")]
    result = run_command(*files, "-o", str(tmp_path / "out.onnx"), "--config", str(tmp_path / "lapq.toml"))
    assert result.exit_code == 0, result.output
    assert "its samples lie along" not in result.output


def test_the_size_that_images_have_is_printed_where_the_model_leaves_it_open(tmp_path, caplog):
    Image.new("L", (12, 8)).save(tmp_path / "a.png")
    model = reader()
    samples = read_samples(load(model), tmp_path, Preprocessing(), None, lambda done: None)
    assert samples.batch(0, 1)["picture"].shape == (1, 1, 8, 12)
    assert "the model leaves the size open, and the images are 8x12 (height x width)" in caplog.text
    caplog.clear()
    sized = read_samples(load(model), tmp_path, Preprocessing(input_size=(8, 16)), None, lambda done: None)
    assert sized.batch(0, 1)["picture"].shape == (1, 1, 8, 16)
    assert caplog.text == ""


def test_whole_batches_are_of_one_shape(caplog):
    model = reader()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    samples = read_samples(load(model), lines(9), Preprocessing(), None, lambda done: None)
    assert samples.groups == (2, 2, 2)
    assert "left out 3 of 9 samples, to fill batches of 2" in caplog.text
    result = quantize(model, lines(18), FAST)
    assert result.report.calibration["count"] == 18
    with pytest.raises(
        CalibrationError, match=r"the most samples of one shape, 1, do not fill the batch of 2"
    ):
        quantize(model, lines(3), FAST)


def test_where_the_samples_lie_may_be_said_where_no_output_has_a_row_for_each():
    b = Builder()
    b.node("Gemm", ["x", b.weight(3, 5)], "y", transA=1)
    model = b.model({"x": [3, 4]}, {"y": [4, 5]})
    feeds = [{"x": step} for step in np.random.default_rng(0).standard_normal((8, 3, 4)).astype(np.float32)]
    with pytest.raises(ModelError, match=r"no output has a row for each sample.*--batch-axis INPUT=AXIS"):
        quantize(model, feeds, FAST)
    for axis in ("1", "none"):
        result = quantize(model, feeds, replace(FAST, batch_axis=(f"x={axis}",)))
        assert result.report.outputs[0].snr_db > 30


@pytest.mark.parametrize(("dtype", "ignored"), [("float32", "resize, crop, mean"), ("uint8", "resize, crop")])
def test_options_of_images_that_change_nothing_are_told(tmp_path, caplog, dtype, ignored):
    """Float arrays reach the model as they are, while pixels are scaled, but not resized."""
    np.savez(tmp_path / "a.npz", picture=np.zeros((3, 1, 8, 12), dtype))
    said = Preprocessing(mean=(0.5,), resize=64, crop=(8, 12), color="gray")
    read_samples(load(reader()), tmp_path / "a.npz", said, None, lambda done: None)
    told = f"the 3 samples are arrays: options for images ({ignored}) change nothing"
    assert told in caplog.text
    caplog.clear()
    read_samples(load(reader()), tmp_path / "a.npz", Preprocessing(), None, lambda done: None)
    assert "options for images" not in caplog.text


def test_options_of_images_are_not_told_of_where_there_are_images(tmp_path, caplog):
    Image.new("L", (12, 8)).save(tmp_path / "a.png")
    said = Preprocessing(mean=(0.5,), resize=8, crop=(8, 12))
    read_samples(load(reader()), tmp_path, said, None, lambda done: None)
    assert "options for images" not in caplog.text
