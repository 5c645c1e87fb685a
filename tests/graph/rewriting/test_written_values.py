"""Channels of what a convolution writes are divided, and multiplied again for readers in float."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import activated_images, feeds

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.rewriting.activation_scales import insert_factors
from onnx_lapq.graph.rewriting.written_values import Written, divide_written, written_values
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run

OPTIONS = QuantizationConfig().placement_options()


def found_in(model: onnx.ModelProto, **options: object) -> tuple[ir.Model, list[Written]]:
    prepared = prepare(ir.from_proto(model))
    placement = place(prepared, QuantizationConfig(**options).placement_options())  # type: ignore[arg-type]
    return prepared, written_values(prepared, placement)


def test_the_network_stays_the_same_and_one_mul_serves_all_readers():
    model = activated_images()
    prepared, (written,) = found_in(model)
    assert written.product.value.name == "inner"
    before, x = [node.op_type for node in prepared.graph], feeds(model, 3)
    wanted = run(open_session(prepared), x)
    divide_written(prepared.graph, written, np.random.default_rng(0).uniform(1, 20, written.channels))
    np.testing.assert_allclose(run(open_session(prepared), x)[0], wanted[0], rtol=1e-4, atol=1e-6)
    assert sorted(node.op_type for node in prepared.graph) == sorted([*before, "Mul"])


def test_nothing_is_cut_off_of_what_factors_multiply():
    prepared, (written,) = found_in(activated_images())
    divide_written(prepared.graph, written, np.arange(1.0, 9.0))
    sites = place(prepared, OPTIONS).activations
    assert [site.value for site in sites if not site.cuts_off] == ["inner"]
    (site,) = (site for site in sites if site.value == "inner")
    assert site.curve is not None
    assert site.curve.lowest == pytest.approx(-3, abs=0.05)


@pytest.mark.parametrize(("factor", "is_flat"), [(1.0, True), (-1.0, False)])
def test_a_function_of_channels_that_are_turned_is_flat_nowhere(factor: float, is_flat: bool):
    prepared, (written,) = found_in(activated_images())
    factors = np.full((1, 8, 1, 1), 2, np.float32)
    factors[0, 3] = factor
    value = written.product.value
    insert_factors(prepared.graph, value, factors, [(use.node, use.idx) for use in list(value.uses())])
    (site,) = (site for site in place(prepared, OPTIONS).activations if site.value == "inner")
    assert (site.curve is not None) == is_flat


def with_an_output(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.output.append(helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["N", 8, 8, 8]))
    return model


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (activated_images("SiLU on codes"), {}),
        (activated_images("Relu"), {}),
        (with_an_output(activated_images()), {}),
        (activated_images(), {"per_channel": False}),
        (activated_images(), {"activation_bits": 16, "target": "generic"}),
        (activated_images(), {"activation_bits": 32}),
    ],
    ids=[
        "readers on codes",
        "a rectifier that the quantizer absorbs",
        "a graph output",
        "one scale for the weight",
        "16 bits",
        "no quantizer",
    ],
)
def test_others_keep_their_channels(model: onnx.ModelProto, options: dict[str, object]):
    assert found_in(model, **options)[1] == []
