"""Quantizers in front of activation functions do not reach where these are flat."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder

from onnx_lapq.graph.placement.options import PlacementOptions
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare


def activated(kind: str, opset: int = 17):
    b = Builder()
    x = b.conv("image", 3, 4)
    match kind:
        case "SiLU":
            y = b.node("Mul", [x, b.node("Sigmoid", [x])])
        case "HardSwish in two":
            y = b.node("Mul", [b.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5), x])
        case "Mish":
            y = b.node("Mul", [x, b.node("Tanh", [b.node("Softplus", [x])])])
        case "HardSwish and a layer":
            y = b.node("Add", [b.node("HardSwish", [x]), b.conv(x, 4, 4)])
        case _:
            y = b.node(kind, [x])
    b.node("Identity", [b.conv(y, 4, 4)], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]}, opset=opset)


@pytest.mark.parametrize(
    ("kind", "minimum"),
    [
        ("SiLU", -8.0),
        ("HardSwish in two", -3.0),
        ("HardSwish", -3.0),
        ("Mish", -8.0),
        ("Sigmoid", -8.0),
        ("Tanh", -np.inf),
        ("HardSwish and a layer", -np.inf),
    ],
)
def test_the_quantizer_ends_where_the_function_is_flat(kind, minimum):
    placement = place(prepare(ir.from_proto(activated(kind))), PlacementOptions())
    site = next(site for site in placement.activations if site.value.startswith("conv0"))
    assert site.minimum == pytest.approx(minimum)


def test_codes_are_spent_on_what_the_function_tells_apart():
    images = np.random.default_rng(0).normal(0, 20, (8, 3, 8, 8)).astype(np.float32)
    network = quantized(activated("HardSwish"), {"image": images})
    site = next(site for site in network.placement.activations if site.value.startswith("conv0"))
    grid, step = network.network.grids[site.name], float(network.steps[site.name])
    assert grid.zero_point * step == pytest.approx(3, abs=2 * step)
    reached = (grid.qmax - grid.zero_point) * step
    assert reached > 10
