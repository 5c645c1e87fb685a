"""Tables that a run takes a slice of are stored in 16 bits, and unpacked when the model is loaded."""

import numpy as np
import onnx
import pytest
from networks import quantized
from onnx import TensorProto, numpy_helper
from small_models import Builder

from onnx_lapq.runtime.session import open_session, run

LONGEST, WIDTH = 64, 24


def tagger(table: np.ndarray, *, opset: int = 17, read_whole: bool = False) -> onnx.ModelProto:
    """Tokens [N, length] -> 4 scores each; a table [1, LONGEST, WIDTH] is cut to the length and added."""
    b = Builder()
    embedded = b.node("Gather", [b.weight(30, WIDTH), "tokens"])
    zero, one, two = (b.constant(np.array([number])) for number in (0, 1, 2))
    length = b.node("Slice", [b.node("Shape", ["tokens"]), one, two])
    positions = b.constant(table, "positions")
    x = b.node("Add", [embedded, b.node("Slice", [positions, zero, length, one])])
    if read_whole:
        largest = b.node("ReduceMax", [x], keepdims=0)
        x = b.node("Add", [x, b.node("ReduceMax", [b.node("Mul", [positions, largest])], keepdims=0)])
    b.node("MatMul", [x, b.weight(WIDTH, 4)], name="y")
    types = {"tokens": TensorProto.INT64}
    return b.model({"tokens": ["N", "length"]}, {"y": ["N", "length", 4]}, opset=opset, types=types)


def table() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, LONGEST, WIDTH)).astype(np.float32)


def tokens() -> dict[str, np.ndarray]:
    return {"tokens": np.random.default_rng(1).integers(0, 30, (8, 10))}


def stored(model: onnx.ModelProto) -> dict[tuple[int, ...], np.dtype]:
    """Types of the stored tensors of three axes, by shape."""
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return {array.shape: array.dtype for array in arrays if array.ndim == 3}


@pytest.mark.parametrize("opset", [17, 21])
def test_a_table_that_is_sliced_is_stored_in_16_bits(opset):
    network = quantized(tagger(table(), opset=opset), tokens(), activation_bits=32)
    written = network.written()
    assert stored(written) == {(1, LONGEST, WIDTH): np.dtype(np.int16)}
    np.testing.assert_array_equal(run(open_session(written), tokens())[0], network.simulated_outputs())


def test_each_column_is_kept_to_half_a_step_of_its_own():
    values = table() * np.logspace(-3, 3, WIDTH, dtype=np.float32)
    written = quantized(tagger(values), tokens()).written()
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    error = np.abs(tensors["positions_codes"] * tensors["positions_scale"] - values)
    assert (error <= 0.51 / 32767 * np.abs(values).max(axis=(0, 1))).all()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (tagger(np.where(np.arange(LONGEST)[:, None] < 20, table(), -np.inf)), {}),
        (tagger(np.where(np.arange(LONGEST)[:, None] < 20, table(), np.finfo(np.float32).min)), {}),
        (tagger(np.rint(table() * 100)), {}),
        (tagger(table(), read_whole=True), {}),
        (tagger(table()), {"exclude": ("Slice",)}),
        (tagger(table()), {"weight_bits": 32}),
    ],
)
def test_a_table_stays_in_float(model, options):
    network = quantized(model, tokens(), **options)
    assert network.placement.wide == ()
