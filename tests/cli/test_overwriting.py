"""What a run leaves alone: what it reads, and what is none of its files."""

import os
import shutil

import numpy as np
import onnx
import pytest
from commands import FAST, run
from small_models import feeds, residual


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(
        residual(), "model.onnx", save_as_external_data=True, location="out.onnx.data", size_threshold=0
    )
    (samples,) = feeds(residual(), 8).values()
    np.savez("cal.npz", x=samples)
    shutil.copy("cal.npz", "test.npz")
    (tmp_path / "lapq.toml").write_text("seed = 1\n")
    (tmp_path / "folder").mkdir()
    np.save("folder/samples.npy", samples)
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    (tmp_path / "notes.onnx.state").write_text("PK, but mine")
    os.mkfifo("pipe.onnx")
    os.mkfifo("a.onnx.report.json")
    return tmp_path


def content(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_refused(folder, words, *arguments):
    before = content(folder)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert content(folder) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cal.npz", "-o", "model.onnx"], "model.onnx: is read by this run; give another --output"),
        (["cal.npz", "-o", "link.onnx"], "link.onnx: is read by this run"),
        (["cal.npz", "-o", "out.onnx.data"], "out.onnx.data: is read by this run"),
        (["cal.npz", "-o", "out.onnx"], "out.onnx.data: is read by this run"),
        (["cal.npz", "-o", "cal.npz"], "cal.npz: is read by this run"),
        (["folder", "-o", "folder/samples.npy"], "folder/samples.npy: is read by this run"),
        (["cal.npz", "--test", "test.npz", "-o", "test.npz"], "test.npz: is read by this run"),
        (["cal.npz", "--config", "lapq.toml", "-o", "lapq.toml"], "lapq.toml: is read by this run"),
        (["cal.npz", "-o", "notes.onnx"], "notes.onnx.state: a run saves under this name"),
        (["cal.npz", "-o", "notes.onnx", "--resume"], "notes.onnx.state: cannot be read as a saved state"),
        (["cal.npz", "-o", "pipe.onnx"], "pipe.onnx: is a device or pipe, not an ordinary file"),
        (["cal.npz", "-o", "a.onnx"], "a.onnx.report.json: is a device or pipe"),
        (["cal.npz", "-o", "n" * 240], ": cannot be written (File name too long)"),
        (["cal.npz", "-o", "n" * 300], ": cannot be written (File name too long)"),
    ],
)
def test_outputs_that_would_replace_something_are_refused(job, arguments, words):
    assert_refused(job, words, "model.onnx", *arguments, "-q", *FAST)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["folder", "-o", "folder/labels"], "folder/labels.csv: is read by this run"),
        (["cal.npz", "--config", "a.json", "-o", "a"], "a.json: is read by this run"),
        (["cal.npz", "-o", "n" * 300], ": cannot be written (File name too long)"),
    ],
)
def test_a_comparison_does_not_replace_what_it_reads(job, arguments, words):
    (job / "folder" / "labels.csv").write_text("file,label\n")
    (job / "a.json").write_text("seed = 1\n")
    assert_refused(job, words, "compare", "model.onnx", *arguments, "-q")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out/landscape.npz"], "out/landscape.npz: is read by this run; give another --output"),
        (["cal.npz", "--test", "out/landscape.npz"], "out/landscape.npz: is read by this run"),
        (["cal.npz", "--config", "out/landscape.json"], "out/landscape.json: is read by this run"),
        (["cal.npz", "-o", "pipes"], "pipes/hessian.png: is a device or pipe"),
        (["cal.npz", "-o", "cal.npz"], "cal.npz: is not a folder; choose another folder"),
        (["cal.npz", "-o", "cal.npz/deeper/out"], "cal.npz: is not a folder"),
        (["cal.npz", "-o", "n" * 300], ": cannot be made (File name too long)"),
    ],
)
def test_a_landscape_looks_at_its_folder_before_the_work_begins(job, monkeypatch, arguments, words):
    monkeypatch.setattr("onnx_lapq.study.landscape.landscape_file", None)
    (job / "out").mkdir()
    shutil.copy("cal.npz", "out/landscape.npz")
    (job / "out" / "landscape.json").write_text("samples = 4\n")
    (job / "pipes").mkdir()
    os.mkfifo("pipes/hessian.png")
    assert_refused(job, words, "landscape", "model.onnx", "-o", "out", *arguments, "-q")


def test_a_link_is_replaced_and_the_file_behind_it_left(job):
    (job / "old").write_text("old")
    (job / "new.onnx").symlink_to("old")
    assert run("model.onnx", "cal.npz", "-o", "new.onnx", *FAST).exit_code == 0
    assert not (job / "new.onnx").is_symlink()
    assert (job / "old").read_text() == "old"
