"""Raise bits where they matter most for what they cost.

What a tensor does to the network is measured with the tensor alone quantized, and taken to fall by a factor
of four with every bit, as the power of quantization noise does. A ladder of steps follows as for a budget of
bytes (`onnx_lapq.method.allocation`), here climbed from its foot.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.layer_kinds import kinds_of
from onnx_lapq.graph.placement.layer_bits import LayerBits
from onnx_lapq.graph.placement.options import FLOAT_BITS, WIDE_BITS, BitsRule, node_pattern
from onnx_lapq.graph.writing.packing import packed_bytes
from onnx_lapq.method.allocation import Choice, Rung, ladder
from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.method.parts import Part, span
from onnx_lapq.network.bench import Bench
from onnx_lapq.stages.sensitivity import Kind, Sensitivity

__all__ = ["Climb", "Promotion", "Raise", "Tried", "climb_of", "free_tensors", "noisy_parts"]

_WIDTHS: dict[Kind, tuple[int, ...]] = {
    "weight": (2, 3, 4, 8, FLOAT_BITS),
    "activation": (2, 4, 8, WIDE_BITS, FLOAT_BITS),
}
_BYTES_OF_A_FLOAT = 4
_MOST_NOISE = 6.0
"""Power of ten."""


@dataclass(frozen=True)
class Raise:
    """A step that gave a tensor more bits.

    Attributes:
        tensor: The quantizer: an initializer or an activation.
        kind: Of which of the two.
        before: Its bits so far.
        after: Its bits from here on; 32 is float.
        cost: Bytes that this takes in the file, and as many as the time counts: all multiplications of the
            network in float count as its float weights, and one of codes as the product of their bits over
            32 times 32.
        gain: What this takes off the measured sensitivity: loss, or power of the noise over that of the part
            that keeps least.
    """

    tensor: str
    kind: Kind
    before: int
    after: int
    cost: int
    gain: float


@dataclass(frozen=True)
class Tried:
    """Bits that were tried out.

    Attributes:
        steps: How many steps of the ladder were taken.
        joint: Whether the joint step was run; most trials go without.
        missed: What fell short; nothing where all limits held.
    """

    steps: int
    joint: bool
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Promotion:
    """How bits were raised until all limits held.

    Attributes:
        samples: What the limits were checked on: test samples, or guard samples.
        steps: The steps that were taken, the ones that gain most for their cost first; none where the bits
            asked for were enough.
        bits: All rules for bits, for ``--bits``, that give the same model without a search for bits.
        trials: What was tried out, in order.
    """

    samples: str
    steps: tuple[Raise, ...]
    bits: tuple[str, ...]
    trials: tuple[Tried, ...]


@dataclass(frozen=True)
class Climb:
    """All steps there are, from the bits asked for to float.

    Attributes:
        steps: The ones that gain most for their cost first.
        layers: The layers that decide the bits of a quantizer.
        model: The prepared model.
        config: Options of the run.
    """

    steps: tuple[Raise, ...]
    layers: Mapping[str, Sequence[str]]
    model: ir.Model
    config: QuantizationConfig

    def left(self, count: int) -> float:
        """What the steps behind the first ones could still gain, which is what the network lacks."""
        return math.fsum(step.gain for step in self.steps[count:])

    def cost(self, count: int) -> int:
        """What the first steps take, in bytes."""
        return sum(step.cost for step in self.steps[:count])

    def rules(self, count: int) -> tuple[str, ...]:
        """Rules for bits, those of the options first, that take the first steps."""
        raised = {step.tensor: step for step in self.steps[:count]}
        nodes = {node.name or "": node for node in self.model.graph}
        bits = LayerBits(self.model, self.config.placement_options())
        widths: dict[str, dict[Kind, int]] = {}
        for step in raised.values():
            for layer in self.layers[step.tensor]:
                of_layer = widths.setdefault(layer, _widths_of(nodes[layer], bits))
                of_layer[step.kind] = max(of_layer[step.kind], step.after)
        ordered = [name for name in nodes if name in widths]
        return (*self.config.bits, *(str(_rule(name, widths[name])) for name in ordered))


def free_tensors(bench: Bench) -> set[str]:
    """Quantizers whose bits may be raised: not those between layers, and none whose bits a rule gives."""
    network = bench.network
    nodes = {node.name: node for node in network.model.graph}
    asked = LayerBits(network.model, bench.config.placement_options())
    rules = {name: asked.rule(nodes[name]) for name in network.placement.layers}
    layers = network.placement.layers_of(network.model)

    def is_fixed(name: str) -> bool:
        found = [rule for layer in layers[name] if (rule := rules[layer]) is not None]
        return any(
            (rule.weights if name in network.layers else rule.activations) is not None for rule in found
        )

    return {name for name in bench.order if layers[name] and not is_fixed(name)}


def noisy_parts(bench: Bench, noisy: Sequence[OutputScore]) -> list[Part]:
    """Parts of the outputs by their scores; of one whose worst row counts, that row."""
    parts = {(part.output, span(part.rows) or None): part for part in bench.compared_parts}
    found = []
    for score in noisy:
        part = parts.get((score.name, score.rows))
        if part is not None:
            row = score.worst_row if score.row else None
            found.append(part if row is None else replace(part, rows=(row,)))
    return found


def climb_of(bench: Bench, measured: Sequence[Sensitivity], noisy: Sequence[OutputScore] = ()) -> Climb:
    """The ladder of a network.

    Args:
        bench: The network at the bits asked for.
        measured: What each of the `free_tensors` costs; where it is the noise of some parts that has to fall
            and not the loss, what it costs these parts.
        noisy: Their scores, all tensors quantized.
    """
    network, config = bench.network, bench.config
    asked = LayerBits(network.model, config.placement_options())
    names = free_tensors(bench)
    free = [one for one in measured if one.name in names]
    costs = _costs(bench, free, asked)
    lost = _noise(free, noisy) if noisy else {one.name: max(one.loss, 0.0) for one in free}
    choices = {one.name: _choices(one, costs[one.name], lost[one.name], config) for one in free}
    kinds = {one.name: one.kind for one in free}
    steps = [_upwards(rung, kinds[rung.layer]) for rung in ladder(choices)]
    return Climb(
        tuple(reversed(steps)),
        {one.name: one.layers for one in free},
        network.model,
        config,
    )


def _upwards(rung: Rung, kind: Kind) -> Raise:
    return Raise(rung.layer, kind, rung.after, rung.before, rung.saved, rung.added)


def _choices(one: Sensitivity, cost: "_Cost", lost: float, config: QuantizationConfig) -> dict[int, Choice]:
    """What a tensor costs and does at its bits and all that are more."""
    target = config.runtime()
    narrowed = one.kind == "weight" and one.bits == target.weight_bits
    now = 8 if narrowed else one.bits
    skipped = None if target.has_wide_kernels else WIDE_BITS
    widths = (now, *(bits for bits in _WIDTHS[one.kind] if bits > now and bits != skipped))
    return {
        bits: Choice(cost.at(bits), 0.0 if bits == FLOAT_BITS else lost / 4 ** (bits - now))
        for bits in widths
    }


def _noise(free: Sequence[Sensitivity], noisy: Sequence[OutputScore]) -> dict[str, float]:
    """What each tensor has in the noise of the parts: of each part the tensor's share of all tensors'."""
    found = dict.fromkeys((one.name for one in free), 0.0)
    for at, score in enumerate(noisy):
        alone = {one.name: _power(one.outputs[at]) for one in free}
        total = math.fsum(alone.values()) or 1.0
        for name, power in alone.items():
            found[name] += _power(score) * power / total
    return found


def _power(score: OutputScore) -> float:
    """Power of the noise over that of the part."""
    return float(10 ** min(-score.lowest_db / 10, _MOST_NOISE))


@dataclass(frozen=True)
class _Cost:
    """What the bits of a tensor take.

    Attributes:
        codes: Elements of a weight.
        time: Bytes that stand for the time of its layers in float.
        other: Bits of what it is multiplied by.
    """

    codes: int
    time: float
    other: int

    def at(self, bits: int) -> int:
        """Bytes at a width: those in the file, and as many as the time of products of so many bits counts."""
        if bits == FLOAT_BITS:
            return _BYTES_OF_A_FLOAT * self.codes + round(self.time)
        return packed_bytes(self.codes, bits) + round(self.time * bits * self.other / FLOAT_BITS**2)


def _costs(bench: Bench, free: Sequence[Sensitivity], asked: LayerBits) -> dict[str, _Cost]:
    network = bench.network
    nodes = {node.name or "": node for node in network.model.graph}
    products = {name: _products(nodes[name]) for name in network.placement.layers}
    total = sum(products.values()) or 1
    sizes = {name: layer.values.size for name, layer in network.layers.items()}
    floats = _BYTES_OF_A_FLOAT * sum(sizes.values())

    def cost(one: Sensitivity) -> _Cost:
        other: Kind = "activation" if one.kind == "weight" else "weight"
        widths = [_widths_of(nodes[name], asked) for name in one.layers]
        by = max(width[other] or width["activation"] for width in widths)
        time = floats * sum(products[name] for name in one.layers) / total
        return _Cost(sizes.get(one.name, 0), time, by)

    return {one.name: cost(one) for one in free}


def _products(node: ir.Node) -> int:
    """Multiplications of a layer, where sizes that are open count as 1."""
    output = math.prod(_sizes(node.outputs[0]))
    with_weight = [kind for kind in kinds_of(node) if kind.weight is not None]
    if with_weight:
        inputs = [math.prod(kind.shape) // kind.output_channels for kind in with_weight if kind.multiplies]
        return sum(inputs) * output
    return output * next(reversed(_sizes(node.inputs[0])), 1)


def _sizes(value: ir.Value | None) -> list[int]:
    shape = () if value is None or value.shape is None else value.shape
    return [size if isinstance(size, int) else 1 for size in shape]


def _widths_of(node: ir.Node, bits: LayerBits) -> dict[Kind, int]:
    """Bits that a layer has."""
    weights = [bits.weight(kind) for kind in kinds_of(node) if kind.weight is not None]
    return {"weight": max(weights, default=0), "activation": bits.activation(node)}


def _rule(name: str, widths: Mapping[Kind, int]) -> BitsRule:
    """The rule that gives a layer its bits; one whose weight is in float is all in float."""
    weights = widths["weight"] or None
    activations = FLOAT_BITS if weights == FLOAT_BITS else widths["activation"]
    return BitsRule(node_pattern(name), weights, activations)
