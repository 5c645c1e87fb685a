"""Convolutions that are quicker in float on x86 stay there, where nothing around them is on codes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, feeds

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.operators import mark_scaling
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.activation_scales import insert_factors, of_channels
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
    ("kind", "before", "convolution", "expected"),
    [
        ("HardSwish", "Relu", {"inputs": 3, "group": 1}, True),
        ("HardSwish", "Relu", {"inputs": 4, "group": 1}, False),  # 36 products
        ("Relu", "Relu", {"inputs": 3, "group": 1}, False),
        ("HardSwish", "Elu", {"inputs": 8, "size": 1, "group": 1}, True),
        ("HardSwish", "Relu", {"inputs": 8, "size": 1, "group": 1}, False),
        ("HardSwish", "Elu", {"size": 1, "group": 1}, False),  # no more channels than it reads
        ("nothing", "Elu", {"inputs": 8, "size": 1, "group": 1}, False),
        ("nothing", "Relu", {"group": 4}, True),  # 36 products, of four groups
        ("nothing", "Relu", {"group": 2}, False),  # 72
        ("nothing", "Relu", {"size": 1, "group": 4}, False),  # no windows to arrange
        ("nothing", "Relu", {"outputs": 2 * WIDE}, True),  # two channels of one
        ("HardSwish", "HardSwish and a factor", {"size": 7}, True),
        ("HardSwish", "HardSwish and a factor", {"size": 9}, False),  # 81 products
    ],
)
def test_few_products_are_enough(kind, before, convolution, expected):
    assert stays_in_float(placed(behind(kind, before, **convolution))) == expected


@pytest.mark.parametrize(
    ("inputs", "size", "function", "expected"),
    [
        (16, 5, "HardSwish", True),
        (17, 5, "HardSwish", False),
        (16, 3, "HardSwish", False),
        (16, 5, "Relu", False),
        (16, 9, "HardSwish", False),
    ],
)
def test_what_a_large_depthwise_kernel_reads_stays_with_it(inputs, size, function, expected):
    b = Builder()
    x = b.node("HardSwish", [b.conv(b.relu(b.conv("image", 3, inputs, 5)), inputs, 24, 1)])
    x = b.node(function, [b.conv(x, 24, 24, size, group=24)])
    b.node("Identity", [b.conv(x, 24, 8, 1)], name="y")
    placement = placed(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 8]}))
    assert sum("quicker in float" in node.reason for node in placement.in_float) == 2 * expected


def test_in_one_dimension_all_are_on_codes():
    b = Builder()
    x = b.node("Conv", ["sound", b.weight(8, 1, 9)])
    x = b.node("Conv", [b.node("HardSwish", [x]), b.weight(8, 4, 3)], group=2)
    b.node("Conv", [b.node("HardSwish", [x]), b.weight(4, 8, 3)], name="y")
    placement = placed(b.model({"sound": ["N", 1, 64]}, {"y": ["N", 4, 52]}))
    assert len(placement.weights) == 3


@pytest.mark.parametrize(("second", "expected"), [("HardSwish", 2), ("Relu", 0)])
def test_layers_of_one_weight_stay_together(second, expected):
    b = Builder()
    weight = b.weight(16, 3, 3, 3)
    for number, function in enumerate(["HardSwish", second]):
        x = b.node(function, [b.node("Conv", [f"image{number}", weight])])
        b.node("Identity", [b.conv(x, 16, 8, 1)], name=f"y{number}")
    images = {f"image{number}": ["N", 3, 8, 8] for number in (0, 1)}
    placement = placed(b.model(images, {f"y{number}": ["N", 8, 6, 6] for number in (0, 1)}))
    assert sum("quicker in float" in node.reason for node in placement.in_float) == expected
    assert len(placement.weights) == 3 - expected // 2


def test_long_chains_of_moves_are_looked_through():
    b = Builder()
    x = b.conv("image", 3, 16)
    for _ in range(600):
        x = b.relu(b.node("Transpose", [x], perm=[0, 1, 3, 2]))
    b.node("Identity", [b.conv(b.node("Softplus", [x]), 16, 8, 1)], name="y")
    placement = placed(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 8]}))
    assert sum("quicker in float" in node.reason for node in placement.in_float) == 1


def test_a_layer_that_is_left_out_counts_as_float():
    assert stays_in_float(placed(behind("Softplus", "Relu"), exclude=("node_conv0",)))


def test_scaled_channels_change_nothing():
    b = Builder()
    x = b.node("Sigmoid", [b.conv("image", 3, 8)])
    b.node("Identity", [b.conv(b.node("Softplus", [x]), 8, 8, 1)], name="y")
    prepared = prepare(ir.from_proto(b.model({"image": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 8]})))
    options = QuantizationConfig().placement_options()
    before = place(prepared, options)
    sigmoid = next(node for node in prepared.graph if node.op_type == "Sigmoid")
    value = sigmoid.inputs[0]
    divisors = of_channels(value, np.linspace(1, 2, 8))
    mark_scaling(insert_factors(prepared.graph, value, divisors, [(sigmoid, 0)]))
    assert [site.layers for site in place(prepared, options).weights] == [s.layers for s in before.weights]


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
    assert len(placement.weights) == len(placement.activations) == 1


@pytest.mark.parametrize(
    ("options", "weights"),
    [({}, 2), ({"first_last": "float"}, 1), ({"exclude": ("node_gemm*",)}, 2)],
    ids=str,
)
def test_where_nothing_else_would_be_on_codes_they_are(options, weights):
    b = Builder()
    x = b.node("HardSwish", [b.conv(b.node("HardSwish", [b.conv("image", 3, 8)]), 8, 16, 1)])
    if options:
        x = b.gemm(b.node("Flatten", [b.node("GlobalAveragePool", [x])]), 16, 10)
    b.node("Identity", [x], name="y")
    shape = ["N", 10] if options else ["N", 16, 8, 8]
    model = b.model({"image": ["N", 3, 8, 8]}, {"y": shape})
    assert len(placed(model, **options).weights) == weights


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
