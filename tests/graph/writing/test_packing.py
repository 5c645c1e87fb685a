"""Packed weights: small files, the same integer kernels."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import MODELS, feeds

from onnx_lapq.graph.simplify.opsets import raise_opset
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.graph.writing.packing import opset_for, pack
from onnx_lapq.runtime.kernels import kernels
from onnx_lapq.runtime.session import open_session, run


def packed_and_not(name, bits, **options):
    model = prepare(ir.from_proto(MODELS[name]()))
    raise_opset(model, opset_for(bits))
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


@pytest.mark.parametrize(("bits", "dtype"), [(2, ml_dtypes.int2), (3, ml_dtypes.int4), (4, ml_dtypes.int4)])
def test_packed_weights_have_the_narrow_type(bits, dtype):
    _, packed, _ = packed_and_not("residual", bits)
    found = [ir.from_proto(t).numpy() for t in packed.graph.initializer if t.name.endswith("_packed")]
    assert len(found) == 6
    assert all(array.dtype == dtype for array in found)


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_weights_run_on_integer_kernels(bits, tmp_path):
    _, packed, _ = packed_and_not("residual", bits)
    onnx.save(packed, tmp_path / "packed.onnx")
    assert all(node.integer for node in kernels(tmp_path / "packed.onnx"))


def test_eight_bits_are_left_as_they_are():
    _, packed, _ = packed_and_not("residual", 8)
    assert not [t for t in packed.graph.initializer if t.name.endswith("_packed")]
