"""What each tensor alone costs: all of them, nothing else, and the worst first."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import bench_of
from small_models import Builder, encoder, recommender, residual

from onnx_lapq.stages.sensitivity import measure_alone


@pytest.mark.parametrize("make", [residual, recommender, encoder])
def test_every_quantizer_has_its_cost(make):
    bench = bench_of(make(), weight_bits=4)
    found, samples = measure_alone(bench)
    assert samples == 20
    placement = bench.network.placement
    assert [one.name for one in found] == list(placement.bits_by_name)
    assert [one.kind == "weight" for one in found] == [
        name in bench.network.layers for name in placement.bits_by_name
    ]
    layers = {name for one in found for name in one.layers}
    assert layers <= set(placement.layers)
    assert all(one.worst_db is None or one.worst_db > -10 for one in found)
    assert max(one.loss for one in found) > 0


def test_one_tensor_is_quantized_and_the_others_are_not():
    network = bench_of(residual()).network
    (steps,) = bench_of(residual()).layerwise.for_p([2.5], lambda done: None)
    point = network.point(steps)
    for name in network.placement.bits_by_name:
        written = network.keeping({name}).written(point)
        kinds = [node.op_type for node in written.graph]
        if name in network.layers:
            assert "QuantizeLinear" not in kinds
            codes = [v for v in written.graph.initializers.values() if v.dtype == ir.DataType.INT8]
            assert [value.name for value in codes if value.name.endswith("_codes")] == [f"{name}_codes"]
        else:
            assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") >= 1


def test_the_tensor_with_the_outlier_costs_most():
    b = Builder()
    x = b.relu(b.conv("image", 3, 8))
    wide = b.weight(8, 8, 1, 1)
    values = np.frombuffer(b.initializers[-1].raw_data, np.float32).copy()
    values[0] = 60.0
    b.initializers[-1].raw_data = values.tobytes()
    x = b.relu(b.node("Conv", [x, wide]))
    b.conv(x, 8, 8, size=1)
    b.nodes[-1].output[0] = "y"
    model = b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 8]})
    found, _ = measure_alone(bench_of(model, weight_bits=4, per_channel=False))
    worst = max((one for one in found if one.kind == "weight"), key=lambda one: one.loss)
    assert worst.name == wide
    assert worst.worst_db == min(one.worst_db for one in found if one.kind == "weight")


def test_fewer_bits_cost_more():
    wide, narrow = (
        measure_alone(bench_of(residual(), weight_bits=bits, activation_bits=bits, first_last="same"))[0]
        for bits in (6, 3)
    )
    assert [one.name for one in wide if one.kind == "weight"] == [
        one.name for one in narrow if one.kind == "weight"
    ]
    for one, other in zip(wide, narrow, strict=False):
        if one.kind == "weight":
            assert other.worst_db < one.worst_db
