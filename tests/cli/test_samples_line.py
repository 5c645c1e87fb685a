"""What the closing table says of the samples."""

from pathlib import Path

import numpy as np
import pytest
from image_folders import write_images

from onnx_lapq.calibration import InputSpec, Preprocessing, open_samples
from onnx_lapq.cli import tables

INPUT = InputSpec("x", np.dtype(np.float32), ("N", 3, 8, 8))


def line(path: Path, preprocessing: Preprocessing) -> str:
    """Behind the number and the place of the samples."""
    samples = open_samples(path, [INPUT], preprocessing)
    return tables._samples(samples.describe() | {"path": "calib"}).removeprefix("8 from calib, ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"resize": (8, 8)}, "resized to 8x8, "),
        ({"resize": 9, "crop": (8, 8)}, "shorter side to 9, middle 8x8 cut out, "),
        ({"resize": "letterbox:8"}, "letterbox of 8x8, "),
    ],
)
def test_the_line_says_how_images_were_cut(tmp_path, given, said):
    write_images(tmp_path / "calib")
    found = line(tmp_path / "calib", Preprocessing(scale=1.0, **given))
    assert found == f"{said}x without values = (pixel * 1 - 0) / 1"


@pytest.mark.parametrize(
    ("dtype", "said"),
    [(np.uint8, "x without values = (pixel * 1 - 0) / 1"), (np.float32, "x without values")],
)
def test_arrays_are_neither_resized_nor_cut(tmp_path, dtype, said):
    np.savez(tmp_path / "calib.npz", x=np.zeros((8, 3, 8, 8), dtype))
    assert line(tmp_path / "calib.npz", Preprocessing(256, (224, 224), scale=1.0)) == said
