"""Bits are raised until limits hold, as few as it takes; what it found can be used again."""

import json
import shlex

import numpy as np
import onnx
import pytest
from commands import FAST, run
from small_models import feeds, residual

from onnx_lapq.runtime.session import open_file
from onnx_lapq.runtime.session import run as run_session

LOW = ("model.onnx", "calib.npz", "-o", "out.onnx", "-w", "2", "-a", "2", *FAST)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, calibration samples, and others with labels that the float model gives."""
    folder = tmp_path_factory.mktemp("promote")
    onnx.save(residual(), folder / "model.onnx")
    np.savez(folder / "calib.npz", **feeds(residual(), 20))
    samples = feeds(residual(), 40)
    labels = run_session(open_file(folder / "model.onnx"), samples)[0].argmax(axis=1)
    np.savez(folder / "test.npz", labels=labels, **samples)
    return folder


@pytest.fixture
def job(files, tmp_path, monkeypatch):
    """A folder of its own with these files."""
    for file in ("model.onnx", "calib.npz", "test.npz"):
        (tmp_path / file).write_bytes((files / file).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report_of(folder, name="out.onnx"):
    return json.loads((folder / f"{name}.report.json").read_text())


@pytest.fixture(scope="module")
def promoted(files):
    """The folder after a run that has to raise bits."""
    pytest.importorskip("matplotlib")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(files)
        done = run(*LOW, "--promote", "--max-kl", "0.0001", "--test", "test.npz", "--report")
    assert done.exit_code == 0, done.output
    assert "Bits raised until the limits held on test.npz" in done.stdout
    return files


def test_bits_are_raised_until_the_limit_holds_and_no_further(promoted):
    found = report_of(promoted)
    assert found["test"][1]["kl"] <= 0.0001
    steps, trials = len(found["promotion"]["steps"]), found["promotion"]["trials"]
    assert 0 < steps < 12
    assert (trials[0]["steps"], trials[0]["joint"]) == (0, False)
    assert trials[0]["missed"][0].startswith("KL divergence from the float model is ")
    assert {"steps": steps, "joint": False, "missed": []} in trials
    assert max(trial["steps"] for trial in trials if trial["missed"]) == steps - 1
    assert len(trials) <= 6
    assert not any("new samples" in text for text in found["warnings"])


def test_the_bits_that_were_found_give_the_same_model_again(promoted, job):
    model = (promoted / "out.onnx").read_bytes()
    rules = [flag for rule in report_of(promoted)["promotion"]["bits"] for flag in ("--bits", rule)]
    assert run(*LOW[:3], "pasted.onnx", *LOW[4:], "--storage", "packed", *rules).exit_code == 0
    assert (job / "pasted.onnx").read_bytes() == model
    options = ("-o", "file.onnx", "--config", str(promoted / "out.onnx.lapq.toml"))
    assert run("model.onnx", "calib.npz", *options).exit_code == 0
    assert (job / "file.onnx").read_bytes() == model
    assert report_of(job, "file.onnx")["test"][1]["kl"] == report_of(promoted)["test"][1]["kl"]


def test_the_printed_line_alone_gives_the_same_bits(job):
    (job / "my.toml").write_text('weight_bits = 2\nactivation_bits = 3\nfirst_last = "same"\n')
    given = ("--bits", "node_conv2=w3a4", "--exclude", "node_conv4", "--per-tensor", "--config", "my.toml")
    limits = ("--promote", "--min-snr", "22", "--test", "test.npz")
    done = run(*LOW[:4], *FAST, *given, *limits)
    assert done.exit_code == 0, done.output
    (line,) = [text for text in done.stdout.splitlines() if text.startswith("The same bits again: ")]
    flags = shlex.split(line.partition(": ")[2])
    assert {"-w", "-a", "--first-last", "--exclude", "--per-tensor"} <= set(flags)
    assert run("model.onnx", "calib.npz", "-o", "pasted.onnx", *FAST, *flags).exit_code == 0
    assert (job / "pasted.onnx").read_bytes() == (job / "out.onnx").read_bytes()


def test_the_page_shows_the_steps(promoted):
    page = (promoted / "out.onnx.report.html").read_text()
    assert "Bits raised until the limits held" in page
    assert " -w 2 -a 2</pre>" in page
    for rule in report_of(promoted)["promotion"]["bits"]:
        assert rule in page


def test_bits_that_are_good_enough_stay(job):
    assert run(*LOW, "--promote", "--max-kl", "9", "--test", "test.npz").exit_code == 0
    found = report_of(job)
    assert found["promotion"]["steps"] == found["promotion"]["bits"] == []
    assert "bits" not in (job / "out.onnx.lapq.toml").read_text().partition("storage")[2]


def test_the_last_run_has_a_joint_step_where_the_bits_need_one(job):
    options = ("--rounding", "nearest", "--p-grid", "2,3,4", "--max-evals", "3", "--max-kl", "9")
    for bits, joint in (("2", [False, True]), ("8", [False])):
        done = run(*LOW[:4], "-w", bits, "-a", bits, *options, "--promote", "--test", "test.npz")
        assert done.exit_code == 0, done.output
        assert [trial["joint"] for trial in report_of(job)["promotion"]["trials"]] == joint
        assert report_of(job)["stopped"] == ("max-evaluations" if joint[-1] else "none")
    assert "promote: trial 1, quick run, 0 steps: all limits hold\n" in done.stderr


def test_without_a_test_set_limits_hold_on_guard_samples(job):
    done = run(*LOW, "--promote", "--min-snr", "38")
    assert done.exit_code == 0, done.output
    found = report_of(job)
    assert found["promotion"]["samples"] == "calibration samples"
    assert min(part["snr_db"] for part in found["outputs"]) >= 38
    assert {step["after"] for step in found["promotion"]["steps"]} == {4, 8, 32}
    assert "The same bits again: --storage packed --bits " in done.stdout
    assert "quantized beside the first on calibration samples: logits" in done.stdout
    assert "[gate]" not in (job / "out.onnx.lapq.toml").read_text()
    assert any("new samples can be some dB worse: give --test" in text for text in found["warnings"])


def test_of_several_limits_all_hold_and_bits_of_the_user_are_kept(job):
    limits = ("--max-drop", "0.1", "--min-snr", "18", "--test", "test.npz")
    done = run(*LOW, "--promote", *limits, "--bits", "node_conv2=w3a4")
    assert done.exit_code == 0, done.output
    found = report_of(job)
    assert found["test"][1]["top1"] >= 0.9
    assert found["test"][1]["outputs"][0]["snr_db"] >= 18
    assert {one["name"]: one["bits"] for one in found["quantizers"]}["c2"] == 3
    assert "c2" not in {step["tensor"] for step in found["promotion"]["steps"]}
    assert found["promotion"]["bits"][0] == "node_conv2=w3a4"


def test_limits_that_no_bits_keep_end_with_the_best_there_is(job):
    options = ("--max-kl", "1e-7", "--test", "test.npz", "--bits", "node_conv8=2")
    done = run(*LOW, "--promote", *options)
    assert done.exit_code == 3
    assert "test.npz: KL divergence from the float model is " in done.stderr
    assert "above the limit of 1e-07, at best in " in done.stderr
    assert "nothing was written" in done.stderr
    assert not [path for path in job.iterdir() if "out" in path.name]


def test_a_limit_that_the_float_model_misses_needs_no_trial(job):
    labels = np.load("test.npz")["labels"]
    np.savez("other.npz", labels=(labels + 1) % 10, **feeds(residual(), 40))
    done = run(*LOW, "--promote", "--min-accuracy", "0.5", "--test", "other.npz")
    assert done.exit_code == 3
    assert "top-1 accuracy of the float model is 0.0000, below the limit of 0.5" in done.stderr


def test_the_minutes_are_kept(job):
    done = run(*LOW, "--promote", "--max-kl", "0.0001", "--test", "test.npz", "--max-minutes", "0")
    assert done.exit_code == 3
    assert "at best in 1 trial of bits within the minutes allowed; nothing was written" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--promote raises bits until a limit holds, and there is none; give --max-kl"),
        (
            ("--test", "test.npz"),
            "--promote raises bits until a limit holds, and there is none; give --max-kl",
        ),
        (("--max-kl", "1", "--resume"), "--resume goes on with one run, and --promote makes several"),
        (("--max-kl", "1", "--size-budget", "0.5"), "and --bits auto and --size-budget lower them to a size"),
        (("--max-kl", "1", "--bits", "auto"), "and --bits auto and --size-budget lower them to a size"),
        (("--max-drop", "0.1"), "calibration samples: accuracy needs class labels"),
    ],
)
def test_what_makes_no_sense_is_refused(job, options, said):
    done = run(*LOW, "--promote", *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) < 8


def test_the_option_file_is_not_written_over(job):
    (job / "out.onnx.lapq.toml").write_text("seed = 1\n")
    done = run(*LOW, "--promote", "--max-kl", "9", "--config", "out.onnx.lapq.toml")
    assert done.exit_code == 2
    assert "out.onnx.lapq.toml: is read by this run" in done.stderr


def test_a_file_that_lies_where_the_state_of_a_run_would_is_left_alone(job):
    (job / "out.onnx.state").write_text("my notes")
    done = run(*LOW, "--promote", "--max-kl", "9", "--test", "test.npz")
    assert done.exit_code == 0, done.output
    assert (job / "out.onnx.state").read_text() == "my notes"
