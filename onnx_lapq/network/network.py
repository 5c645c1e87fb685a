"""A quantized network: its quantizers, the codes of its weights, and what is written at any step sizes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import onnx_ir as ir

from onnx_lapq.evaluation.runner import Point
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.placement.targets import Target
from onnx_lapq.graph.writing.encodings import ActivationEncoding
from onnx_lapq.graph.writing.export import export
from onnx_lapq.graph.writing.qdq import scale_name
from onnx_lapq.graph.writing.segments import Segment
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.network.encoder import Encoder, FixedCodes
from onnx_lapq.network.layers import Layer
from onnx_lapq.network.step_sizes import Steps

__all__ = ["Network", "search_order"]


@dataclass(frozen=True)
class Network:
    """The prepared model and the numbers of its quantizers. It never changes; `with_codes` gives another.

    Attributes:
        model: The prepared float model.
        placement: Its quantizers.
        grids: Codes of the activation quantizers, by site name.
        layers: Weights to quantize, by initializer name.
        encoder: Makes their encodings, and remembers some of them.
        target: The runtime that it is written for.
        codes: Weights whose codes stay at every step size; the others are rounded to nearest.
    """

    model: ir.Model
    placement: Placement
    grids: Mapping[str, Grid]
    layers: Mapping[str, Layer]
    encoder: Encoder
    target: Target
    codes: Mapping[str, FixedCodes] = field(default_factory=dict)

    def with_codes(self, codes: Mapping[str, FixedCodes]) -> Self:
        """The same network with these codes, and no others, fixed."""
        return replace(self, codes=dict(codes))

    def keeping(self, names: Collection[str]) -> Self:
        """The same network with these quantizers, and no others."""
        return replace(
            self,
            placement=replace(
                self.placement,
                weights=tuple(site for site in self.placement.weights if site.name in names),
                activations=tuple(site for site in self.placement.activations if site.name in names),
            ),
        )

    def point(self, steps: Steps) -> Point:
        """The candidate network of given step sizes."""
        scales = {
            site.name: float(np.float32(steps[site.name] if site.step is None else site.step))
            for site in self.placement.activations
        }
        inputs = {name: scales.get(layer.site.input_site or "") for name, layer in self.layers.items()}
        weights = {
            name: self.encoder.encode(name, steps[name], inputs[name], self.codes.get(name))
            for name in self.layers
        }
        return Point(scales, weights)

    def written(self, point: Point) -> ir.Model:
        """The QDQ model of a point."""
        activations = {
            name: ActivationEncoding(
                point.scales[name], grid.zero_point, grid.bits, self.target.signed_activations
            )
            for name, grid in self.grids.items()
        }
        return export(
            self.model,
            self.placement,
            activations,
            point.weights,
            for_onnxruntime=self.target.is_onnxruntime,
        )


def search_order(segments: Sequence[Segment], placement: Placement) -> list[str]:
    """Searched quantizers in topological order."""
    searched = {site.name for site in placement.activations if site.searched}
    searched |= {site.name for site in placement.weights}
    order = dict.fromkeys(name for segment in segments for name in _quantizers(segment) if name in searched)
    return list(order)


def _quantizers(segment: Segment) -> Iterator[str]:
    """Quantizers of a segment, in the order of the nodes that use their scales."""
    scaled = {scale_name(name): name for name in (*segment.weights, *segment.sites)}
    for node in segment.model.graph:
        yield from (scaled[value.name] for value in node.inputs if value is not None and value.name in scaled)
