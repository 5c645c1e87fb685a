"""What the closing table says of the samples."""

import pytest

from onnx_lapq.cli import tables


def line(**done) -> str:
    plain = {"resize": None, "crop": None, "letterbox": False, "scale": 1.0, "mean": (0.0,), "std": (1.0,)}
    return tables._samples(
        {"count": 8, "path": "calib", "inputs": {"x": {"range": (0.0, 255.0)}}, "preprocessing": plain | done}
    )


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ({}, ""),
        ({"resize": 256, "crop": (224, 224)}, "shorter side to 256, middle 224x224 cut out, "),
        ({"resize": [240, 320]}, "resized to 240x320, "),
        ({"resize": (640, 640), "letterbox": True}, "letterbox of 640x640, "),
    ],
)
def test_the_line_says_how_images_were_cut(done, said):
    assert line(**done) == f"8 from calib, {said}x in [0, 255] = (pixel * 1 - 0) / 1"
