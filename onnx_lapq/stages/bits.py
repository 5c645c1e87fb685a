"""Mixed precision: bits per weight from its measured share in the loss, within a budget of bytes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.saving import describe_model
from onnx_lapq.graph.writing.encodings import WeightEncoding
from onnx_lapq.graph.writing.packing import TABLE_BYTES, packed_bytes, unpacking_bytes
from onnx_lapq.method.allocation import Choice, Rung, ladder
from onnx_lapq.method.losses import CustomLoss
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.network.bench import Bench, set_up
from onnx_lapq.network.encoder import Encoder
from onnx_lapq.network.layers import Layer
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import LayerwiseSteps
from onnx_lapq.progress import Clock, Ticker
from onnx_lapq.stages.found import Found, Ladder

__all__ = ["choose_bits", "chosen_bits"]

_WIDTHS = (2, 4, 8)
"""Bits that weights are tried at; 3 take as many bytes as 4."""
_P = 2.5
"""Exponent of the layer-wise step sizes that layers are compared at."""
_BOUND = 0.01
"""Loss that automatic bits may add, by the measured shares."""
_STAMP_BYTES = 3072
"""Room for the record of the options in the file."""
_RULE_BYTES = 20
"""Of the rule that gives a weight its bits, without the name, in the record of the options."""


def choose_bits(
    prepared: ir.Model,
    samples: Samples,
    config: QuantizationConfig,
    float_bytes: int,
    clock: Clock,
    found: Found,
    loss: CustomLoss | None = None,
) -> Found:
    """Choose for every weight the bits that its share in the loss is worth, where the options ask for it.

    Each weight in turn is rounded to nearest at fewer bits, with all others at the widest, and the network's
    loss is measured. Weights whose bits the options fix keep them.

    Args:
        prepared: The prepared float model.
        samples: The calibration set.
        config: Options; ``weight_bits`` is the widest width.
        float_bytes: Size of the float model.
        clock: Told of the phases ``calibrate`` and ``bits``.
        found: What an interrupted run has found, or nothing yet.
        loss: The caller's own, instead of ``config.loss``.

    Raises:
        ConfigError: The smallest file is above the budget.
    """
    if not config.chooses_bits or found.ladder is not None:
        return found
    placement = place(prepared, config.placement_options())
    nearest = replace(config, rounding="nearest")
    bench = set_up(prepared, placement, samples, nearest, clock, loss, found.evaluations)
    free = _free_sites(prepared, placement, config)
    with clock.phase("bits", len(free) * len(_widths(config))) as tick:
        (steps,) = bench.layerwise.for_p([_P], lambda done: None)
        point = bench.network.point(steps)
        measured = dict(_measure(bench, free, point, config, tick))
    layers = bench.network.layers.values()
    saved = sum(layer.values.size - _bytes(layer, layer.site.bits) for layer in layers)
    unpacked = describe_model(bench.network.written(point)).bytes
    widest = unpacked - saved + _STAMP_BYTES + TABLE_BYTES
    budget = None if config.size_budget is None else int(config.size_budget * float_bytes)
    size, rungs = _descend(measured, widest, budget)
    chosen = Ladder(budget, size, bench.evaluations - found.evaluations, rungs)
    return replace(found, ladder=chosen, evaluations=bench.evaluations)


def chosen_bits(found: Found) -> dict[str, int]:
    """Bits of the weights that got fewer than the options say, by initializer name."""
    return {} if found.ladder is None else {rung.layer: rung.after for rung in found.ladder.rungs}


def _widths(config: QuantizationConfig) -> list[int]:
    return [bits for bits in _WIDTHS if bits < config.weight_bits]


def _free_sites(model: ir.Model, placement: Placement, config: QuantizationConfig) -> list[str]:
    """Weights whose bits the options leave to ``weight_bits``."""
    narrow = replace(config.placement_options(), weight_bits=min(_WIDTHS))
    least = {site.name: site.bits for site in place(model, narrow).weights}
    return [site.name for site in placement.weights if least[site.name] != site.bits]


def _measure(
    bench: Bench, free: list[str], point: Point, config: QuantizationConfig, tick: Ticker
) -> Iterator[tuple[str, dict[int, Choice]]]:
    """What every weight costs at every width, all others at the widest."""
    network = bench.network
    widest = float(bench.evaluator.losses(point).mean())
    for done, name in enumerate(free):
        layer = network.layers[name]
        choices = {layer.site.bits: Choice(_bytes(layer, layer.site.bits), widest)}
        for number, bits in enumerate(_widths(config), start=1):
            narrow = replace(layer, site=replace(layer.site, bits=bits), grid=Grid(bits=bits, signed=True))
            encoding = _nearest(narrow, network, point.scales.get(layer.site.input_site or ""))
            losses = bench.evaluator.losses(replace(point, weights={**point.weights, name: encoding}))
            choices[bits] = Choice(_bytes(layer, bits), float(losses.mean()))
            tick(len(_widths(config)) * done + number)
        yield name, choices


def _nearest(layer: Layer, network: Network, input_scale: float | None) -> WeightEncoding:
    name = layer.site.name
    (steps,) = LayerwiseSteps([], {}, {}, {name: layer}, 1).for_p([_P], lambda done: None)
    return Encoder({name: layer}, network.target).encode(name, steps[name], input_scale)


def _bytes(layer: Layer, bits: int) -> int:
    """Bytes of a weight in the file: its codes, and where these are packed, the nodes that unpack them."""
    size, name = layer.values.size, layer.site.name
    unpacking = unpacking_bytes(size, bits, name)
    return packed_bytes(size, bits) + (unpacking + _RULE_BYTES + len(name) if unpacking else 0)


def _descend(
    measured: Mapping[str, Mapping[int, Choice]], size: int, budget: int | None
) -> tuple[int, tuple[Rung, ...]]:
    """The bytes that are left and the steps down to the budget, or as far as the bound on the loss allows."""
    taken: list[Rung] = []
    for rung in ladder(measured):
        if size <= budget if budget is not None else rung.loss > _BOUND:
            break
        taken.append(rung)
        size -= rung.saved
    if budget is None:
        return size, tuple(taken)
    if size > budget:
        raise ConfigError(
            f"size_budget allows {budget} bytes, but the fewest bits take {size}; allow more, or "
            "free the first and last layers with --first-last same"
        )
    return _without_needless(taken, size, budget)


def _without_needless(rungs: list[Rung], size: int, budget: int) -> tuple[int, tuple[Rung, ...]]:
    """Take back, the last ones first, steps that a later and larger one has made needless."""
    kept: list[Rung] = []
    for rung in reversed(rungs):
        if size + rung.saved <= budget and all(rung.layer != later.layer for later in kept):
            size += rung.saved
        else:
            kept.append(rung)
    total, steps = 0.0, []
    for rung in reversed(kept):
        total += rung.added
        steps.append(replace(rung, loss=total))
    return size, tuple(steps)
