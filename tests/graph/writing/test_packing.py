"""Packed weights: small files, the same integer kernels."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import MODELS, feeds

from onnx_lapq.graph.placement.sites import Placement, WeightSite
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.graph.writing.export import weight_codes_name
from onnx_lapq.graph.writing.packing import pack, packed_bytes
from onnx_lapq.runtime.kernels import kernels
from onnx_lapq.runtime.session import open_session, run


def packed_and_not(name, bits, **options):
    model = prepare(ir.from_proto(MODELS[name]()))
    inputs = feeds(MODELS[name](), 16)
    network = quantized(
        ir.to_proto(model), inputs, weight_bits=bits, activation_bits=bits, first_last="same", **options
    )
    plain = network.written()
    packed = ir.from_proto(plain)
    pack(packed, network.placement)
    return plain, ir.to_proto(packed), inputs


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("name", MODELS)
def test_packed_weights_compute_the_same_bit_for_bit(name, bits, per_channel):
    plain, packed, inputs = packed_and_not(name, bits, per_channel=per_channel)
    onnx.checker.check_model(packed, full_check=True)
    results = [run(open_session(model), inputs)[0] for model in (plain, packed)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_packed_weights_are_small_and_need_no_new_type(bits):
    plain, packed, _ = packed_and_not("residual", bits)
    sizes = {t.name: onnx.numpy_helper.to_array(t).size for t in plain.graph.initializer}
    found = {t.name: t for t in packed.graph.initializer if t.name.endswith("_codes_packed")}
    assert len(found) == 6
    for name, tensor in found.items():
        assert tensor.data_type == onnx.TensorProto.UINT8
        assert len(tensor.raw_data) == packed_bytes(sizes[name.removesuffix("_packed")], bits)
    assert packed.opset_import[0].version == plain.opset_import[0].version == 13


@pytest.mark.parametrize(("bits", "least"), [(2, -2), (4, -8)])
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (1, 1), (7,)])
def test_every_code_of_every_shape_is_unpacked(bits, least, shape):
    codes = np.resize(np.arange(least, -least, dtype=np.int8), shape)
    output = ir.Value(name="w", type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape(shape))
    name = weight_codes_name("w")
    value = ir.Value(name=name, const_value=ir.tensor(codes), type=output.type, shape=output.shape)
    node = ir.node("Identity", [value], outputs=[output])
    graph = ir.Graph([], [output], nodes=[node], initializers=[value], opset_imports={"": 13})
    model = ir.Model(graph, ir_version=7)
    pack(model, Placement((WeightSite("w", (), bits, 0, per_channel=True),), (), ()))
    np.testing.assert_array_equal(run(open_session(model), {})[0], codes)


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_weights_run_on_integer_kernels(bits, tmp_path):
    _, packed, _ = packed_and_not("residual", bits)
    onnx.save(packed, tmp_path / "packed.onnx")
    assert all(node.integer for node in kernels(tmp_path / "packed.onnx"))


def test_eight_bits_are_left_as_they_are():
    _, packed, _ = packed_and_not("residual", 8)
    assert not [t for t in packed.graph.initializer if t.name.endswith("_packed")]
