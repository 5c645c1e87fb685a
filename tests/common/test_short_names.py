from pathlib import Path

import pytest

from onnx_lapq.common.short_names import short_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["m/a.onnx", "q/b.onnx"], ["a.onnx", "b.onnx"]),
        (["m/a.onnx", "q/a.onnx", "q/b.onnx"], ["m/a.onnx", "q/a.onnx", "b.onnx"]),
        (["x/m/v1/a.onnx", "x/q/v1/a.onnx"], ["m/v1/a.onnx", "q/v1/a.onnx"]),
        (["a.onnx", "q/a.onnx"], ["a.onnx", "q/a.onnx"]),
        (["/r/q/a.onnx", "q/a.onnx", "a.onnx"], ["r/q/a.onnx", "q/a.onnx", "a.onnx"]),
        (["m/a.onnx", "m/a.onnx"], ["a.onnx", "a.onnx"]),
    ],
)
def test_names_that_are_alike_get_as_much_of_their_paths_as_tells_them_apart(paths, names):
    assert short_names([Path(path) for path in paths]) == names
