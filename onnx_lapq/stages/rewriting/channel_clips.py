"""Scale the channels of a Relu6 in front of a depthwise convolution (docs/method.md)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.attributes import float_values
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.rewriting.equalization_chains import Link, chains, rescale
from onnx_lapq.method.channel_clips import BINS, best_clips, output_error
from onnx_lapq.network.batching import fixed_batch, some_samples
from onnx_lapq.network.float_network import float_runs
from onnx_lapq.stages.rewriting.observing import SAMPLES, held_out

__all__ = ["clip_channels"]

_VALUES = 256
"""Of each channel that are counted in a sample."""
_WINDOWS = 4
"""Of every sample that judges the clips."""
_MOST_BITS = 6
"""Quantizers of more bits cut hardly anything off."""
_GAIN = 0.95
"""Share of the error that clips have to leave at most."""


@dataclass
class _Seen:
    """A Relu6 that one depthwise convolution reads through few bits, and its values.

    Attributes:
        link: Where it stands.
        bits: Of its quantizer.
        counts: Histograms of its channels, [channels, BINS].
        rows: What meets the convolution's weights in other samples, [channels, windows, taps] each.
    """

    link: Link
    bits: int
    counts: np.ndarray = field(default_factory=lambda: np.zeros((), np.int64))
    rows: list[Float32Array] = field(default_factory=list)

    def look(self, batch: np.ndarray, first: int) -> None:
        """Take in a batch of images, whose first sample has this number."""
        judges = held_out(slice(first, first + len(batch)))
        if not judges.all():
            self.counts = self.counts + _counted(batch[~judges], self.link.maximum)
        if judges.any():
            self.rows.append(self.link.second.inputs(batch[judges], first, _WINDOWS))

    def clip(self) -> bool:
        """Give every channel its clip, and say so, where that brings the outputs nearer to float."""
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


def clip_channels(model: ir.Model, placement: Placement, samples: Samples, config: QuantizationConfig) -> int:
    """Give every channel of a Relu6 of few bits a clip of its own, where a depthwise convolution reads it.

    What the float network computes stays the same.

    Args:
        model: A prepared model; changed in place.
        placement: Its quantizers.
        samples: The calibration set.
        config: Options of the run.

    Returns:
        The number of values whose channels were scaled.
    """
    found = _few_bits(model, placement)
    if not found:
        return 0
    few = some_samples(model, samples, SAMPLES)
    runs = float_runs(model, few, fixed_batch(model, few) or 1, config.threads, config.provider)
    for where, values in runs(list(found)):
        for name, batch in values.items():
            found[name].look(batch, where.start)
    return sum(seen.clip() for seen in found.values())


def _few_bits(model: ir.Model, placement: Placement) -> Mapping[str, _Seen]:
    """All such Relu6, by the names of their outputs."""
    quantizers = Counter(site.value for site in placement.activations)
    sites = {
        site.value: site
        for site in placement.activations
        if site.searched and site.bits <= _MOST_BITS and quantizers[site.value] == 1
    }
    weights = {name: site for site in placement.weights for name in site.layers}
    found = {}
    for link in (link for chain in chains(model) for link in chain):
        if link.rectifier is None or not 0 < link.maximum < np.inf or not link.second.is_depthwise:
            continue
        own = weights.get(link.first.node.name or "")
        name = link.rectifier.outputs[0].name or ""
        if name in sites and (own is None or own.per_channel):
            found[name] = _Seen(link, sites[name].bits)
    return found


def _counted(batch: np.ndarray, maximum: float) -> np.ndarray:
    """Histograms of the channels of images, [channels, BINS], of some values of each; of no NaN."""
    channels = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1)
    # Anywhere: places at equal distances could all lie in the same columns.
    places = np.random.default_rng(0).integers(channels.shape[1], size=_VALUES * len(batch))
    bins = np.minimum(np.nan_to_num(channels[:, places]) * (BINS / maximum), BINS - 1).astype(np.intp)
    bins += BINS * np.arange(len(bins))[:, None]
    return np.bincount(bins.ravel(), minlength=BINS * len(bins)).reshape(-1, BINS)
