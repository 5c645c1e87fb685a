import numpy as np
import onnx_ir as ir
import pytest
from small_models import Builder, branching, recommender, residual

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ModelError
from onnx_lapq.graph.placement.options import PlacementOptions
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare


def placed(model, **options):
    return place(prepare(ir.from_proto(model)), PlacementOptions(**options))


def bits(placement) -> list[int]:
    return [site.bits for site in placement.weights]


def test_first_and_last_layer_have_8_bits():
    assert bits(placed(residual(), weight_bits=4)) == [8, 4, 4, 4, 4, 8]


def test_first_and_last_layer_may_have_the_same_bits():
    assert bits(placed(residual(), weight_bits=4, first_last="same")) == [4] * 6


def test_first_and_last_layer_may_stay_in_float():
    placement = placed(residual(), weight_bits=4, first_last="float")
    assert bits(placement) == [4] * 4
    assert "image" not in {site.name for site in placement.activations}


def test_all_layers_of_a_recommender_are_found():
    assert len(placed(recommender()).weights) == 4


def test_at_8_bits_one_quantizer_serves_layers_and_arithmetic():
    placement = placed(residual())
    assert len({site.value for site in placement.activations}) == len(placement.activations)
    assert all(site.after is None for site in placement.activations)


def test_below_8_bits_the_residual_stays_at_8():
    placement = placed(residual(), activation_bits=4)
    chained = [site for site in placement.activations if site.after is not None]
    (stem,) = chained
    (glue,) = (site for site in placement.activations if site.name == stem.after)
    assert (stem.bits, stem.searched, stem.value) == (4, True, glue.value)
    assert (glue.bits, glue.searched) == (8, False)
    assert len(stem.edges) == 1


def test_moved_values_share_a_quantizer():
    placement = placed(branching())
    (stem, *_) = (site for site in placement.activations if site.moved)
    assert len(stem.moved) == 1


def test_relu6_limits_its_quantizer():
    limits = {site.maximum for site in placed(residual()).activations}
    assert limits == {6.0, float("inf")}


def test_rectifier_inputs_are_not_quantized():
    placement = placed(residual())
    values = {site.value for site in placement.activations}
    assert not any(value.startswith("conv0") for value in values)


def test_32_bits_mean_float():
    assert placed(residual(), activation_bits=32).activations == ()
    assert placed(residual(), weight_bits=32).weights == ()


def test_paper_quantizes_weights_and_rectifier_outputs_only():
    placement = placed(residual(), weight_bits=4, activation_bits=4, policy="paper", first_last="float")
    assert bits(placement) == [4] * 4
    assert {site.bits for site in placement.activations} == {4}
    assert len(placement.activations) == 3
    assert all(site.searched for site in placement.activations)


def test_a_weight_knows_the_quantizer_that_its_layer_reads():
    placement = placed(residual(), activation_bits=4)
    names = {site.name for site in placement.activations}
    assert all(site.input_site in names for site in placement.weights)


def tied(second: str):
    b = Builder()
    weight = b.constant(np.eye(8, dtype=np.float32))
    hidden = b.relu(b.node("Gemm", ["x", weight]))
    b.node("Gemm", [hidden, weight], "y", **({"transB": 1} if second == "transposed" else {}))
    return b.model({"x": ["N", 8]}, {"y": ["N", 8]})


@pytest.mark.parametrize(("second", "per_channel"), [("the same way", True), ("transposed", False)])
def test_a_shared_weight_has_a_scale_per_channel_only_where_its_channels_are_the_same(second, per_channel):
    (site,) = placed(tied(second), per_channel=True).weights
    assert len(site.layers) == 2
    assert site.per_channel == per_channel


def test_nothing_to_quantize_is_an_error():
    with pytest.raises(ModelError, match="nothing to quantize"):
        placed(residual(), weight_bits=32, activation_bits=32)


@pytest.mark.parametrize(
    ("options", "per_channel"),
    [
        ({}, True),
        ({"per_channel": False}, False),
        ({"placement": "paper"}, False),
        ({"placement": "paper", "per_channel": True}, True),
    ],
)
def test_weights_have_a_scale_per_channel_unless_the_paper_or_the_user_says_otherwise(options, per_channel):
    options = QuantizationConfig(**options).placement_options()
    placement = place(prepare(ir.from_proto(residual())), options)
    assert {site.per_channel for site in placement.weights} == {per_channel}


def test_a_long_chain_of_arithmetic_is_placed():
    b = Builder()
    value, other = b.conv("image", 3, 4), b.conv("image", 3, 4)
    for _ in range(600):
        value = b.node("Add", [value, other])
    b.conv(b.node("Relu", [value]), 4, 4, name="y")
    assert len(placed(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]})).weights) == 3
