"""Step sizes of the whole network, before the search."""

import numpy as np
import pytest
from networks import quantized
from small_models import Builder


@pytest.mark.parametrize(("bits", "inputs", "the_same"), [(8, 64, True), (8, 9, False), (4, 64, False)])
def test_long_rows_of_many_bits_have_the_steps_of_min_max_at_every_p(bits, inputs, the_same):
    b = Builder()
    b.node("MatMul", ["x", b.weight(inputs, 16)], "y")
    model = b.model({"x": ["N", inputs]}, {"y": ["N", 16]})
    samples = {"x": np.random.default_rng(0).standard_normal((32, inputs)).astype(np.float32)}
    network = quantized(
        model, samples, weight_bits=bits, first_last="same", per_channel=True, target="generic"
    )
    (name,) = network.network.layers
    low, high = (steps[name] for steps in network.layerwise.for_p([2, 4], lambda done: None))
    assert np.array_equal(low, network.layerwise.minmax()[name]) == the_same
    assert np.array_equal(low, high) == the_same
    assert low.shape == (16,)


def test_codes_that_share_16_bits_are_not_cut_off():
    b = Builder()
    b.node("MatMul", ["x", b.weight(8, 16)], "y")
    model = b.model({"x": ["N", 8]}, {"y": ["N", 16]})
    samples = {"x": np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)}
    network = quantized(model, samples, per_channel=True)
    (layer,) = network.network.layers.values()
    steps, rows = network.steps[layer.site.name], layer.rows(layer.values)
    pairs = (
        np.maximum(rows, 0).reshape(16, 4, 2).sum(axis=2),
        np.maximum(-rows, 0).reshape(16, 4, 2).sum(axis=2),
    )
    assert (np.maximum(*pairs).max(axis=1) <= 128.001 * steps).all()
    assert (steps < 2.1 * np.abs(rows).max(axis=1) / 127).all()
