"""The ladder that raises bits: what gains most for its cost comes first, and rules say it."""

from dataclasses import replace

import onnx
import pytest
from networks import bench_of
from small_models import MODELS, Builder, residual

from onnx_lapq.errors import ModelError
from onnx_lapq.graph.placement.options import as_flags
from onnx_lapq.graph.placement.place import place
from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.stages.promotion import climb_of, noisy_parts
from onnx_lapq.stages.sensitivity import measure_alone

LOW = {"weight_bits": 2, "activation_bits": 2}


def climb(noisy=(), **options):
    bench = bench_of(residual(), **{**LOW, **options})
    return bench, climb_of(bench, measure_alone(bench, parts=noisy_parts(bench, noisy))[0], noisy)


def bits_at(bench, found, count):
    options = replace(bench.config, bits=found.rules(count)).placement_options()
    return place(bench.network.model, options).bits_by_name


NOISY = OutputScore("logits", None, "kl", 9.0, None, None, 0.9)


@pytest.mark.parametrize("noisy", [(), (NOISY,)])
def test_the_steps_of_a_tensor_go_up_and_the_best_come_first(noisy):
    _, found = climb(noisy)
    prices = [step.gain / step.cost for step in found.steps]
    assert prices == sorted(prices, reverse=True)
    bits = {}
    for step in found.steps:
        assert bits.get(step.tensor, step.before) == step.before < step.after
        bits[step.tensor] = step.after
    assert set(bits.values()) == {32}
    left = [found.left(count) for count in range(len(found.steps) + 1)]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0


def test_rules_give_the_tensors_the_bits_of_the_steps():
    bench, found = climb()
    assert found.rules(0) == ()
    for count in range(1, len(found.steps) // 2):
        bits = bits_at(bench, found, count)
        raised = {step.tensor: step.after for step in found.steps[:count] if step.kind == "weight"}
        for name, after in raised.items():
            assert bits.get(name, 32) in ({8: (7, 8)}.get(after, (after,)))


@pytest.mark.parametrize(
    ("target", "widths"),
    [("ort-x86", {4, 8, 32}), ("qnn", {16, 32}), ("generic", {4, 8, 16, 32}), ("openvino", {4, 8, 32})],
)
def test_activations_have_16_bits_where_the_target_has_kernels_for_them(target, widths):
    bench, found = climb(target=target, activation_bits=8 if target == "qnn" else 2)
    activations = [step for step in found.steps if step.kind == "activation"]
    assert {step.after for step in activations} == widths
    if 16 in widths:
        count = next(n for n in range(len(found.steps)) if any(s.after == 16 for s in found.steps[:n]))
        assert 16 in bits_at(bench, found, count).values()


def test_bits_that_rules_give_are_kept():
    _, found = climb(bits=("node_conv2=w3", "node_conv4=4"))
    raised = {step.tensor for step in found.steps}
    assert not raised & {"c2", "c6", "clip3"}
    assert {"c10", "relu1:2bit"} <= raised
    rules = found.rules(len(found.steps) // 2)
    assert rules[:2] == ("node_conv2=w3", "node_conv4=4")
    assert any(rule.startswith("node_conv2=w3a") for rule in rules[2:])
    assert not any(rule.startswith("node_conv4") for rule in rules[2:])


def test_three_bits_are_not_a_step_where_four_take_as_much():
    _, found = climb()
    assert all(step.after in (4, 8, 32) for step in found.steps if step.before == 2)


def test_a_rule_names_one_node_whatever_its_name():
    model = residual()
    for node, name in zip(
        model.graph.node, ["first", "Relu1", "Conv", "x", "a*[0]", "y", "x=y"], strict=False
    ):
        node.name = name
    onnx.checker.check_model(model)
    bench = bench_of(model, **LOW)
    found = climb_of(bench, measure_alone(bench)[0])
    rules = found.rules(len(found.steps) // 2)
    assert [rule.rpartition("=")[0] for rule in rules] == ["[C]onv", "a[*][[]0]", "x=y", "node_conv8"]
    assert as_flags(["[C]onv=8"]) == "--bits '[C]onv=8'"


def gated():
    """Image [N, 3, 8, 8] -> map: SiLU, a sum, a Concat and a Resize between convolutions."""
    b = Builder()

    def silu(x):
        return b.node("Mul", [x, b.node("Sigmoid", [x])])

    stem = silu(b.conv("image", 3, 8))
    added = b.node("Add", [stem, silu(b.conv(stem, 8, 8))])
    joined = b.node("Concat", [added, silu(b.conv(added, 8, 8))], axis=1)
    b.conv(joined, 16, 4)
    b.nodes[-1].output[0] = "map"
    return b.model({"image": ["N", 3, 8, 8]}, {"map": ["N", 4, 8, 8]})


@pytest.mark.parametrize(
    ("model", "target", "bits"), [*((model, "ort-x86", 2) for model in MODELS.values()), (gated, "qnn", 8)]
)
def test_the_ladder_ends_at_float(model, target, bits):
    bench = bench_of(model(), weight_bits=4, activation_bits=bits, target=target)
    found = climb_of(bench, measure_alone(bench)[0])
    assert set(bench.network.placement.bits_by_name) == {step.tensor for step in found.steps}
    with pytest.raises(ModelError, match="nothing to quantize"):
        bits_at(bench, found, len(found.steps))


def test_a_ladder_can_leave_any_weight_as_the_last_tensor_that_is_quantized():
    bench, found = climb()
    ends = found.steps_to_float()
    assert [step.gain for step in ends] == sorted(step.gain for step in ends)
    assert {step.tensor for step in ends} == {step.tensor for step in found.steps}
    for last in (step for step in ends if step.kind == "weight"):
        other = found.ending_with(last)
        assert sorted(map(str, other.steps)) == sorted(map(str, found.steps))
        assert set(bits_at(bench, other, len(other.steps) - 1)) == {last.tensor}


def test_quantizers_between_layers_are_raised():
    bench = bench_of(gated(), weight_bits=8, activation_bits=8, target="generic")
    found = climb_of(bench, measure_alone(bench)[0])
    first = {step.tensor: step.after for step in reversed(found.steps) if step.kind == "activation"}
    layers = bench.network.placement.layers_of(bench.network.model)
    between = [name for name in layers if not layers[name]]
    assert {first[name] for name in between} == {16}
    count = max(at for at, step in enumerate(found.steps, 1) if step.after == 16)
    assert {width for name, width in bits_at(bench, found, count).items() if name in first} == {16}


@pytest.mark.parametrize("rule", ["Conv=a8", "Conv=w4a8"])
def test_no_step_goes_to_float_where_a_rule_keeps_codes(rule):
    bench = bench_of(gated(), weight_bits=4, activation_bits=8, bits=(rule,))
    found = climb_of(bench, measure_alone(bench)[0])
    bits = bits_at(bench, found, len(found.steps))
    for name, after in {step.tensor: step.after for step in found.steps}.items():
        assert bits.get(name, 32) in ({8: (7, 8)}.get(after, (after,)))
    network = bench.network
    convolutions = {node.name for node in network.model.graph if node.op_type == "Conv"}
    readers = network.placement.readers_of(network.model)
    read = {name for name, nodes in readers.items() if convolutions.intersection(nodes)} - set(network.layers)
    assert len(read) > 2
    assert {bits[name] for name in read} == {8}


def test_nodes_whose_bits_a_rule_gives_are_kept_between_layers_too():
    bench = bench_of(gated(), bits=("Add=a8", "Concat=a16"), target="generic")
    found = climb_of(bench, measure_alone(bench)[0])
    nodes = {node.op_type: [value.name for value in node.inputs] for node in bench.network.model.graph}
    assert not {step.tensor for step in found.steps} & {*nodes["Add"], *nodes["Concat"]}
