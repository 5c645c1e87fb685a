"""What is written is what the target demands."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import quantized
from onnx import TensorProto, helper, numpy_helper
from small_models import MODELS, Builder, encoder, feeds, residual

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.runtime.kernels import kernels
from onnx_lapq.runtime.saturation import has_vnni
from onnx_lapq.runtime.session import open_session, run


def written(target, *, per_channel=False, **options):
    model = residual()
    network = quantized(model, feeds(model, 16), target=target, per_channel=per_channel, **options)
    return network.written()


def zero_points(model, op_type):
    """Zero points of all QuantizeLinear, or of all DequantizeLinear of constants."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [
        tensors[node.input[2]]
        for node in model.graph.node
        if node.op_type == op_type
        and len(node.input) > 2
        and (op_type == "QuantizeLinear" or (node.input[0] in tensors and tensors[node.input[0]].ndim > 1))
    ]


def weights(model):
    found = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [array for array in found if array.dtype in (np.int8, np.uint8) and array.ndim > 1]


def is_depthwise(codes):
    return codes.ndim == 4 and codes.shape[1] == 1


def largest_sum_of_two(codes):
    """Of neighbouring input channels, on one side of zero; of any two where a kernel meets an odd channel."""
    by_input = np.moveaxis(codes.astype(int), 1, 0)
    if len(by_input) % 2:
        return 2 * np.abs(by_input).max()
    return max((np.maximum(side[::2], 0) + np.maximum(side[1::2], 0)).max() for side in (by_input, -by_input))


def has_integer_bias(model):
    return any(tensor.data_type == TensorProto.INT32 for tensor in model.graph.initializer)


@pytest.mark.parametrize("target", ["ort-x86", "ort-arm", "openvino", "qnn", "generic"])
def test_activations_are_unsigned_with_a_zero_point(target):
    found = zero_points(written(target), "QuantizeLinear")
    assert {array.dtype for array in found} == {np.dtype(np.uint8)}
    assert len({int(array) for array in found}) > 1


def test_tensorrt_is_signed_and_symmetric():
    model = written("tensorrt")
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        found = zero_points(model, kind)
        assert found
        assert all(array.dtype == np.int8 and not array.any() for array in found)
    assert all(array.dtype == np.int8 for array in weights(model))
    operators = {node.op_type for node in model.graph.node}
    assert "Min" not in operators
    assert {"Relu", "Clip"} <= operators


@pytest.mark.parametrize(
    ("target", "dtype", "low", "high", "reached"),
    [
        ("ort-x86", np.int8, -127, 127, 64),  # two neighbours may both be large
        ("ort-x86-vnni", np.int8, -128, 127, 114),
        ("ort-arm", np.int8, -128, 127, 114),
        ("openvino", np.int8, -128, 127, 114),
        ("generic", np.int8, -128, 127, 114),
        ("qnn", np.uint8, 0, 255, 229),
    ],
)
def test_weights_of_8_bits_per_tensor(target, dtype, low, high, reached):
    found = [array for array in weights(written(target)) if not is_depthwise(array)]
    assert {array.dtype for array in found} == {np.dtype(dtype)}
    assert low <= min(array.min() for array in found)
    assert max(array.max() for array in found) <= high
    assert max(array.max() for array in found) > reached


def test_weights_per_channel_are_int8_for_qnn():
    assert {array.dtype for array in weights(written("qnn", per_channel=True))} == {np.dtype(np.int8)}


@pytest.mark.parametrize("target", TARGETS)
def test_bias_is_stored_as_the_target_says(target):
    assert has_integer_bias(written(target)) == TARGETS[target].integer_bias


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_written_model_computes_what_was_simulated(target, name):
    model = MODELS[name]()
    inputs = feeds(model, 16)
    network = quantized(model, inputs, target=target)
    onnx.checker.check_model(network.written(), full_check=True)
    session = open_session(network.written(), precise=TARGETS[target].needs_precise_kernels)
    simulated = network.simulated_outputs()
    np.testing.assert_allclose(run(session, inputs)[0], simulated, rtol=0, atol=1e-6 * np.ptp(simulated))


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_ort_x86_has_no_weights_that_overflow_sums_of_two_products(per_channel, full_range):
    for codes in weights(written("ort-x86", per_channel=per_channel, full_range=full_range)):
        if full_range:
            assert codes.dtype == np.uint8
        elif is_depthwise(codes):  # its kernel adds in 32 bits: tools/robustness/overflow.py
            assert np.abs(codes.astype(int)).max() > 64
        else:
            assert 255 * largest_sum_of_two(codes) < 2**15


@pytest.mark.parametrize("per_channel", [False, True])
def test_at_full_range_layers_still_run_on_integer_kernels(per_channel, tmp_path):
    onnx.save(written("ort-x86", per_channel=per_channel, full_range=True), tmp_path / "model.onnx")
    assert all(node.integer for node in kernels(tmp_path / "model.onnx"))


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_ort_x86_gives_the_same_answers_with_precise_kernels(name, per_channel, full_range):
    model = MODELS[name]()
    inputs = feeds(model, 64)
    network = quantized(model, inputs, per_channel=per_channel, full_range=full_range)
    fast, precise = (run(open_session(network.written(), precise=precise), inputs)[0] for precise in (0, 1))
    np.testing.assert_array_equal(fast, precise)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"target": "tensorrt", "activation_bits": 4}, "activations of 8 bits only"),
        ({"target": "qnn", "bits": ("Conv=a4",)}, "activations of 8 bits only"),
        ({"target": "tensorrt", "storage": "packed"}, "packed"),
    ],
)
def test_what_a_target_does_not_take_is_refused(options, what):
    with pytest.raises(ConfigError, match=what):
        QuantizationConfig(**options)


@pytest.mark.parametrize(("target", "kept"), [("openvino", 1), ("generic", 0)])
def test_reductions_keep_their_axes_for_openvino(target, kept):
    config = QuantizationConfig(target=target, rounding="nearest", optimizer="none")
    nodes = quantize(encoder(), feeds(encoder(), 8), config).model.graph.node
    (mean,) = [node for node in nodes if node.op_type == "ReduceMean"]
    assert helper.get_node_attr_value(mean, "keepdims") == kept


@pytest.mark.parametrize(
    ("vnni", "target", "dtype"), [(True, "ort-x86-vnni", np.int8), (False, "ort-x86", np.uint8)]
)
def test_full_range_is_int8_where_the_processor_has_vnni(vnni, target, dtype, monkeypatch):
    monkeypatch.setattr("onnx_lapq.config.has_vnni", lambda: vnni)
    config = QuantizationConfig(full_range=True, rounding="nearest", optimizer="none")
    assert config.resolved().target == target
    result = quantize(residual(), feeds(residual(), 8), config)
    assert {codes.dtype for codes in weights(result.model)} == {np.dtype(dtype)}
    assert any("processors with VNNI" in note for note in result.report.warnings) == vnni


def test_full_range_asks_no_processor_for_other_targets(monkeypatch):
    monkeypatch.delattr("onnx_lapq.config.has_vnni")
    assert QuantizationConfig(full_range=True, target="qnn").resolved().target == "qnn"
    assert QuantizationConfig().resolved().target == "ort-x86"


def test_a_processor_that_is_not_x86_has_no_vnni(monkeypatch):
    has_vnni.cache_clear()
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert not has_vnni()
    has_vnni.cache_clear()


def test_where_kernels_do_not_overflow_the_processor_has_vnni():
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or "avx" not in flags.read_text():
        pytest.skip("no flags of an x86 processor to compare with")
    assert has_vnni() == any(flag in flags.read_text() for flag in ("avx512_vnni", "avx_vnni"))


@pytest.mark.parametrize(("target", "zero_point"), [("ort-x86", -64), ("ort-x86-vnni", 0), ("tensorrt", 0)])
@pytest.mark.parametrize("shape", [(16, 8), (3, 16, 8)])
def test_a_factor_that_is_never_below_zero_uses_all_codes(tmp_path, target, zero_point, shape):
    b = Builder()
    keys = b.constant(b.random.uniform(0, 1, shape).astype(np.float32))
    b.node("MatMul", ["x", keys], "y")
    model = b.model({"x": ["N", 3, 4, 16]}, {"y": ["N", 3, 4, 8]})
    samples = np.random.default_rng(0).standard_normal((16, 3, 4, 16)).astype(np.float32)
    result = quantize(model, samples, QuantizationConfig(target=target, rounding="nearest", optimizer="none"))
    (codes,) = weights(result.model)
    (found,) = zero_points(result.model, "DequantizeLinear")
    assert (found == zero_point).all()
    assert codes.min() >= zero_point
    assert codes.max() > (50 if zero_point else 100)
    result.save(tmp_path / "out.onnx")


def test_a_factor_with_values_below_zero_has_no_zero_point():
    b = Builder()
    b.node("MatMul", ["x", b.weight(16, 8)], "y")
    model = b.model({"x": ["N", 16]}, {"y": ["N", 8]})
    samples = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    config = QuantizationConfig(rounding="nearest", optimizer="none")
    assert not any(
        array.any() for array in zero_points(quantize(model, samples, config).model, "DequantizeLinear")
    )


def read_twice(kinds):
    """A square weight, read by a node of each kind, in this order."""
    b = Builder()
    table = b.weight(32, 32)
    write = {
        "MatMul": lambda: b.node("MatMul", ["x", table]),
        "Gemm": lambda: b.node("Gemm", ["x", table], transB=1),
        "Gather": lambda: b.node("Gather", [table, "ids"]),
    }
    b.node("Add", [write[kind]() for kind in kinds], "y")
    inputs = {"x": ["N", 32]} | ({"ids": ["N"]} if "Gather" in kinds else {})
    return b.model(inputs, {"y": ["N", 32]}, types={"ids": TensorProto.INT64})


@pytest.mark.parametrize(
    ("kinds", "bits", "apart"),
    [
        (("Gather", "MatMul"), 7, 0),
        (("MatMul", "Gather"), 8, 1),
        (("Gather", "Gemm"), 8, 1),
        (("MatMul", "Gemm"), 7, 0),
        (("MatMul", "MatMul"), 8, 1),
    ],
)
def test_a_weight_that_is_read_twice_shares_16_bits_along_the_rows_of_its_layer(kinds, bits, apart):
    model = read_twice(kinds)
    network = quantized(model, feeds(model, 16), per_channel=False)
    (site,) = network.placement.weights
    assert (site.bits, site.apart) == (bits, apart)
    (codes,) = weights(network.written())
    summed = codes if "Gemm" in kinds and "MatMul" not in kinds else codes.T
    assert 255 * largest_sum_of_two(summed) < 2**15
