"""Convolutions that are quicker in float on x86 stay there, where nothing around them is on codes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, feeds

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run

WIDE = 16


def behind(kind: str, before: str = "HardSwish", **convolution: int) -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> a layer, a function, the layer ``looked_at``, another function, 10 scores."""
    sizes = {"inputs": WIDE, "outputs": WIDE, "size": 3, "group": WIDE, **convolution}
    b = Builder()
    x = b.conv("image", 3, sizes["inputs"], 5)
    if before == "HardSwish and a factor":  # as PP-LCNet has it: there is no integer kernel for it
        factor, offset = (b.constant(np.array(number, np.float32)) for number in (1.2, 0.1))
        x = b.node("Add", [b.node("Mul", [b.node("HardSwish", [x]), factor]), offset])
    else:
        x = b.node(before, [x])
    x = b.conv(x, sizes["inputs"], sizes["outputs"], sizes["size"], group=sizes["group"])
    b.nodes[-1].name = "looked_at"
    match kind:
        case "SiLU":
            x = b.node("Mul", [x, b.node("Sigmoid", [x])])
        case "a gate of another":
            x = b.node("Mul", [x, b.node("HardSigmoid", [b.node("GlobalAveragePool", [x])])])
        case "nothing":
            pass
        case _:
            x = b.node(kind, [x])
    x = b.conv(x, sizes["outputs"], 8, 1)
    b.node("Identity", [b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [x])]), 8, 10)], name="logits")
    return b.model({"image": ["N", 3, 8, 8]}, {"logits": ["N", 10]})


def placed(model: onnx.ModelProto, **options: object) -> Placement:
    return place(prepare(ir.from_proto(model)), QuantizationConfig(**options).placement_options())


def stays_in_float(placement: Placement) -> bool:
    return any("quicker in float" in node.reason for node in placement.in_float if node.name == "looked_at")


@pytest.mark.parametrize(
    ("kind", "before", "expected"),
    [
        ("HardSwish", "HardSwish and a factor", True),
        ("SiLU", "HardSwish and a factor", True),
        ("Softplus", "HardSwish and a factor", True),
        ("Softplus", "Elu", True),
        ("HardSwish", "HardSwish", False),  # on codes
        ("HardSwish", "Relu", False),
        ("Relu", "HardSwish and a factor", False),
        ("nothing", "HardSwish and a factor", False),
        ("a gate of another", "HardSwish and a factor", False),
    ],
)
def test_a_depthwise_convolution_stays_between_float_and_float(kind, before, expected):
    assert stays_in_float(placed(behind(kind, before))) == expected


@pytest.mark.parametrize(
    ("kind", "convolution", "expected"),
    [
        ("HardSwish", {"inputs": 8, "size": 1, "group": 1}, True),
        ("HardSwish", {"inputs": 3, "size": 3, "group": 1}, True),
        ("HardSwish", {"inputs": 4, "size": 3, "group": 1}, False),  # 36 products
        ("HardSwish", {"size": 1, "group": 1}, False),  # as many channels as it reads
        ("nothing", {"inputs": 8, "size": 1, "group": 1}, False),
        ("nothing", {"size": 3, "group": 4}, True),  # 36 products, of four groups
        ("nothing", {"size": 3, "group": 2}, False),  # 72
        ("nothing", {"size": 1, "group": 4}, False),  # no windows to arrange
        ("nothing", {"outputs": 2 * WIDE, "size": 3}, True),  # two channels of one
    ],
)
def test_few_products_are_enough(kind, convolution, expected):
    assert stays_in_float(placed(behind(kind, "Relu", **convolution))) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"target": "ort-arm"},
        {"target": "generic"},
        {"weight_bits": 4},
        {"activation_bits": 4},
        {"placement": "paper"},
        {"bits": ("auto",)},
        {"bits": ("looked_at=8",)},
    ],
    ids=str,
)
def test_only_where_speed_is_what_counts(options):
    model = behind("HardSwish", "HardSwish and a factor")
    assert stays_in_float(placed(model, target="ort-x86-vnni"))
    assert not stays_in_float(placed(model, **options))


def test_layers_in_a_row_stay_together():
    b = Builder()
    x = b.relu(b.conv(b.conv("image", 3, 8), 8, 8, group=8))
    x = b.node("HardSwish", [b.conv(x, 8, 16, 1)])
    b.node("Identity", [b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [x])]), 16, 10)], name="logits")
    placement = placed(b.model({"image": ["N", 3, 8, 8]}, {"logits": ["N", 10]}))
    assert sum("quicker in float" in node.reason for node in placement.in_float) == 3
    assert [site.value for site in placement.activations if site.searched] != ["image"]


def test_a_network_of_nothing_else_runs_on_codes():
    b = Builder()
    x = b.conv(b.node("HardSwish", [b.conv("image", 3, 8)]), 8, 16, 1)
    b.node("ReduceMean", [b.node("HardSwish", [x])], "means", axes=[2, 3])
    placement = placed(b.model({"image": ["N", 3, 8, 8]}, {"means": ["N", 16, 1, 1]}))
    assert len(placement.weights) == 2


@pytest.mark.parametrize("kind", ["HardSwish", "SiLU", "nothing"])
@pytest.mark.parametrize("group", [4, WIDE])
def test_what_is_written_is_what_was_simulated(kind, group):
    model = behind(kind, "HardSwish and a factor", group=group)
    inputs = feeds(model, 16)
    network = quantized(model, inputs, target="ort-x86-vnni")
    assert stays_in_float(network.placement) == (group != WIDE or kind != "nothing")
    simulated = network.simulated_outputs()
    (written,) = run(open_session(network.written(), precise=True), inputs)
    np.testing.assert_allclose(written, simulated, rtol=0, atol=1e-6 * np.ptp(simulated))
