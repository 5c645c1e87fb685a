"""Embedding tables with a scale for every row: what is written, what runs, when rows share one scale."""

import numpy as np
import onnx
import pytest
from networks import quantized
from onnx import TensorProto, numpy_helper
from small_models import Builder

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.runtime.session import open_session, run

FEEDS = {"tokens": np.random.default_rng(0).integers(0, 30, (40, 6))}


def network(width: int = 48, opset: int = 17, axis: int = 0) -> onnx.ModelProto:
    """Tokens [N, 6] -> y [N, 6, width]: a table whose rows differ in size, and a Tanh."""
    b = Builder()
    table = b.random.standard_normal((30, width)).astype(np.float32)
    table *= np.geomspace(0.02, 1, 30, dtype=np.float32)[:, None]
    b.node("Tanh", [b.node("Gather", [b.constant(table if not axis else table.T), "tokens"], axis=axis)], "y")
    shape = [width, "N", 6] if axis else ["N", 6, width]
    return b.model({"tokens": ["N", 6]}, {"y": shape}, opset=opset, types={"tokens": TensorProto.INT64})


def stack(opset: int) -> onnx.ModelProto:
    """A table of matrices [30, 4, 8]."""
    b = Builder()
    b.node("Tanh", [b.node("Gather", [b.weight(30, 4, 8), "tokens"])], "y")
    y = {"y": ["N", 6, 4, 8]}
    return b.model({"tokens": ["N", 6]}, y, opset=opset, types={"tokens": TensorProto.INT64})


def tensors_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def outputs(model: onnx.ModelProto) -> np.ndarray:
    return run(open_session(model), FEEDS)[0]


def snr(model: onnx.ModelProto) -> float:
    wanted = outputs(network())
    error = (wanted - outputs(model)).reshape(-1, wanted.shape[-1])
    return float(np.median(-10 * np.log10(np.square(error).mean(axis=1) / np.square(wanted).mean())))


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("make", [lambda opset: network(opset=opset), stack], ids=["vectors", "matrices"])
def test_what_is_simulated_is_what_is_written(make, bits, opset):
    simulated = quantized(make(opset), FEEDS, weight_bits=bits, first_last="same")
    written = simulated.written()
    onnx.checker.check_model(written, full_check=True)
    np.testing.assert_array_equal(simulated.simulated_outputs(), outputs(written), strict=True)
    (name,) = simulated.network.layers
    tensors, encoding = tensors_of(written), simulated.point().weights[name]
    assert tensors[f"{name}_scale"].shape == (30,)
    codes = tensors[f"{name}_codes"]
    assert codes.dtype == np.int8
    assert np.abs(codes).max() <= 1 << (bits - 1)
    scale = tensors[f"{name}_scale"].reshape(-1, *[1] * (codes.ndim - 1))
    np.testing.assert_array_equal(codes.astype(np.float32) * scale, encoding.values)


def test_codes_and_scales_are_looked_up_and_nothing_reads_the_whole_table():
    written = quantized(network(), FEEDS).written()
    tensors = {name for name, values in tensors_of(written).items() if len(values) == 30}
    readers = [node.op_type for node in written.graph.node if set(node.input) & tensors]
    assert len(tensors) == 2
    assert readers == ["Gather", "Gather"]


def test_a_quantizer_of_what_is_looked_up_has_a_scale_of_its_own():
    b = Builder()
    b.node("MatMul", [b.node("Gather", [b.weight(30, 48), "tokens"]), b.weight(48, 5)], "y")
    types = {"tokens": TensorProto.INT64}
    model = b.model({"tokens": ["N", 6]}, {"y": ["N", 6, 5]}, types=types)
    network = quantized(model, FEEDS)
    np.testing.assert_allclose(outputs(network.written()), network.outputs[0], rtol=0, atol=0.1)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_scales_of_rows(target):
    written = quantized(network(), FEEDS, target=target).written()
    assert snr(written) > 50
    assert any(
        name.endswith("_scale") and values.shape == (30,) for name, values in tensors_of(written).items()
    )


def test_codes_of_all_8_bits_are_signed():
    written = quantized(network(), FEEDS, full_range=True).written()
    assert snr(written) > 50


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_tables_give_the_same_answers(bits):
    options = {"weight_bits": bits, "first_last": "same", "workers": 1, "optimizer": "none"}
    models = [
        quantize(network(width=512), FEEDS, QuantizationConfig(storage=storage, **options)).model
        for storage in ("int8", "packed")
    ]
    np.testing.assert_array_equal(*map(outputs, models))
    codes = 30 * 512
    assert models[1].ByteSize() < models[0].ByteSize() - codes + codes * bits // 8 + 3000


@pytest.mark.parametrize(("bits", "gain"), [(4, 8), (8, 8)])
def test_rows_of_different_sizes_lose_less(bits, gain):
    rows, table = (
        quantized(network(), FEEDS, weight_bits=bits, first_last="same", per_channel=per_channel).written()
        for per_channel in (True, False)
    )
    assert snr(rows) > snr(table) + gain


@pytest.mark.parametrize("model", [network(width=8), network(axis=1)], ids=["short rows", "another axis"])
def test_other_tables_have_one_scale(model):
    tensors = tensors_of(quantized(model, FEEDS).written())
    assert all(not values.ndim for name, values in tensors.items() if name.endswith("_scale"))


@pytest.mark.parametrize("method", ["minmax", "mmse", "aciq"])
def test_every_method_has_scales_of_rows(method):
    result = quantize(network(), FEEDS, QuantizationConfig(workers=1, method=method))
    assert snr(result.model) > 50
