"""Scale the channels of a Relu6 in front of a depthwise convolution (docs/method.md)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.graph.attributes import float_values
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.equalization_chains import Link, chains, rescale
from onnx_lapq.method.channel_clips import BINS, best_clips, output_error
from onnx_lapq.stages.rewriting.observing import Candidate, held_out

__all__ = ["clipped_values"]

_VALUES = 256
"""Of each channel that are counted in a sample."""
_WINDOWS = 4
"""Of every sample that judges the clips."""
_MOST_BITS = 6
"""Quantizers of more bits cut hardly anything off."""
_GAIN = 0.95
"""Share of the error that clips have to leave at most."""


def clipped_values(model: ir.Model, placement: Placement) -> list[Candidate]:
    """The Relu6 of few bits that a depthwise convolution reads: each channel may have a clip of its own.

    Args:
        model: A prepared model.
        placement: Its quantizers.
    """
    quantizers = Counter(site.value for site in placement.activations)
    sites = {
        site.value: site
        for site in placement.activations
        if site.searched and site.bits <= _MOST_BITS and quantizers[site.value] == 1
    }
    weights = {name: site for site in placement.weights for name in site.layers}
    found: list[Candidate] = []
    for link in (link for chain in chains(model) for link in chain):
        if link.rectifier is None or not 0 < link.maximum < np.inf or not link.second.is_depthwise:
            continue
        own = weights.get(link.first.node.name or "")
        name = link.rectifier.outputs[0].name or ""
        if name in sites and (own is None or own.per_channel):
            found.append(_Clipped(link, name, sites[name].bits))
    return found


@dataclass
class _Clipped:
    """A Relu6 that one depthwise convolution reads through few bits, and its values.

    Attributes:
        link: Where it stands.
        name: Of its output.
        bits: Of its quantizer.
        counts: Histograms of its channels, [channels, BINS].
        rows: What meets the convolution's weights in other samples, [channels, windows, taps] each.
    """

    link: Link
    name: str
    bits: int
    counts: np.ndarray = field(default_factory=lambda: np.zeros((), np.int64))
    rows: list[Float32Array] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [self.name]

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> None:
        """Take in a batch of images, each alone, so that nothing depends on the size of batches."""
        batch = values[self.name]
        if len(batch) != at.stop - at.start:
            return
        for first, judges in enumerate(held_out(at), at.start):
            image = batch[first - at.start :][:1]
            if judges:
                self.rows.append(self.link.second.inputs(image, first, _WINDOWS))
            else:
                self.counts = self.counts + _counted(image, self.link.maximum)

    def scale(self, graph: ir.Graph) -> bool:
        if not self.rows or not self.counts.ndim:
            return False
        second, maximum = self.link.second, self.link.maximum
        rows = np.concatenate(self.rows, axis=1)
        weights = second.rows(float_values(second.weight)).reshape(len(rows), -1, rows.shape[2])
        own = best_clips(self.counts, self.bits)
        one = best_clips(self.counts.sum(axis=0, keepdims=True), self.bits)
        before, after = (output_error(rows, weights, clips * maximum, self.bits) for clips in (one, own))
        if not after < _GAIN * before:
            return False
        rescale(self.link, own.max() / own, np.zeros_like(own), saturates=True)
        return True


def _counted(batch: np.ndarray, maximum: float) -> np.ndarray:
    """Histograms of the channels of images, [channels, BINS], of some values of each; of no NaN."""
    channels = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1)
    # Anywhere: places at equal distances could all lie in the same columns.
    places = np.random.default_rng(0).integers(channels.shape[1], size=_VALUES * len(batch))
    bins = np.minimum(np.nan_to_num(channels[:, places]) * (BINS / maximum), BINS - 1).astype(np.intp)
    bins += BINS * np.arange(len(bins))[:, None]
    return np.bincount(bins.ravel(), minlength=BINS * len(bins)).reshape(-1, BINS)
