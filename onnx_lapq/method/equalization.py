"""Cross-layer equalization: factors that even out the ranges of channels (Nagel et al. 2019).

A channel between two layers may be scaled by any positive factor if the weights behind it are divided by
it. Along a chain of layers that keep their channels (convolution, depthwise convolution, convolution) there
is one free factor per channel and link. Quantizers with one step size per tensor lose most on channels whose
range is far below that of the tensor, so the factors bring all log ranges of a tensor as near to each other
as they can, in least squares over all tensors of the chain. With two weights and no activation that is the
rule of Nagel et al.: both get the geometric mean of their ranges.
"""

from collections.abc import Sequence

import numpy as np

from onnx_lapq.common.arrays import FloatArray

__all__ = ["equalizing_factors"]


_DEAD = 1e-3
"""Channels whose range is below this share of the largest matter to nobody and ask for no factor."""


def equalizing_factors(
    weights: Sequence[FloatArray],
    activations: Sequence[FloatArray],
    weight_shares: Sequence[float],
    activation_share: float,
) -> list[FloatArray]:
    """Factors on the channels of every link of a chain.

    Args:
        weights: Ranges of the weights' channels, float64 [C] each: of the rows of the first layer, of the
            channels of those in between, of the columns of the last one.
        activations: Ranges of the channels between them, one fewer.
        weight_shares: How much each weight counts, >= 0.
        activation_share: How much each activation counts, >= 0; not all may be 0.

    Returns:
        float64 [C] for each link, positive, of geometric mean 1.
    """
    links = len(activations)
    system = np.eye(links) * (activation_share + 1e-9)
    target = np.stack([-activation_share * _log_ranges(ranges) for ranges in activations])
    for layer, (ranges, share) in enumerate(zip(weights, weight_shares, strict=True)):
        logs = share * _log_ranges(ranges)
        if layer < links:  # the factor of the link behind multiplies it
            system[layer, layer] += share
            target[layer] -= logs
        if layer > 0:  # that of the link before divides it
            system[layer - 1, layer - 1] += share
            target[layer - 1] += logs
        if 0 < layer < links:
            system[layer, layer - 1] -= share
            system[layer - 1, layer] -= share
    return list(np.exp(np.linalg.solve(system, target)))


def _log_ranges(ranges: FloatArray) -> FloatArray:
    """Logarithms about their mean; 0 for dead channels."""
    alive = ranges > _DEAD * float(ranges.max(initial=0.0))
    logs = np.log(ranges, where=alive, out=np.zeros_like(ranges))
    return np.where(alive, logs - logs[alive].mean(), 0.0) if alive.any() else logs
