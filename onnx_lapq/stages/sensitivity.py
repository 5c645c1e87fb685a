"""What it costs the network when one tensor alone is quantized."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.balancing import evenly
from onnx_lapq.method.closeness import OutputScore, worst
from onnx_lapq.method.parts import Part
from onnx_lapq.network.batching import fixed_batch
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.trial import Trial

__all__ = ["Kind", "Sensitivity", "measure_alone"]

Kind = Literal["weight", "activation"]

_LEAST, _MOST = 8, 32
"""Samples that tensors are compared on: as many as run together, within these; at most twice as many."""
_P = 2.5
"""Exponent of the layer-wise step sizes that tensors are compared at."""


@dataclass(frozen=True)
class Sensitivity:
    """What it costs when one tensor alone is quantized, and all else is in float.

    Attributes:
        name: The quantizer: an initializer or an activation.
        kind: Of which of the two.
        bits: Its bits.
        layers: The layers that read it, whose bits it has; none where it lies between other nodes.
        loss: Rise of the loss over that of the float network, mean over the samples.
        worst_part: The output, or part or row of one, that keeps least; None where nothing differs.
        worst_db: Its signal-to-noise ratio.
        outputs: Closeness of every part of the outputs that was looked at.
    """

    name: str
    kind: Kind
    bits: int
    layers: tuple[str, ...]
    loss: float
    worst_part: str | None
    worst_db: float | None
    outputs: tuple[OutputScore, ...]


def measure_alone(
    bench: Bench, names: Collection[str] | None = None, parts: Sequence[Part] | None = None
) -> tuple[tuple[Sensitivity, ...], int]:
    """Quantize each tensor alone, in plain onnxruntime on a few samples.

    Weights are rounded to nearest, and step sizes are layer-wise.

    Args:
        bench: The network; its clock is told of the phase ``sensitivity``.
        names: Quantizers; None for all.
        parts: What to look at in the outputs; None for what the loss would look at.

    Returns:
        Weights, then activations, in topological order, and the number of samples.
    """
    placement = replace(bench.network.placement, wide=())
    network = replace(bench.network.with_codes({}), placement=placement)
    layers = placement.layers_of(network.model)
    bits = {name: width for name, width in placement.bits_by_name.items() if names is None or name in names}
    with bench.clock.phase("sensitivity", len(bits)) as tick:
        (steps,) = bench.layerwise.for_p([_P], lambda done: None)
        positions = _positions(bench)
        point, trial = network.point(steps), Trial(bench, positions, parts or bench.compared_parts)

        def alone(name: str) -> Sensitivity:
            loss, outputs = trial.compare(network.keeping({name}).written(point))
            kind: Kind = "weight" if name in network.layers else "activation"
            lowest = worst(outputs)
            part, decibels = (None, None) if lowest is None else (lowest.row + lowest.label, lowest.lowest_db)
            return Sensitivity(name, kind, bits[name], layers[name], loss, part, decibels, outputs)

        found = []
        with ThreadPoolExecutor(bench.config.threads) as pool:
            for one in pool.map(alone, bits):
                found.append(one)
                tick(len(found))
    return tuple(found), len(positions)


def _positions(bench: Bench) -> npt.NDArray[np.intp]:
    """Positions of some samples, spread evenly, or of all where these are few."""
    total, batch = len(bench.samples), fixed_batch(bench.network.model, bench.samples) or 1
    count = -(-min(max(bench.sizes.plain, _LEAST), _MOST) // batch) * batch
    return evenly(total, total if total <= 2 * count else count)
