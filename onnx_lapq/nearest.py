"""Where a search with nearest rounding starts from: KLD's step sizes and multiples of the best compete.

Rounded to nearest, weights mostly want larger step sizes than those of the activations' p, and these smaller
ones; KLD's differ from those of every p (measured: docs/results.md).
"""

import math
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import numpy.typing as npt

from onnx_lapq.method.kld import kld_step_size
from onnx_lapq.network import Network
from onnx_lapq.start import LayerwiseSteps, Steps

__all__ = ["coarse", "nearest_candidates", "nearest_start"]

FloatArray = npt.NDArray[np.float64]

_COARSE_BITS = 7
"""Tensors of fewer bits have step sizes that depend much on p; ``ort-x86`` gives 8-bit weights 7."""
_FACTORS = {"weights": (1.0, 1.1, 1.2, 1.35, 1.5), "activations": (0.7, 0.8, 0.9, 1.0, 1.1)}
"""Where the best factors lay, with room around them (measured: docs/results.md)."""


def nearest_start(
    network: Network,
    layerwise: LayerwiseSteps,
    steps: Steps,
    losses: FloatArray,
    measure: Callable[[str, Steps], FloatArray],
) -> tuple[Steps, FloatArray]:
    """The given step sizes or KLD's, or multiples of the better of the two.

    Multiples are many, and the lowest loss of many is low by chance: they have to lower it by more than one
    standard error (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).

    Args:
        network: The network.
        layerwise: Gives KLD's step sizes.
        steps: Step sizes of all quantizers, by the parabola over p.
        losses: Their loss by sample, float64 [samples].
        measure: The loss by sample of a candidate, given its name.

    Returns:
        Step sizes of all quantizers, and their loss by sample.
    """
    kld = layerwise.chosen_by(kld_step_size, lambda done: None)
    found = measure("kld", kld)
    if found.mean() < losses.mean():
        steps, losses = kld, found
    best, least = steps, losses
    for factors in _factors(network):
        candidate = {
            name: np.minimum(step, layerwise.limit(name))
            for name, step in _scaled(network, steps, factors).items()
        }
        found = measure(", ".join(f"{kind} x {factor:g}" for kind, factor in factors.items()), candidate)
        if found.mean() < least.mean() and _lower(found, losses):
            best, least = candidate, found
    return best, least


def nearest_candidates(network: Network) -> int:
    """How many candidates `nearest_start` measures."""
    return 1 + len(_factors(network))


def coarse(network: Network) -> dict[str, list[str]]:
    """Names of the quantizers of few bits, by ``weights`` and ``activations``."""
    return {
        "weights": [name for name, layer in network.layers.items() if layer.grid.bits < _COARSE_BITS],
        "activations": [name for name, grid in network.grids.items() if grid.bits < _COARSE_BITS],
    }


def _factors(network: Network) -> list[dict[str, float]]:
    """All combinations of one factor for each kind of quantizer that the network has, but the identity."""
    kinds = [kind for kind, names in coarse(network).items() if names]
    combinations = product(*(_FACTORS[kind] for kind in kinds))
    return [dict(zip(kinds, chosen, strict=True)) for chosen in combinations if set(chosen) - {1.0}]


def _scaled(network: Network, steps: Steps, factors: Mapping[str, float]) -> Steps:
    """Step sizes of all quantizers, those of few bits times the factor of their kind."""
    names = coarse(network)
    scaled = {name: steps[name] * factor for kind, factor in factors.items() for name in names[kind]}
    return {**steps, **scaled}


def _lower(losses: FloatArray, others: FloatArray) -> bool:
    """Whether losses by sample are lower than others by more than a standard error of the mean difference."""
    gain = others - losses
    return bool(gain.mean() > gain.std() / math.sqrt(gain.size))
