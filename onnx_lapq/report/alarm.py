"""What is bad about a quantized model, which tensors cost most, and the command that would help: one line."""

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import onnx_ir as ir

from onnx_lapq.evaluation.runner import Point
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.placement.options import BLOCK_BITS, as_flags, node_pattern
from onnx_lapq.graph.placement.sites import MANY_BITS
from onnx_lapq.method.closeness import OutputScore
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.trial import Trial
from onnx_lapq.report.tensors import fidelities
from onnx_lapq.stages.found import Found

__all__ = ["Trouble", "alarm", "trouble"]

_BAD_DB = 10.0
"""Below it, the error of a part has more than a tenth of the part's power."""
_BAD_AGREEMENT = 0.9
_BAD_LOSS = 0.25
_TRIED = 12
"""Tensors that are tried out, weights and activations in turn, those of the lowest SNR of their own."""
_SECONDS = 20
_NAMED = 3
_HELPS_DB = 0.5
_WORTH_DB = 2.0
"""What the tensors of a command gain together, or the first of them, at least."""
_WORTH_SHARE = 1 / 3
"""Of the largest gain: tensors of the command gain as much alone, at least."""


@dataclass(frozen=True)
class Trouble:
    """What is bad about a model.

    Attributes:
        said: In words.
        score: The part that they are about; None where they are about the loss.
    """

    said: str
    score: OutputScore | None = None


def trouble(outputs: Sequence[OutputScore], bench: Bench, found: Found) -> Trouble | None:
    """What is bad, the worst first; None where nothing is."""
    return next(iter((*_bad_parts(outputs), *_bad_loss(bench, found))), None)


def alarm(what: str, bench: Bench, found: Found, trial: Trial) -> str:
    """A sentence on what is bad, the tensors that cost most, and the command that would help.

    Each of a few tensors is left in float, one at a time, and those of the command together.

    Args:
        what: What is bad.
        bench: The network.
        found: Its step sizes.
        trial: Some samples, and the one part of the outputs to look at.
    """
    point = bench.network.point(found.steps)
    before = _decibels(trial, bench.network.written(point))

    def gain(names: Sequence[str]) -> float:
        without = bench.network.keeping(bench.network.placement.bits_by_name.keys() - set(names))
        return _decibels(trial, without.written(point)) - before

    gains = _gains(_suspects(bench, found, point), gain)
    first = sorted((name for name in gains if gains[name] > _HELPS_DB), key=lambda name: -gains[name])[
        :_NAMED
    ]
    if not first:
        return f"{what}, and no tensor alone is at fault; {_for_all(bench)}"
    costs = ", ".join(f"{name!r} ({gains[name]:+.1f} dB without)" for name in first)
    if gains[first[0]] < _WORTH_DB and not gain(first) >= _WORTH_DB:
        return f"{what}; most is lost by {costs}, but all of it by many; {_for_all(bench)}"
    helping = [name for name in first if gains[name] >= _WORTH_SHARE * gains[first[0]]]
    return f"{what}; most is lost by {costs}; {_command(bench, helping)}"


def _bad_parts(outputs: Sequence[OutputScore]) -> Iterator[Trouble]:
    for score in sorted(outputs, key=lambda one: one.lowest_db):
        if score.lowest_db < _BAD_DB:
            kept = f"{score.lowest_db:.1f} dB on calibration samples"
            yield Trouble(f"{score.row}output {score.label!r} keeps only {kept}", score)
    for score in outputs:
        if score.agreement is not None and score.agreement < _BAD_AGREEMENT:
            shown = (
                f"{100 * score.agreement:.0f} %" if score.loss != "direction" else f"{score.agreement:.2f}"
            )
            said = (
                f"output {score.label!r} agrees to only {shown} with the float model on calibration samples"
            )
            yield Trouble(said, score)


def _bad_loss(bench: Bench, found: Found) -> Iterator[Trouble]:
    guard, before = found.stages[-1].guard_loss, found.stages[0].guard_loss
    flat = bench.loss.flat
    if guard is None or before is None or flat is None or flat <= before:
        return
    share = (guard - before) / (flat - before)
    if share > _BAD_LOSS:
        yield Trouble(f"the guard loss is {share:.0%} of that of outputs that say nothing of the input")


def _gains(suspects: Sequence[str], gain: Callable[[Sequence[str]], float]) -> dict[str, float]:
    """Decibels that the part gains where one tensor alone stays in float, by quantizer."""
    started, gains = time.monotonic(), {}
    for name in suspects:
        gains[name] = gain([name])
        if time.monotonic() - started > _SECONDS:
            break
    return {name: decibels for name, decibels in gains.items() if np.isfinite(decibels)}


def _decibels(trial: Trial, model: ir.Model) -> float:
    """SNR of the only part of a trial, or of its worst row."""
    _, (score,) = trial.compare(model)
    return score.lowest_db


def _suspects(bench: Bench, found: Found, point: Point) -> list[str]:
    """Searched quantizers of the lowest SNR of their own.

    Weights and activations take turns: what is left of a weight says little of what compensated rounding
    makes of its layer.
    """
    own = fidelities(bench, found.steps, point)
    snr = {name: own[name].snr_db for name in bench.order}
    lowest = sorted(snr, key=lambda name: np.inf if (value := snr[name]) is None else value)
    kinds = [
        [name for name in lowest if (name in bench.network.layers) == weight] for weight in (True, False)
    ]
    return [name for pair in zip_longest(*kinds) for name in pair if name is not None][:_TRIED]


def _command(bench: Bench, names: Sequence[str]) -> str:
    """Options that give the layers of these tensors 8 bits, or leave them in float where they have those."""
    placement = bench.network.placement
    few = [name for name in names if placement.bits_by_name[name] < MANY_BITS]
    layers = dict.fromkeys(layer for name in few or names for layer in _layers(bench, name))
    if few:  # the bits of a tensor are those of the layers that read it
        bits = "8" if placement.activations else "w8"
        return f"try {as_flags([f'{node_pattern(layer)}={bits}' for layer in [*layers][: 2 * _NAMED]])}"
    on_codes = set(placement.layers) - {node.name for node in placement.in_float}
    left = [layer for layer in layers if layer in on_codes]
    if not left or len(left) == len(on_codes):  # nothing would be left
        return _for_all(bench)
    patterns = [node_pattern(layer) for layer in left][: 2 * _NAMED]
    return f"try --exclude {shlex.quote(','.join(patterns))}"


def _layers(bench: Bench, name: str) -> list[str]:
    """The layers that a quantizer goes with: those that read it, and the one whose output it is."""
    placement, model = bench.network.placement, bench.network.model
    readers = placement.layers_of(model)[name]
    values = {site.name: site.value for site in placement.activations}
    if name not in values:
        return list(readers)
    graph = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    writer = _writer(graph[values[name]], placement.layers)
    return [*readers, *([writer] if writer in placement.layers else [])]


def _writer(value: ir.Value | None, layers: Sequence[str]) -> str | None:
    """The layer that gives a value, through nodes with one input that is no constant."""
    node = None if value is None else value.producer()
    if node is None or node.name in layers:
        return node.name if node is not None else None
    varying = [one for one in node.inputs if one is not None and constant(one) is None]
    return _writer(varying[0], layers) if len(varying) == 1 else None


def _for_all(bench: Bench) -> str:
    """What would help where many tensors are at fault: the next bits of those that have few."""
    placement, block = bench.network.placement, bench.config.group_size
    weights = min((site.bits for site in placement.weights), default=MANY_BITS)
    activations = min((site.bits for site in placement.activations), default=MANY_BITS)
    if weights >= MANY_BITS and activations >= MANY_BITS:
        return "try more samples, or samples more like the real ones"
    if block:
        return "try -w 4" if weights < BLOCK_BITS else "try smaller groups, or -w 8 without groups"
    is_wider = {8: True, 4: weights < 4 or (weights == 4 and activations < MANY_BITS)}
    own = max(bench.config.activation_bits, 8)
    such = " or ".join(f"-w {bits} -a {own}" for bits, wider in is_wider.items() if wider)
    return f"try more bits, such as {such}, or find them by --min-snr 10 --promote"
