import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from small_models import Builder, residual

_TOOL = Path(__file__).parents[2] / "tools" / "robustness" / "sweep_models.py"


def test_both_tools_are_judged_on_the_models_of_a_folder(tmp_path):
    onnx.save(residual(), tmp_path / "good.onnx")
    b = Builder()
    b.node("Relu", ["image"], name="y")
    onnx.save(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 3, 8, 8]}), tmp_path / "without_layers.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "good.npz", image=images)
    found = subprocess.run([sys.executable, _TOOL, tmp_path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 models, 1 that onnxruntime does not run" in found.stdout
    assert "| done | 1 | 0 | 0 |" in found.stdout
    assert "| refused | 1 | 0 | 0 |" in found.stdout
