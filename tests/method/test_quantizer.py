import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from onnx_lapq.errors import ConfigError
from onnx_lapq.method.quantizer import Grid, fake_quantize, nearest_codes

GRIDS = [Grid(bits, signed) for bits in range(2, 9) for signed in (True, False)] + [
    Grid(4, signed=False, zero_point=3),
    Grid(8, signed=False, zero_point=17),
]
WHOLE_TYPES = [Grid(8, True), Grid(8, False), Grid(8, False, zero_point=17), Grid(8, True, zero_point=-5)]
WHOLE_TYPES += [Grid(16, True), Grid(16, False), Grid(16, False, zero_point=32000)]
VALUES = npst.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=False))
SCALES = st.floats(2.0**-100, 2.0**100, width=32)


def quantize(x, scale, grid):
    return nearest_codes(x, np.asarray(scale, np.float32), grid).astype(np.int32) + grid.zero_point


def dequantize(codes, scale, grid):
    """``DequantizeLinear`` as ONNX defines it."""
    return (codes - grid.zero_point).astype(np.float32) * np.float32(scale)


def onnxruntime_codes(x, scale, grid):
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(f"{'' if grid.signed else 'u'}int{grid.bits}"))
    zero = onnx.helper.make_tensor("z", dtype, [], [grid.zero_point])
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "s")],
        [
            onnx.helper.make_tensor_value_info("q", dtype, None),
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None),
        ],
        [zero],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"x": x, "s": np.array(scale, np.float32)})


@pytest.mark.parametrize("grid", WHOLE_TYPES)
def test_codes_and_values_are_those_of_onnxruntime(grid):
    rng = np.random.default_rng(0)
    for scale in (0.1, 0.037, 1.0, 3e-5):
        reach = np.float32(0.4 * 2**grid.bits * scale)
        ties = (np.arange(-300, 300) + 0.5).astype(np.float32) * np.float32(scale)
        x = np.concatenate([rng.normal(size=100_000).astype(np.float32) * reach, ties])
        codes, values = onnxruntime_codes(x, scale, grid)
        np.testing.assert_array_equal(quantize(x, scale, grid), codes)
        assert dequantize(quantize(x, scale, grid), scale, grid).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("grid", "codes"),
    [
        (Grid(2, True), (-2, 1)),
        (Grid(4, True), (-8, 7)),
        (Grid(8, False), (0, 255)),
        (Grid(3, False, zero_point=2), (0, 7)),
    ],
)
def test_grid_has_the_codes_of_the_method(grid, codes):
    assert (grid.qmin, grid.qmax) == codes
    assert (grid.lowest, grid.highest) == (codes[0] - grid.zero_point, codes[1] - grid.zero_point)


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 1, "signed": True},
        {"bits": 9, "signed": True},
        {"bits": 4, "signed": False, "zero_point": 16},
    ],
)
def test_grid_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError):
        Grid(**options)


def test_half_rounds_to_even():
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    assert quantize(x, 1.0, Grid(4, True)).tolist() == [-2, -2, 0, 0, 2, 2]


def test_values_outside_the_grid_saturate():
    x = np.array([-np.inf, -1e30, 1e30, np.inf], np.float32)
    assert quantize(x, 1e-20, Grid(4, False, zero_point=5)).tolist() == [0, 0, 15, 15]


def test_one_scale_per_channel_broadcasts():
    x = np.array([[1.0, 2.0], [10.0, 20.0]], np.float32)
    scale = np.array([[1.0], [10.0]], np.float32)
    assert quantize(x, scale, Grid(4, True)).tolist() == [[1, 2], [1, 2]]
    np.testing.assert_array_equal(fake_quantize(x, scale, Grid(4, True)), x)


def test_one_value_takes_many_scales():
    values = fake_quantize(np.float32([0.9]), np.array([1.0, 0.5]), Grid(4, True))
    assert values.tolist() == [1.0, 1.0]


def test_input_is_left_alone():
    x = np.array([0.3, -0.2], np.float32)
    fake_quantize(x, 0.1, Grid(4, True))
    quantize(x, 0.1, Grid(4, True))
    assert x.tolist() == np.array([0.3, -0.2], np.float32).tolist()


@given(VALUES, SCALES, st.sampled_from(GRIDS))
def test_codes_lie_on_the_grid(x, scale, grid):
    codes = quantize(x, scale, grid)
    assert ((codes >= grid.qmin) & (codes <= grid.qmax)).all()


@given(VALUES, SCALES, st.sampled_from(GRIDS))
def test_fake_quantize_is_dequantize_of_quantize_to_the_bit(x, scale, grid):
    expected = dequantize(quantize(x, scale, grid), scale, grid)
    assert fake_quantize(x, scale, grid).tobytes() == expected.tobytes()


@given(VALUES, SCALES, st.sampled_from(GRIDS))
def test_quantizing_twice_changes_nothing(x, scale, grid):
    once = fake_quantize(x, scale, grid)
    np.testing.assert_array_equal(fake_quantize(once, scale, grid), once)


@given(SCALES, st.sampled_from(GRIDS))
def test_zero_is_exact(scale, grid):
    assert fake_quantize(np.zeros(1, np.float32), scale, grid)[0] == 0
