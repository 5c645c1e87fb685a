import numpy as np
import pytest

from onnx_lapq.calibration.stored import InputSpec
from onnx_lapq.errors import ConfigError, ModelError
from onnx_lapq.network.axes import batch_axes


def axes(given: dict[str, int | None] | None = None, **shapes: list) -> dict[str, int | None]:
    specs = [InputSpec(name, np.dtype(np.float32), tuple(shape)) for name, shape in shapes.items()]
    return batch_axes(specs, given or {})


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ({"x": ["N", 3]}, [0]),
        ({"x": [None, 3], "y": [None, 3]}, [0, 0]),
        ({"x": ["N", 3], "y": ["M", 4]}, [0, 0]),
        ({"x": ["N", 3, 8, 8], "size": [1, 2]}, [0, 0]),
        ({"x": ["batch", "length"], "mask": ["batch", "length"]}, [0, 0]),
        ({"x": ["b", 24], "state": [2, "b", 6], "sr": []}, [0, 1, None]),
        ({"h": [2, "b", 6], "c": [2, "b", 6], "x": ["b", 24]}, [1, 1, 0]),
        ({"x": [1, 24], "state": [2, 1, 6]}, [0, 1]),
        ({"x": [4, 24], "state": [2, 4, 6]}, [0, 1]),
        ({"x": ["time", "batch", 80]}, [1]),
        ({"x": ["time", "batch", 80], "lengths": ["batch"]}, [1, 0]),
    ],
)
def test_names_and_sizes_tell_which_axis_is_the_batch(shapes, found):
    assert list(axes(**shapes).values()) == found


@pytest.mark.parametrize(
    ("shapes", "unclear"),
    [
        ({"x": ["N", 24], "state": [2, 1, 6]}, "state"),
        ({"x": ["N", 24], "y": [4, 8]}, "y"),
        ({"x": [4, 24], "state": [2, 4, 4]}, "state"),
        ({"x": [1, 24], "state": [2, 6]}, "state"),
        ({"ids": ["N", "length"], "positions": ["length"]}, "ids"),
        ({"ids": ["batch", "length"], "positions": ["length"]}, "positions"),
    ],
)
def test_what_is_not_clear_is_asked_for(shapes, unclear):
    with pytest.raises(ModelError, match=f"^input '{unclear}' .* give it with --batch-axis {unclear}=AXIS"):
        axes(**shapes)


def test_what_the_user_says_holds():
    assert axes({"state": 1}, x=["N", 24], state=[2, 1, 6]) == {"x": 0, "state": 1}
    assert axes({"positions": None}, ids=["N", "length"], positions=["length"]) == {
        "ids": 0,
        "positions": None,
    }
    with pytest.raises(ConfigError, match=r"batch_axis of input 'x' .* is 2; give 0 to 1, or none"):
        axes({"x": 2}, x=["N", 24])
