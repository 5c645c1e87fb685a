"""An interrupted run: what it leaves behind, and where it ends once it is resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from child_processes import heeding_signals
from commands import run as invoke
from image_folders import write_images, write_job
from small_models import branching, depthwise

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.common.versions import library_version
from onnx_lapq.errors import ConfigError
from onnx_lapq.evaluation.evaluator import SegmentEvaluator

OPTIONS = ["-w", "3", "-a", "4", "--p-grid", "2,3,4", "--loss", "mse", "--per-tensor"]
CONFIG = QuantizationConfig(
    weight_bits=3, activation_bits=4, per_channel=False, p_values=(2.0, 3.0, 4.0), loss="mse"
)


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run writes that nothing interrupts."""
    job = make_job(tmp_path_factory.mktemp("whole"))
    run(job)
    return job / "out.onnx"


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    job = make_job(tmp_path_factory.mktemp("killed"))
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 30, Killed)
        with pytest.raises(Killed):
            run(job)
    return job


@pytest.fixture
def killed(killed_once, tmp_path, monkeypatch):
    """A run that was killed in its joint step."""
    monkeypatch.chdir(shutil.copytree(killed_once, tmp_path / "job"))
    return Path()


def make_job(folder):
    return write_job(folder, classes=10, per_class=3)


def command(job, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "onnx_lapq", "model.onnx", "calib", "-o", "out.onnx", *OPTIONS, *options],
        cwd=job,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_signals,
    )


def interrupt(job, saves: int, number: int, *options: str) -> tuple[int, str]:
    """Send a signal to a run once it has saved its state some times; exit code and standard error."""
    process = command(job, *options)
    seen = {_saved(job)}
    while len(seen) <= saves and process.poll() is None:
        seen.add(_saved(job))
        time.sleep(0.0005)
    process.send_signal(number)
    _, said = process.communicate()
    return process.returncode, said


def _saved(job) -> int:
    try:
        return (job / "out.onnx.state").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def run(job, **options):
    """A run that ends well; its output and its record."""
    config = QuantizationConfig(**{**vars(CONFIG), **options})
    result = quantize(job / "model.onnx", job / "calib", config, state=job / "out.onnx.state")
    return result.save(job / "out.onnx")


def stop_at(monkeypatch, evaluation: int, error: type[BaseException]) -> None:
    """Let a run end by an exception in the middle of an evaluation, counted over the whole run."""
    losses = SegmentEvaluator.losses

    def stopping(self, point):
        result = losses(self, point)
        if self.evaluations == evaluation:
            raise error
        return result

    monkeypatch.setattr(SegmentEvaluator, "losses", stopping)


class Killed(BaseException):
    """Nothing catches it: what follows does not happen, as after a kill."""


def test_a_run_killed_again_and_again_ends_at_the_same_bytes(job, whole):
    for saves in (1, 4, 6, 12):  # before, during and after both roundings
        code, _ = interrupt(job, saves, signal.SIGKILL, "--resume")
        assert code == -signal.SIGKILL
        assert (job / "out.onnx.state").exists()
        assert not (job / "out.onnx").exists()
    last = command(job, "--resume")
    last.communicate()
    assert last.returncode == 0
    assert (job / "out.onnx").read_bytes() == whole.read_bytes()
    assert not (job / "out.onnx.state").exists()


def test_an_interrupt_leaves_nothing_but_the_state(job):
    code, said = interrupt(job, 20, signal.SIGINT)
    assert code == 130
    assert "Interrupted; --resume goes on from out.onnx.state\n" in said
    assert "Traceback" not in said
    assert sorted(path.name for path in job.iterdir()) == ["calib", "model.onnx", "out.onnx.state"]


def test_a_terminated_run_gives_its_best_model_when_it_is_resumed_without_time(job):
    code, said = interrupt(job, 20, signal.SIGTERM)
    assert code == 130
    assert "--resume goes on from out.onnx.state" in said
    process = command(job, "--resume", "--max-minutes", "1e-9")
    process.communicate()
    assert process.returncode == 0
    assert json.loads((job / "out.onnx.report.json").read_text())["stopped"] == "stopped"
    onnx.checker.check_model(onnx.load(job / "out.onnx"), full_check=True)


@pytest.mark.parametrize("evaluation", [3, 6, 20, 33])
def test_whenever_it_ends_nothing_but_a_line_search_is_lost(job, monkeypatch, evaluation):
    whole = run(job, max_evaluations=45)
    written = (job / "out.onnx").read_bytes()
    (job / "out.onnx.state").unlink()
    with monkeypatch.context() as patch:
        stop_at(patch, evaluation, Killed)
        with pytest.raises(Killed):
            run(job, max_evaluations=45)
    evaluated = []
    losses = SegmentEvaluator.losses
    monkeypatch.setattr(
        SegmentEvaluator, "losses", lambda self, point: (evaluated.append(1), losses(self, point))[1]
    )
    resumed = run(job, max_evaluations=45, resume=True)
    assert (job / "out.onnx").read_bytes() == written
    assert resumed.evaluations == whole.evaluations
    assert resumed.stages == whole.stages
    assert resumed.history == whole.history
    fitted = next(stage.evaluations for stage in whole.stages if stage.stage == "quadratic")
    if evaluation > fitted:
        assert len(evaluated) - (whole.evaluations - evaluation) <= 4


def test_a_search_goes_on_under_other_caps(job, monkeypatch):
    coarse = {"activation_bits": 3}
    run(job, **coarse)
    whole = (job / "out.onnx").read_bytes()
    with monkeypatch.context() as patch:
        stop_at(patch, 60, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run(job, **coarse)
    best = run(job, resume=True, max_minutes=0.0, **coarse)
    assert best.stopped == "stopped"
    assert best.stages[-1].loss < best.stages[-2].loss
    capped = run(job, resume=True, max_evaluations=40, **coarse)
    assert capped.stopped == "max-evaluations"
    run(job, resume=True, **coarse)
    assert (job / "out.onnx").read_bytes() == whole


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("stage", "rounding"),
    [("stages.biases.matched_codes", "nearest"), ("report.building.measure_alone", "compensated")],
)
def test_an_interrupt_behind_the_joint_step_writes_nothing_and_loses_nothing(
    job, monkeypatch, stage, rounding
):
    run(job, rounding=rounding)
    whole = (job / "out.onnx").read_bytes()
    for written in (job / "out.onnx", job / "out.onnx.state"):
        written.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(f"onnx_lapq.{stage}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(job, rounding=rounding, report=True)
    assert not (job / "out.onnx").exists()
    run(job, rounding=rounding, resume=True)
    assert (job / "out.onnx").read_bytes() == whole


def test_an_interrupt_of_the_gate_writes_nothing(job, monkeypatch):
    monkeypatch.setattr("onnx_lapq.study.gate.Gatekeeper.admit", interrupted)
    monkeypatch.chdir(job)
    done = invoke("model.onnx", "calib", "-o", "out.onnx", *OPTIONS, "--max-evals", "3")
    assert done.exit_code == 130
    assert not (job / "out.onnx").exists()
    assert (job / "out.onnx.state").exists()


def dies(*_):
    raise Killed


CHOOSING = {"bits": ("auto",), "rounding": "nearest", "max_evaluations": 6}


def test_bits_chosen_before_the_search_are_not_measured_again(tmp_path, monkeypatch):
    onnx.save(depthwise(blocks=2), tmp_path / "model.onnx")
    write_images(tmp_path / "calib", classes=10, per_class=3)
    whole = run(tmp_path, **CHOOSING)
    written = (tmp_path / "out.onnx").read_bytes()
    assert whole.ladder.rungs
    (tmp_path / "out.onnx.state").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("onnx_lapq.job.transform_weights", dies)
        with pytest.raises(Killed):
            run(tmp_path, **CHOOSING)
    monkeypatch.setattr("onnx_lapq.stages.bits.set_up", None)
    assert run(tmp_path, resume=True, **CHOOSING).stages == whole.stages
    assert (tmp_path / "out.onnx").read_bytes() == written


def test_an_interrupted_search_writes_nothing(job, monkeypatch):
    stop_at(monkeypatch, 40, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert not (job / "out.onnx").exists()


def other_model(job):
    onnx.save(branching(), job / "model.onnx")


def other_weight(job):
    model = onnx.load(job / "model.onnx")
    weight = model.graph.initializer[0]
    weight.raw_data = weight.raw_data[:-1] + bytes([weight.raw_data[-1] ^ 1])
    onnx.save(model, job / "model.onnx")


def fewer_samples(job):
    (job / "calib" / "00" / "0.png").unlink()


def other_pixels(job):
    (job / "calib" / "00" / "0.png").replace(job / "calib" / "00" / "1.png")
    (job / "calib" / "00" / "2.png").replace(job / "calib" / "00" / "0.png")


def cut_short(job):
    content = (job / "out.onnx.state").read_bytes()
    (job / "out.onnx.state").write_bytes(content[: len(content) // 2])


def no_state(job):
    (job / "out.onnx.state").write_bytes(b"something else")


def nothing(job):
    pass


REFUSED = {
    "model": (other_model, {}, "another model"),
    "weight": (other_weight, {}, "another model"),
    "samples": (fewer_samples, {}, "another set of samples"),
    "pixels": (other_pixels, {}, "another set of samples"),
    "bits": (nothing, {"weight_bits": 4}, "another option weight_bits"),
    "cut short": (cut_short, {}, "cannot be read"),
    "other file": (no_state, {}, "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_state_that_does_not_fit_is_refused(killed, name):
    job, (spoil, options, words) = killed, REFUSED[name]
    spoil(job)
    before = (job / "out.onnx.state").read_bytes()
    with pytest.raises(ConfigError, match=words) as caught:
        run(job, resume=True, **options)
    assert "\n" not in str(caught.value)
    assert (job / "out.onnx.state").read_bytes() == before
    assert not (job / "out.onnx").exists()


def test_a_state_of_another_version_is_refused(killed, monkeypatch):
    monkeypatch.setattr("onnx_lapq.stages.state_file.__version__", "0.0.0")
    with pytest.raises(ConfigError, match="another version of onnx-lapq"):
        run(killed, resume=True)


@pytest.mark.parametrize("library", ["onnxruntime", "numpy", "scipy"])
def test_a_state_made_with_other_libraries_is_refused(killed, monkeypatch, library):
    monkeypatch.setattr(
        "onnx_lapq.stages.state_file.library_version",
        lambda name: "0" if name == library else library_version(name),
    )
    with pytest.raises(ConfigError, match=f"another version of {library}"):
        run(killed, resume=True)


def test_threads_and_memory_may_change(killed, whole):
    run(killed, resume=True, workers=2, memory=4096)
    assert (killed / "out.onnx").read_bytes() == whole.read_bytes()


def test_without_a_state_a_run_starts_from_its_beginning(job, whole, caplog):
    run(job, resume=True)
    assert "there is no saved state" in caplog.text
    assert (job / "out.onnx").read_bytes() == whole.read_bytes()
