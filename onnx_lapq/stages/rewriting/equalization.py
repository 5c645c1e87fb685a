"""Even out the channels of a float network before it is quantized (Nagel et al. 2019)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.common.versions import library_version
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.rewriting.equalization_chains import (
    Link,
    chains,
    input_ranges,
    output_ranges,
    rescale,
)
from onnx_lapq.method.equalization import equalizing_factors
from onnx_lapq.network.float_network import FloatRuns, float_runs
from onnx_lapq.runtime.requirements import has_integer_minimum

__all__ = ["equalization_hints", "equalize"]

logger = logging.getLogger(__name__)

_ACTIVATION_SHARE = 0.5
"""How much an activation counts beside a weight of as many bits."""
_MARGIN = 0.125
"""Share of a channel's range that stays between the bias taken off and the lowest value seen."""


@dataclass
class _Extremes:
    """Lowest and highest values of the channels of a link, [channels]."""

    low: FloatArray
    high: FloatArray


def equalize(model: ir.Model, samples: Samples, config: QuantizationConfig) -> int:
    """Scale channels between layers, and move biases that are always high to the next layer, in place.

    What the network computes stays the same, but for moved biases: where a channel falls below everything
    that it did on the calibration samples, by more than an eighth of its range, it is cut off there.

    Args:
        model: A prepared model.
        samples: The calibration set.
        config: Bits and scales of its weights and activations.

    Returns:
        The number of links whose channels were scaled.
    """
    every = chains(model)
    found = [chain for chain in every if _takes_part(chain, config)]
    if len(found) < len(every) and config.runtime().low_bit_activations:
        logger.warning("layers around a Relu6 keep their channels: limits of channels need onnxruntime 1.24")
    runs = float_runs(model, samples, None, config.threads, config.provider)
    extremes = _extremes([link for chain in found for link in chain], runs)
    bits = min(config.weight_bits, 8) - min(config.activation_bits, 8)
    activation_share = _ACTIVATION_SHARE * 2.0**bits
    row_share = 0.0 if config.placement_options().per_channel else 1.0
    for chain in found:
        lowered = [_lowered(link, extremes[link.value]) for link in chain]
        factors = equalizing_factors(
            [*(output_ranges(link.first) for link in chain), input_ranges(chain[-1].second)],
            [_range(link, extremes[link.value], by) for link, by in zip(chain, lowered, strict=True)],
            [row_share] * len(chain) + [1.0],
            activation_share,
        )
        for link, by, factor in zip(chain, lowered, factors, strict=True):
            rescale(link, factor, by)
    return sum(len(chain) for chain in found)


def equalization_hints(model: ir.Model, config: QuantizationConfig) -> list[str]:
    """A sentence for a network that even channels are likely to help; none for others, and where they are.

    Args:
        model: A prepared model.
        config: Options of the run.
    """
    if config.equalize or config.placement_options().per_channel or config.placement != "integer":
        return []
    links = [link for chain in chains(model) if _takes_part(chain, config) for link in chain]
    if not any(link.first.is_depthwise or link.second.is_depthwise for link in links):
        return []
    return ["one scale per tensor loses most around depthwise convolutions; try --equalize, or --per-channel"]


def _takes_part(chain: Sequence[Link], config: QuantizationConfig) -> bool:
    """Whether the target and this machine's onnxruntime take limits per channel, where a chain needs them."""
    if not _is_limited(chain):
        return True
    return config.runtime().low_bit_activations and has_integer_minimum(library_version("onnxruntime"))


def _is_limited(chain: Sequence[Link]) -> bool:
    return any(np.isfinite(link.maximum) for link in chain)


def _extremes(links: Sequence[Link], run_float: FloatRuns) -> dict[str, _Extremes]:
    found: dict[str, _Extremes] = {}
    for _, values in run_float([link.value for link in links]) if links else ():
        for name, batch in values.items():
            axes = tuple(axis for axis in range(batch.ndim) if axis != 1)
            low, high = (reduce(axis=axes).astype(np.float64) for reduce in (batch.min, batch.max))
            if name in found:
                low, high = np.minimum(low, found[name].low), np.maximum(high, found[name].high)
            found[name] = _Extremes(low, high)
    return found


def _lowered(link: Link, seen: _Extremes) -> FloatArray:
    """What every channel of a link has to spare below its lowest value, [channels]."""
    if link.second.sees_padding or not link.is_rectified:
        return np.zeros_like(seen.low)
    spare = seen.low - _MARGIN * (seen.high - seen.low)
    return np.clip(spare, 0.0, link.maximum)


def _range(link: Link, seen: _Extremes, lowered: FloatArray) -> FloatArray:
    """Range of what the second layer reads, [channels]."""
    high = np.minimum(seen.high, link.maximum) - lowered
    low = np.zeros_like(high) if link.is_rectified else -seen.low
    return np.maximum(np.maximum(high, low), 0.0)
