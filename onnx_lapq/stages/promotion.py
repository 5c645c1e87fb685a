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
from onnx_lapq.graph.placement.layer_bits import SAFE_BITS, LayerBits
from onnx_lapq.graph.placement.options import FLOAT_BITS, WIDE_BITS, BitsRule, node_pattern
from onnx_lapq.method.allocation import Choice, Rung, ladder
from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.method.parts import Part, span
from onnx_lapq.network.bench import Bench
from onnx_lapq.stages.bit_costs import Cost, Deciders, costs_of, deciders_of, widths_of
from onnx_lapq.stages.sensitivity import Kind, Sensitivity

__all__ = ["Climb", "Promotion", "Raise", "Tried", "climb_of", "free_tensors", "noisy_parts"]

_WIDTHS: dict[Kind, tuple[int, ...]] = {
    "weight": (2, 3, 4, 8, FLOAT_BITS),
    "activation": (2, 4, 8, WIDE_BITS, FLOAT_BITS),
}
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
        samples: What the limits were checked on: test samples, or calibration samples.
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
        deciders: The nodes that decide the bits of a quantizer.
        model: The prepared model.
        config: Options of the run.
    """

    steps: tuple[Raise, ...]
    deciders: Mapping[str, Deciders]
    model: ir.Model
    config: QuantizationConfig

    def left(self, count: int) -> float:
        """What the steps behind the first ones could still gain, which is what the network lacks."""
        return math.fsum(step.gain for step in self.steps[count:])

    def cost(self, count: int) -> int:
        """What the first steps take, in bytes."""
        return sum(step.cost for step in self.steps[:count])

    def steps_to_float(self) -> list[Raise]:
        """Those that take a tensor to float, the ones that gain least first."""
        return sorted((step for step in self.steps if step.after == FLOAT_BITS), key=lambda step: step.gain)

    def ending_with(self, last: Raise) -> "Climb":
        """The ladder with a step to float as its last one: before it, all but that tensor may be in float."""
        return replace(self, steps=(*(step for step in self.steps if step != last), last))

    def rules(self, count: int) -> tuple[str, ...]:
        """Rules for bits, those of the options first, that take the first steps."""
        raised = {step.tensor: step for step in self.steps[:count]}
        nodes = {node.name or "": node for node in self.model.graph}
        bits = LayerBits(self.model, self.config.placement_options())
        widths: dict[str, dict[Kind, int]] = {}
        for step in raised.values():
            for name in self.deciders[step.tensor].at(step.after):
                of_node = widths.setdefault(name, widths_of(nodes[name], bits))
                of_node[step.kind] = max(of_node[step.kind], step.after)
        ordered = [name for name in nodes if name in widths]
        return (*self.config.bits, *(str(_rule(name, widths[name])) for name in ordered))


def free_tensors(bench: Bench) -> set[str]:
    """Quantizers whose bits may be raised: none whose bits a rule gives."""
    return set(deciders_of(bench))


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
    config, deciders = bench.config, deciders_of(bench)
    free = [one for one in measured if one.name in deciders]
    costs = costs_of(bench, [one.name for one in free], deciders)
    lost = _noise(free, noisy) if noisy else {one.name: max(one.loss, 0.0) for one in free}
    choices = {
        one.name: _choices(one, costs[one.name], lost[one.name], config, deciders[one.name]) for one in free
    }
    kinds = {one.name: one.kind for one in free}
    steps = [_upwards(rung, kinds[rung.layer]) for rung in ladder(choices)]
    return Climb(tuple(reversed(steps)), deciders, bench.network.model, config)


def _upwards(rung: Rung, kind: Kind) -> Raise:
    return Raise(rung.layer, kind, rung.after, rung.before, rung.saved, rung.added)


def _choices(
    one: Sensitivity, cost: Cost, lost: float, config: QuantizationConfig, deciders: Deciders
) -> dict[int, Choice]:
    """What a tensor costs and does at its bits and all that are more."""
    target = config.runtime()
    asked = one.kind == "weight" and config.weight_bits == 8
    narrowed = asked and one.bits == SAFE_BITS and target.adds_pairs
    now = 8 if narrowed else one.bits
    skipped = set() if target.has_wide_kernels else {WIDE_BITS}
    skipped |= set() if deciders.may_be_float else {FLOAT_BITS}
    skipped |= {3} if target.packed else set()  # they take the bytes of 4
    widths = (now, *(bits for bits in _WIDTHS[one.kind] if bits > now and bits not in skipped))
    # A byte more for each width: a step that takes nothing would be none of the ladder's.
    return {
        bits: Choice(cost.at(bits) + at, 0.0 if bits == FLOAT_BITS else lost / 4 ** (bits - now))
        for at, bits in enumerate(widths)
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


def _rule(name: str, widths: Mapping[Kind, int]) -> BitsRule:
    """The rule that gives a layer its bits; one whose weight is in float is all in float."""
    weights = widths["weight"] or None
    activations = FLOAT_BITS if weights == FLOAT_BITS else widths["activation"]
    return BitsRule(node_pattern(name), weights, activations)
