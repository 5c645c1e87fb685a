import onnx
import pytest
from image_folders import write_images
from small_models import residual


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A folder with a model and calibration images, and the current one."""
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), tmp_path / "model.onnx")
    write_images(tmp_path / "calib")
    return tmp_path
