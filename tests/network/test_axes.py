import numpy as np
import onnx_ir as ir
import pytest
from small_models import Builder

from onnx_lapq.calibration.stored import InputSpec
from onnx_lapq.errors import ConfigError, ModelError
from onnx_lapq.network.axes import batch_axes, recurrent_inputs


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
        ({"x": [None, 24], "state": [2, None, 6]}, [0, 1]),
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
        ({"x": [None, 24], "state": [2, "b", 6]}, "state"),
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
    with pytest.raises(
        ModelError, match=r"^input 'x' .*; correct --batch-axis state=0 if it is wrong, or else"
    ):
        axes({"state": 0}, x=["N", 24], state=[2, "N", 6])
    with pytest.raises(ConfigError, match=r"batch_axis of input 'x' .* is 2; give 0 to 1, or none"):
        axes({"x": 2}, x=["N", 24])


def recurrent(shape: list, layout: int = 0) -> dict[str, int | None]:
    b = Builder()
    weights = [b.weight(1, 12, inner) for inner in (16, 4)]
    b.node("GRU", [b.node("Identity", ["x"]), *weights], name="y", hidden_size=4, layout=layout)
    graph = ir.from_proto(b.model({"x": shape}, {"y": ["p", "q", "r", "s"]})).graph
    return batch_axes([InputSpec("x", np.dtype(np.float32), tuple(shape))], {}, recurrent_inputs(graph))


@pytest.mark.parametrize("shape", [["T", "N", 16], ["T", 1, 16], [None, None, 16], [20, 1, 16], [1, "N", 16]])
def test_what_a_recurrent_layer_reads_with_time_first_has_the_batch_second(shape):
    assert recurrent(shape) == {"x": 1}


def test_a_recurrent_layer_with_the_batch_first_and_steps_of_one_stay():
    assert recurrent(["N", "T", 16], layout=1) == {"x": 0}
    assert recurrent([1, 1, 16]) == {"x": 0}
    assert recurrent(["batch", 28, 16]) == {"x": 0}


def test_an_open_first_axis_of_a_recurrent_layer_beside_a_number_is_asked_for():
    with pytest.raises(ModelError, match="give it with --batch-axis x=AXIS"):
        recurrent(["N", 28, 16])


def test_outputs_that_begin_with_another_axis_leave_a_choice():
    spec = InputSpec("x", np.dtype(np.float32), ("T", "N", 16))
    assert batch_axes([spec], {}, outputs=[("T", "N", 5)]) == {"x": 0}
    with pytest.raises(ModelError, match="give it with --batch-axis x=AXIS"):
        batch_axes([spec], {}, outputs=[("N", 5)])
