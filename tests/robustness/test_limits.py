"""Limits of memory, rights and clocks that a run meets."""

import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from image_folders import write_images
from isolated import run_isolated
from small_models import residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import RunError

CONFIG = QuantizationConfig(
    weight_bits=4, activation_bits=4, p_values=(2.0, 3.0, 4.0), max_evaluations=6, equalize=False
)


def of_any_size() -> onnx.ModelProto:
    model = residual()
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True):
        dim.dim_param = name
    return model


@pytest.fixture
def job(tmp_path):
    write_images(tmp_path / "job" / "calib", per_class=1, size=1024)
    onnx.save(of_any_size(), tmp_path / "job" / "model.onnx")
    (tmp_path / "job" / "out.onnx").write_bytes(b"old")
    return tmp_path / "job"


@pytest.mark.parametrize("megabytes", [300, 1200])
def test_a_limit_on_memory_ends_the_run_in_a_sentence(job, megabytes):
    outcome = run_isolated(
        ["model.onnx", "calib", "-q", "-o", "out.onnx", "--workers", "1"], job, memory=megabytes << 20
    )
    assert outcome.exit_code == 1
    assert "memory" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert (job / "out.onnx").read_bytes() == b"old"
    assert {path.name for path in job.iterdir()} <= {"calib", "model.onnx", "out.onnx", "out.onnx.state"}


def test_a_limit_that_is_nearly_reached_is_refused_before_a_thread_starts(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300 << 20, 300 << 20))
    with pytest.raises(RunError, match=r"the limit on memory, 0\.3 GB, leaves no room"):
        quantize(residual(), {"image": np.zeros((4, 3, 8, 8), np.float32)}, CONFIG)


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(folder, work) -> str:
    """What an exception says that another user meets in a folder; root may read everything."""
    if os.getuid() != 0:
        pytest.skip("only root can become someone else")
    seen, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
        except BaseException as error:
            os.write(told, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    with os.fdopen(seen) as pipe:
        return pipe.read()


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("model.onnx", "ModelError: model.onnx: cannot be read (Permission denied)"),
        ("calib/00/0.png", "CalibrationError: calib/00/0.png: "),
        ("calib", "CalibrationError: calib: "),
        ("calib/00", "CalibrationError: calib/00: "),
        ("out.onnx.state", "ConfigError: out.onnx.state: cannot be read"),
    ],
)
def test_what_a_user_may_not_read_is_named(open_folder, monkeypatch, secret, words):
    write_images(open_folder / "calib")
    onnx.save(residual(), open_folder / "model.onnx")
    monkeypatch.chdir(open_folder)
    quantize("model.onnx", "calib", CONFIG, state=Path("out.onnx.state"))
    (open_folder / secret).chmod(0)
    config = replace(CONFIG, resume=True)
    said = as_nobody(
        open_folder, lambda: quantize("model.onnx", "calib", config, state=Path("out.onnx.state"))
    )
    assert said.startswith(words)
    assert "\n" not in said


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_is_changed_during_a_run_changes_nothing(tmp_path, monkeypatch, jump):
    write_images(tmp_path / "calib")
    config = replace(CONFIG, max_minutes=5.0)
    expected = quantize(residual(), tmp_path / "calib", config).report
    now, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now() + jump * (next(calls) % 2))
    report = quantize(residual(), tmp_path / "calib", config, state=tmp_path / "state").report
    assert report.stopped == expected.stopped
    assert report.evaluations == expected.evaluations
    assert all(0 <= seconds < 60 for seconds in report.seconds.values())
