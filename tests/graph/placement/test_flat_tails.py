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
    x = b.conv("image", 3, 4, size=5)

    def number(value: float) -> str:
        return b.constant(np.float32(value).reshape(()))

    match kind:
        case "SiLU":
            y = b.node("Mul", [x, b.node("Sigmoid", [x])])
        case "HardSwish in two":
            y = b.node("Mul", [b.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5), x])
        case "Mish":
            y = b.node("Mul", [x, b.node("Tanh", [b.node("Softplus", [x])])])
        case "GELU in many":
            y = b.node(
                "Mul",
                [
                    x,
                    b.node("Add", [b.node("Erf", [b.node("Div", [x, number(2**0.5)])]), number(1.0)]),
                ],
            )
            y = b.node("Mul", [y, number(0.5)])
        case "GELU by Tanh":
            cube = b.node("Mul", [b.node("Pow", [x, number(3.0)]), number(0.044715)])
            inner = b.node("Mul", [b.node("Add", [x, cube]), number((2 / np.pi) ** 0.5)])
            gate = b.node("Mul", [b.node("Add", [b.node("Tanh", [inner]), number(1.0)]), number(0.5)])
            y = b.node("Mul", [x, gate])
        case "SiLU of a part":
            part = b.node("MaxPool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            y = b.node("Mul", [part, b.node("Sigmoid", [part])])
        case "GLU":
            halves = [b.constant(np.array([at])) for at in (0, 2, 4)]
            first, second = (
                b.node("Slice", [x, start, end, b.constant(np.array([1]))])
                for start, end in (halves[:2], halves[1:])
            )
            gated = b.node("Mul", [first, b.node("Sigmoid", [second])])
            y = b.node("Concat", [gated, gated], axis=1)
        case "Relu of the negative":
            y = b.node("Relu", [b.node("Neg", [x])])
        case "Min with 0":
            y = b.node("Min", [x, number(0)])
        case "Clip below 0":
            y = b.node("Clip", [x, number(-10), number(-1)])
        case "HardSwish and a layer":
            y = b.node("Add", [b.node("HardSwish", [x]), b.conv(x, 4, 4)])
        case _:
            y = b.node(kind, [x])
    b.node("Identity", [b.conv(y, 4, 4)], name="y")
    return b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 4, 8, 8]}, opset=opset)


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("SiLU", (-9.12, np.inf)),
        ("SiLU of a part", (-9.12, np.inf)),
        ("HardSwish in two", (-3.0, np.inf)),
        ("HardSwish", (-3.0, np.inf)),
        ("Mish", (-9.12, np.inf)),
        ("GELU in many", (-3.43, np.inf)),
        ("GELU by Tanh", (-3.38, np.inf)),
        ("Sigmoid", (-6.91, 6.91)),
        ("HardSigmoid", (-2.5, 2.5)),
        ("Tanh", (-3.80, 3.80)),
        ("Elu", (-6.91, np.inf)),
        ("Exp", (-np.inf, np.inf)),
        ("Neg", (-np.inf, np.inf)),
        ("GLU", (-np.inf, np.inf)),
        ("Relu of the negative", (-np.inf, 0.0)),
        ("Min with 0", (-np.inf, 0.0)),
        ("Clip below 0", (-10.0, -1.0)),
        ("HardSwish and a layer", (-np.inf, np.inf)),
    ],
)
def test_the_quantizer_ends_where_the_function_is_flat(kind, ends):
    placement = place(prepare(ir.from_proto(activated(kind))), PlacementOptions())
    site = next(site for site in placement.activations if site.value.startswith("conv0"))
    found = (-np.inf, np.inf) if site.curve is None else (site.curve.lowest, site.curve.highest)
    assert found == pytest.approx(ends, abs=0.05)


def test_codes_are_spent_on_what_the_function_tells_apart():
    images = np.random.default_rng(0).normal(0, 20, (8, 3, 8, 8)).astype(np.float32)
    network = quantized(activated("HardSwish"), {"image": images})
    site = next(site for site in network.placement.activations if site.value.startswith("conv0"))
    grid, step = network.network.grids[site.name], float(network.steps[site.name])
    assert grid.zero_point * step == pytest.approx(3, abs=2 * step)
    reached = (grid.qmax - grid.zero_point) * step
    assert reached > 10


@pytest.mark.parametrize("kind", ["Relu of the negative", "Min with 0", "Clip below 0", "GLU"])
def test_functions_of_negative_numbers_and_of_two_parts_keep_their_signal(kind):
    images = np.random.default_rng(0).normal(0, 10, (16, 3, 8, 8)).astype(np.float32)
    network = quantized(activated(kind), {"image": images})
    assert all(np.min(step) > 0 for step in network.steps.values())
    wanted, found = network.outputs[0], network.simulated_outputs()
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 25
