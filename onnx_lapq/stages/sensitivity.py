"""What it costs the network when one tensor alone is quantized."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.capture import by_sample, stacked
from onnx_lapq.calibration.samples import subset
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.closeness import OutputScore, compare_outputs, worst
from onnx_lapq.method.parts import Part
from onnx_lapq.network.batching import fixed_batch
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.float_network import run_batches
from onnx_lapq.network.padding import padding_mask
from onnx_lapq.runtime.session import open_session

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
        point, trial = network.point(steps), _Trial(bench, parts)

        def alone(name: str) -> Sensitivity:
            loss, outputs = trial.cost(network.keeping({name}).written(point))
            kind: Kind = "weight" if name in network.layers else "activation"
            lowest = worst(outputs)
            part, decibels = (None, None) if lowest is None else (lowest.row + lowest.label, lowest.lowest_db)
            return Sensitivity(name, kind, bits[name], layers[name], loss, part, decibels, outputs)

        found = []
        with ThreadPoolExecutor(bench.config.threads) as pool:
            for one in pool.map(alone, bits):
                found.append(one)
                tick(len(found))
    return tuple(found), trial.samples


class _Trial:
    """Compares networks with the float one on a part of the samples of a bench."""

    def __init__(self, bench: Bench, parts: Sequence[Part] | None) -> None:
        model = bench.network.model
        self._parts = parts or bench.compared_parts
        self._bench = bench
        self._positions = _spread(bench)
        self._samples = subset(bench.samples, self._positions)
        self._mask = padding_mask(self._samples)
        losses, self._wanted = self._run(model)
        self._loss = float(losses.mean())

    @property
    def samples(self) -> int:
        """Their number."""
        return len(self._samples)

    def cost(self, model: ir.Model) -> tuple[float, tuple[OutputScore, ...]]:
        """Rise of the loss, and closeness of the outputs."""
        losses, outputs = self._run(model)
        return float(losses.mean()) - self._loss, compare_outputs(
            self._parts, self._wanted, outputs, self._mask
        )

    def _run(self, model: ir.Model) -> tuple[FloatArray, dict[str, np.ndarray]]:
        """Losses by sample, and outputs with the samples along the first axis."""
        axes, names = self._bench.captured.axes, self._bench.captured.names
        losses, parts = zip(*self._batches(model, names), strict=True)
        return np.concatenate(losses), {
            name: stacked([by_sample(part[at], axes[name]) for part in parts])
            for at, name in enumerate(names)
        }

    def _batches(
        self, model: ir.Model, names: Sequence[str]
    ) -> Iterator[tuple[FloatArray, list[np.ndarray]]]:
        bench, config = self._bench, self._bench.config
        precise = bench.network.target.needs_precise_kernels
        session = open_session(model, precise=precise, provider=config.provider)
        for at, values in run_batches(session, names, self._samples, bench.batch, 1):
            outputs = [values[name] for name in names]
            yield bench.loss.by_sample(outputs, self._positions[at]), outputs


def _spread(bench: Bench) -> npt.NDArray[np.intp]:
    """Positions of some samples, evenly over the (class-sorted) set, or of all where these are few."""
    total, batch = len(bench.samples), fixed_batch(bench.network.model, bench.samples) or 1
    count = -(-min(max(bench.batch, _LEAST), _MOST) // batch) * batch
    if total <= 2 * count:
        return np.arange(total)
    return np.unique(((np.arange(count) + 0.5) * total / count).astype(np.intp))
