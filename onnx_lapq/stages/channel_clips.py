"""Scale the channels of a Relu6 in front of a depthwise convolution (docs/method.md)."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.sites import ActivationSite, Placement
from onnx_lapq.graph.rewriting.equalization_chains import Link, chains, rescale
from onnx_lapq.method.channel_clips import BINS, clip_factors
from onnx_lapq.network.batching import small_batch, some_samples
from onnx_lapq.network.float_network import float_runs

__all__ = ["clip_channels"]

_SAMPLES = 64
_VALUES = 256
"""Of each channel that are counted in a sample."""
_MOST_BITS = 6
"""Quantizers of more bits cut hardly anything off."""


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
    found = _links(model, placement)
    if not found:
        return 0
    few = some_samples(model, samples, _SAMPLES)
    runs = float_runs(model, few, small_batch(model, few), config.threads, config.provider)
    counts: dict[str, np.ndarray] = {}
    for _, values in runs(list(found)):
        for name, batch in values.items():
            counts[name] = counts.get(name, 0) + _counted(batch, found[name][0].maximum)
    scaled = 0
    for name, (link, site) in found.items():
        factors = clip_factors(counts[name], site.bits)
        if (factors > 1).any():
            rescale(link, factors, np.zeros_like(factors), saturates=True)
            scaled += 1
    return scaled


def _links(model: ir.Model, placement: Placement) -> Mapping[str, tuple[Link, ActivationSite]]:
    """The Relu6 that one depthwise convolution reads through few bits, by the name of its output."""
    sites = {site.value: site for site in placement.activations if site.searched and site.bits <= _MOST_BITS}
    weights = {name: site for site in placement.weights for name in site.layers}
    found = {}
    for link in (link for chain in chains(model) for link in chain):
        if link.rectifier is None or not np.isfinite(link.maximum) or not link.second.is_depthwise:
            continue
        own = weights.get(link.first.node.name or "")
        name = link.rectifier.outputs[0].name or ""
        if name in sites and (own is None or own.per_channel):
            found[name] = link, sites[name]
    return found


def _counted(batch: np.ndarray, maximum: float) -> np.ndarray:
    """Histograms of the channels of images, [channels, BINS], of some values of each; of no NaN."""
    channels = np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1)
    apart = max(channels.shape[1] // (_VALUES * len(batch)), 1)
    bins = np.minimum(np.nan_to_num(channels[:, ::apart]) * (BINS / maximum), BINS - 1).astype(np.intp)
    bins += BINS * np.arange(len(bins))[:, None]
    return np.bincount(bins.ravel(), minlength=BINS * len(bins)).reshape(-1, BINS)
