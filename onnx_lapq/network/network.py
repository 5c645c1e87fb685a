"""A network ready for the search: its quantizers, their codes, and its loss at any step sizes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.evaluation.protocols import Evaluator
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.placement.targets import Target
from onnx_lapq.graph.writing.encodings import ActivationEncoding
from onnx_lapq.graph.writing.export import export
from onnx_lapq.graph.writing.segments import Segment
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.network.layers import Encoder, Layer
from onnx_lapq.network.step_sizes import Steps

__all__ = ["Network", "Objective", "search_order"]


@dataclass(frozen=True)
class Network:
    """The prepared model and the numbers of its quantizers.

    Attributes:
        model: The prepared float model.
        placement: Its quantizers.
        grids: Codes of the activation quantizers, by site name.
        layers: Weights to quantize, by initializer name.
        encoder: Remembers their encodings.
        target: The runtime that it is written for.
    """

    model: ir.Model
    placement: Placement
    grids: Mapping[str, Grid]
    layers: Mapping[str, Layer]
    encoder: Encoder
    target: Target

    def point(self, steps: Steps) -> Point:
        """The candidate network of given step sizes."""
        scales = {name: float(np.float32(steps[name])) for name in self.grids}
        inputs = {name: scales.get(layer.site.input_site or "") for name, layer in self.layers.items()}
        return Point(
            scales, {name: self.encoder.encode(name, steps[name], inputs[name]) for name in self.layers}
        )

    def written(self, point: Point) -> ir.Model:
        """The QDQ model of a point."""
        activations = {
            name: ActivationEncoding(
                point.scales[name], grid.zero_point, grid.bits, self.target.signed_activations
            )
            for name, grid in self.grids.items()
        }
        return export(self.model, self.placement, activations, point.weights)


def search_order(segments: Sequence[Segment], placement: Placement) -> list[str]:
    """Searched quantizers in topological order, so that a sweep re-runs as little as possible."""
    searched = {site.name for site in placement.activations if site.searched}
    searched |= {site.name for site in placement.weights}
    order = dict.fromkeys(name for segment in segments for name in _quantizers(segment) if name in searched)
    return list(order)


def _quantizers(segment: Segment) -> Iterator[str]:
    """Quantizers of a segment: input scales (known from the segments before), weights, output scale."""
    yield from segment.weights
    yield from segment.sites


class Objective:
    """The loss that the search minimises, as a function of the searched step sizes.

    A vector holds one number per searched quantizer: its step size, or for a per-channel weight the
    median of its step sizes, which then all move by the same factor.

    Args:
        network: The network.
        evaluator: Gives per-sample losses at a point.
        start: Step sizes of all quantizers.
        order: Names of the searched ones.
        limits: Largest step size of each searched quantizer.
        guard: Positions of the samples that only guard.
    """

    def __init__(
        self,
        network: Network,
        evaluator: Evaluator,
        start: Steps,
        order: Sequence[str],
        limits: FloatArray,
        guard: npt.NDArray[np.intp],
    ) -> None:
        self.start = np.array([np.median(start[name]) for name in order])
        self._network = network
        self._evaluator = evaluator
        self._steps = start
        self._order = list(order)
        self._limits = limits
        self._guard = guard
        self._last: FloatArray = np.empty(0)

    def __call__(self, vector: FloatArray) -> float:
        """Mean loss over the search samples at a vector of step sizes."""
        self._last = self._evaluator.losses(self._network.point(self.steps(vector)))
        return float(np.delete(self._last, self._guard).mean())

    def guard(self) -> FloatArray:
        """Losses of the guard samples at the vector evaluated last, float64 [guard samples]."""
        return self._last[self._guard]

    def steps(self, vector: FloatArray) -> Steps:
        """Step sizes of all quantizers at a vector."""
        steps = dict(self._steps)
        for name, value, start in zip(self._order, np.minimum(vector, self._limits), self.start, strict=True):
            steps[name] = steps[name] * (value / start)
        return steps
