import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import Builder

from onnx_lapq.graph.placement.sites import ActivationSite
from onnx_lapq.graph.writing.encodings import ActivationEncoding
from onnx_lapq.graph.writing.qdq import insert_activation_quantizers
from onnx_lapq.method.quantizer import Grid, fake_quantize
from onnx_lapq.runtime.session import open_session, run


def quantizer_of_onnxruntime(values: np.ndarray, scale: float, grid: Grid) -> np.ndarray:
    b = Builder()
    b.node("Identity", ["x"], name="y")
    model = ir.from_proto(b.model({"x": ["N"]}, {"y": ["N"]}))
    site = ActivationSite("x", "x", grid.bits, searched=True)
    encoding = ActivationEncoding(scale, grid.zero_point, grid.bits)
    insert_activation_quantizers(model, [site], {"x": encoding})
    return run(open_session(model), {"x": values})[0]


@pytest.mark.parametrize("bits", [*range(2, 9), 16])
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_quantizer_equals_onnxruntime_bit_for_bit(bits, data):
    zero_point = data.draw(st.integers(0, (1 << bits) - 1))
    scale = float(np.float32(data.draw(st.floats(1e-6, 1e4))))
    reach = 2 << max(bits, 8)
    codes = data.draw(st.lists(st.integers(-reach, reach), min_size=1, max_size=50))
    ties = np.array(codes, dtype=np.float32) / 2 * np.float32(scale)
    values = np.concatenate([ties, np.random.default_rng(0).normal(0, reach / 5 * scale, 1000)]).astype(
        np.float32
    )
    grid = Grid(bits=bits, signed=False, zero_point=zero_point)
    ours = fake_quantize(values, np.float32(scale), grid)
    np.testing.assert_array_equal(quantizer_of_onnxruntime(values, scale, grid), ours)
