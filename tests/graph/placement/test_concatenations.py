"""Pieces of a Concat are written in the scale of what it writes."""

import numpy as np
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder

from onnx_lapq.graph.placement.options import PlacementOptions
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare

SIZES = {"image": ["N", 3, 8, 8]}


def joined(kind):
    b = Builder()
    left, right = b.conv("image", 3, 4), b.conv("image", 3, 4)
    match kind:
        case "Relu":
            left, right = b.relu(left), b.relu(right)
        case "one Relu":
            left = b.relu(left)
        case "Relu6":
            left, right = b.relu6(left), b.relu6(right)
        case "pooled":
            right = b.node("MaxPool", [right], kernel_shape=[3, 3], pads=[1] * 4)
        case "one behind the other" | "Relus, one behind the other":
            third = b.conv("image", 3, 4)
            if kind != "one behind the other":
                left, third = b.relu(left), b.relu(third)
            left = b.node("Concat", [left, third], axis=1)
        case "read by a layer":
            b.node("Identity", [b.conv(left, 4, 4)], name="z")
        case "an output":
            b.node("Identity", [left], name="z")
    both = b.node("Concat", [left, right], name="both", axis=1)
    b.node("Identity", [b.conv(both, 12 if kind.endswith("one behind the other") else 8, 4)], name="y")
    outputs = {"y": ["N", 4, 8, 8]}
    if kind in ("read by a layer", "an output"):
        outputs["z"] = ["N", 4, 8, 8]
    return b.model(SIZES, outputs)


@pytest.mark.parametrize(
    ("kind", "bits", "shared"),
    [
        ("plain", 8, 2),
        ("Relu", 8, 2),
        ("one Relu", 8, 1),
        ("Relu6", 8, 0),
        ("pooled", 8, 3),
        ("read by a layer", 8, 1),
        ("an output", 8, 1),
        ("one behind the other", 8, 4),
        ("Relus, one behind the other", 8, 2),
        ("plain", 4, 0),
        ("plain", 16, 0),
    ],
)
def test_what_nothing_else_reads_takes_the_scale_of_the_output(kind, bits, shared):
    options = PlacementOptions(activation_bits=bits, first_last="same")
    placement = place(prepare(ir.from_proto(joined(kind))), options)
    (site,) = [site for site in placement.activations if site.value == "both"]
    assert len(site.moved) == shared


def test_a_concat_of_alike_codes_copies_them():
    images = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    network = quantized(joined("plain"), {"image": images})
    nodes = network.written().graph.node
    writers = {name: node for node in nodes for name in node.output}
    (concat,) = [node for node in nodes if node.op_type == "Concat"]
    assert {writers[name].input[1] for name in concat.input} == {"both_scale"}
    (wanted,) = network.outputs
    assert 10 * np.log10(np.square(wanted).sum() / np.square(network.simulated_outputs() - wanted).sum()) > 30


def test_names_of_pieces_do_not_meet_those_of_other_values():
    b = Builder()
    pieces = [b.node("Conv", ["image", b.weight(4, 3, 1, 1)], name=name) for name in ("b", "c")]
    whole = b.node("Concat", pieces, name="a", axis=1)
    b.node("Identity", [b.conv(b.node("Conv", [whole, b.weight(4, 8, 1, 1)], name="a_b"), 4, 4)], name="y")
    images = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    written = quantized(b.model(SIZES, {"y": ["N", 4, 8, 8]}), {"image": images}).written()
    names = [node.name for node in written.graph.node]
    assert len(names) == len(set(names))
