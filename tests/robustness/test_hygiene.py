import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from commands import FAST, run
from image_folders import write_job


@pytest.fixture
def job(tmp_path, monkeypatch):
    write_job(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_opens_no_socket(job, monkeypatch):
    def denied(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", denied)
    monkeypatch.setattr(socket, "getaddrinfo", denied)
    assert run("model.onnx", "calib", "-o", "out.onnx", *FAST).exit_code == 0


def test_a_run_leaves_no_temporary_file(job, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    assert run("model.onnx", "calib", "-o", "out.onnx", *FAST).exit_code == 0
    assert not list(elsewhere.iterdir())
    assert {path.name for path in job.iterdir()} == {
        "model.onnx",
        "calib",
        "out.onnx",
        "out.onnx.report.json",
    }


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_follow_the_umask(job, mask):
    before = os.umask(mask)
    try:
        assert run("model.onnx", "calib", "-o", "out.onnx", *FAST).exit_code == 0
    finally:
        os.umask(before)
    for name in ("out.onnx", "out.onnx.report.json"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o666 & ~mask
