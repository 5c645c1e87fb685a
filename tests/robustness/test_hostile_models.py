import pytest
from hostile_models import REFUSED
from image_folders import write_images
from isolated import run_isolated

_MEMORY = 1 << 30
_SECONDS = 20


@pytest.fixture
def job(tmp_path):
    write_images(tmp_path / "job" / "calib")
    return tmp_path / "job"


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_model_is_refused_in_one_sentence(job, name):
    write, words = REFUSED[name]
    write(job)
    before = sorted(path.name for path in job.iterdir())
    outcome = run_isolated(["model.onnx", "calib", "-q", "-o", "out.onnx"], job, timeout=_SECONDS)
    assert outcome.exit_code == 2, outcome.stderr
    assert words in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert len(outcome.stderr) < 1000
    assert outcome.peak < _MEMORY
    assert sorted(path.name for path in job.iterdir()) == before
