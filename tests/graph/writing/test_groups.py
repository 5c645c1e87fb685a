"""Weights with a scale for every group of inputs: what is written, what runs, what is refused."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import quantized
from onnx import TensorProto, helper, numpy_helper

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph import saving
from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.runtime.kernels import kernels
from onnx_lapq.runtime.session import open_file, open_session, run

TAKING = [name for name, target in TARGETS.items() if target.takes_groups]
RANDOM = np.random.default_rng(0)
X = (RANDOM.standard_normal((48, 5, 100)) @ RANDOM.standard_normal((100, 100)) / 10).astype(np.float32)
_RELEASE = tuple(int(part) for part in ort.__version__.split(".")[:2])


@cache
def network() -> onnx.ModelProto:
    """Input [n, 5, 100], two MatMul with biases, the mean over the rows, and a transposed Gemm.

    Some inputs have larger weights than others.
    """
    shapes = {"w1": (100, 64), "b1": (64,), "w2": (64, 48), "b2": (48,), "w3": (10, 48), "b3": (10,)}
    random = np.random.default_rng(1)
    values = {name: (random.standard_normal(shape) / 8).astype(np.float32) for name, shape in shapes.items()}
    values["w1"][:32] *= 5
    values["w2"][32:] *= 5
    tensors = [numpy_helper.from_array(array, name) for name, array in values.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["p1"], "first"),
        helper.make_node("Add", ["p1", "b1"], ["s1"], "add1"),
        helper.make_node("Relu", ["s1"], ["r1"], "relu"),
        helper.make_node("MatMul", ["r1", "w2"], ["p2"], "second"),
        helper.make_node("Add", ["p2", "b2"], ["s2"], "add2"),
        helper.make_node("ReduceMean", ["s2"], ["m"], "mean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "w3", "b3"], ["y"], "last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 100])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def result(**options):
    options = {"weight_bits": 4, "activation_bits": 32, "group_size": 32, "first_last": "same"} | options
    return quantize(network(), X, QuantizationConfig(workers=1, optimizer="none", **options))


@cache
def compensated():
    return result()


def tensors_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def snr(model: onnx.ModelProto) -> float:
    wanted, given = (run(open_session(one), {"x": X})[0] for one in (network(), model))
    return float(10 * np.log10(np.square(wanted).mean() / np.square(wanted - given).mean()))


def test_weights_of_4_bits_are_int4_with_a_scale_for_every_group():
    tensors = tensors_of(compensated().model)
    for name, shape in {"w1": (100, 64), "w2": (64, 48), "w3": (48, 10)}.items():
        codes, scale = tensors[f"{name}_codes"], tensors[f"{name}_scale"]
        assert codes.data_type == TensorProto.INT4
        assert tuple(codes.dims) == shape
        assert len(codes.raw_data) == shape[0] * shape[1] // 2
        assert tuple(scale.dims) == (-(-shape[0] // 32), shape[1])


def test_first_and_last_layers_of_8_bits_have_no_groups():
    tensors = tensors_of(result(first_last="8", rounding="nearest").model)
    assert [tensors[f"{name}_codes"].data_type for name in ("w1", "w2", "w3")] == [3, 22, 3]
    assert list(tensors["w1_scale"].dims) == [64]


def test_onnxruntime_multiplies_by_the_codes(tmp_path):
    compensated().save(tmp_path / "q.onnx")
    found = {kernel.op_type for kernel in kernels(tmp_path / "q.onnx")}
    assert "MatMulNBits" in found
    # Releases before 1.25 join MatMul and Add of two axes to a Gemm first, which they leave alone.
    unfused = {"MatMul"} if _RELEASE < (1, 25) else {"MatMul", "Gemm", "DequantizeLinear"}
    assert not found & unfused


@pytest.mark.parametrize("target", TAKING)
def test_what_is_simulated_is_what_is_written(target):
    options = {
        "weight_bits": 4,
        "activation_bits": 32,
        "group_size": 32,
        "target": target,
        "first_last": "same",
    }
    simulated = quantized(network(), {"x": X}, **options)
    written = simulated.written()
    np.testing.assert_array_equal(
        simulated.simulated_outputs(), run(open_session(written), {"x": X})[0], strict=True
    )
    tensors = {name: numpy_helper.to_array(tensor) for name, tensor in tensors_of(written).items()}
    for name in ("w1", "w2"):
        encoding = simulated.point().weights[name]
        codes, scale = (tensors[f"{name}_{part}"].astype(np.float32) for part in ("codes", "scale"))
        values = codes * np.repeat(scale, 32, axis=0)[: len(codes)]
        np.testing.assert_array_equal(values, encoding.values)


def test_groups_and_compensated_rounding_lose_less():
    model = compensated().model
    assert snr(model) > snr(result(group_size=None).model) + 1
    assert snr(model) > snr(result(rounding="nearest").model)


@pytest.mark.parametrize("options", [{"method": "mmse"}, {"weight_bits": 3, "group_size": 64}])
def test_other_step_sizes_and_bits_have_groups_too(options):
    tensors = tensors_of(result(**options).model)
    assert tensors["w2_codes"].data_type == TensorProto.INT4


@pytest.mark.parametrize(("transform", "added"), [("ocs", "w1"), ("dual", "w3_rest")])
def test_transformed_weights_have_groups_too(transform, added):
    model = result(transform=transform).model
    codes = {name: t for name, t in tensors_of(model).items() if name.endswith("_codes")}
    assert {tensor.data_type for tensor in codes.values()} == {TensorProto.INT4}
    assert codes[f"{added}_codes"].dims[0] == {"ocs": 105, "dual": 48}[transform]
    assert snr(model) > snr(result(transform=transform, rounding="nearest").model)


def test_int4_in_a_file_beside_the_model_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_PROTOBUF_LIMIT", 100)
    compensated().save(tmp_path / "q.onnx")
    assert (tmp_path / "q.onnx.data").stat().st_size > 4000
    given = run(open_file(tmp_path / "q.onnx"), {"x": X})[0]
    np.testing.assert_array_equal(given, run(open_session(compensated().model), {"x": X})[0])
    assert "MatMulNBits" in {kernel.op_type for kernel in kernels(tmp_path / "q.onnx")}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"target": "qnn"}, "target qnn does not take weights in groups"),
        ({"activation_bits": 8}, "float activations"),
        ({"group_size": 48}, "give 32, 64 or 128"),
        ({"weight_bits": 8}, "weight_bits is 8"),
        ({"per_channel": False}, "--per-tensor joins them"),
        ({"size_budget": 0.2}, "bits that the run chooses"),
    ],
)
def test_groups_that_nothing_takes_are_refused(options, what):
    with pytest.raises(ConfigError, match=what):
        QuantizationConfig(**{"weight_bits": 4, "activation_bits": 32, "group_size": 32, **options})
