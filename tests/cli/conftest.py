import pytest
from image_folders import write_job


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A folder with a model and calibration images, and the current one."""
    monkeypatch.chdir(tmp_path)
    return write_job(tmp_path)
