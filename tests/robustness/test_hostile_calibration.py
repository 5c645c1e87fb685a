import numpy as np
import onnx
import pytest
from hostile_calibration import READ, REFUSED_FOLDERS, REFUSED_NPZ, SAMPLES
from isolated import run_isolated
from small_models import residual

from onnx_lapq.calibration.files import list_folder

_MEMORY = 1 << 30
_SECONDS = 20


@pytest.fixture
def job(tmp_path):
    (tmp_path / "job").mkdir()
    onnx.save(residual(), tmp_path / "job" / "model.onnx")
    return tmp_path / "job"


def refuse(job, data, words):
    before = sorted(path.name for path in job.iterdir())
    outcome = run_isolated(["model.onnx", data, "-q", "-o", "out.onnx"], job, timeout=_SECONDS)
    assert outcome.exit_code == 2, outcome.stderr
    assert words in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert outcome.peak < _MEMORY
    assert sorted(path.name for path in job.iterdir()) == before


@pytest.mark.parametrize("name", REFUSED_NPZ)
def test_a_hostile_archive_is_refused_in_one_sentence(job, name):
    write, words = REFUSED_NPZ[name]
    write(job / "calib.npz")
    refuse(job, "calib.npz", words)


@pytest.mark.parametrize("name", REFUSED_FOLDERS)
def test_a_hostile_folder_is_refused_in_one_sentence(job, name):
    write, words = REFUSED_FOLDERS[name]
    write(job / "calib")
    refuse(job, "calib", words)


@pytest.mark.parametrize("name", READ)
def test_odd_folders_are_read_once_and_to_an_end(tmp_path, name):
    READ[name](tmp_path / "calib")
    images = list_folder(tmp_path / "calib").images
    assert 8 <= len(images) <= 30
    assert "pipe.png" not in {image.name for image in images}


def test_arrays_of_an_archive_that_no_input_takes_are_not_read(job):
    np.savez(job / "calib.npz", image=SAMPLES, other=np.array([{"a": 1}], dtype=object))
    arguments = [
        "model.onnx",
        "calib.npz",
        "-q",
        "-o",
        "out.onnx",
        "--optimizer",
        "none",
        "--rounding",
        "nearest",
    ]
    assert run_isolated(arguments, job, timeout=_SECONDS).exit_code == 0
