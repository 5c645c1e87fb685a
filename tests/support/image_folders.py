"""Folders with a model and calibration images, for tests."""

from pathlib import Path

import numpy as np
import onnx
from PIL import Image
from small_models import residual


def write_job(folder: Path, classes: int = 2, per_class: int = 4) -> Path:
    """``model.onnx`` and images in ``calib``; returns the folder."""
    onnx.save(residual(), folder / "model.onnx")
    write_images(folder / "calib", classes=classes, per_class=per_class)
    return folder


def write_images(
    folder: Path, classes: int = 2, per_class: int = 4, size: int = 8, channels: int = 3
) -> Path:
    """Random images in one sub-folder per class; returns the folder."""
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"{label:02d}").mkdir(parents=True)
        for number in range(per_class):
            shape = (size, size, channels) if channels > 1 else (size, size)
            pixels = random.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label:02d}" / f"{number}.png")
    return folder
