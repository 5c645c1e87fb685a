"""Where a search with nearest rounding starts from: KLD's step sizes and multiples of the best compete.

Rounded to nearest, weights mostly want larger step sizes than those of the activations' p, and these smaller
ones; KLD's differ from those of every p (measured: docs/measurements/results.md).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.method.step_sizes.kld import kld_step_size
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import LayerwiseSteps, Steps
from onnx_lapq.stages.measure import is_lower

__all__ = ["nearest_candidates", "nearest_start"]


_COARSE_BITS = 7
"""Tensors of fewer bits have step sizes that depend much on p; ``ort-x86`` gives some 8-bit weights 7."""
_FACTORS = {"weights": (1.0, 1.1, 1.2, 1.35, 1.5), "activations": (0.7, 0.8, 0.9, 1.0, 1.1)}
"""Where the best factors lay, with room around them (measured: docs/measurements/results.md)."""


def nearest_start(
    network: Network,
    layerwise: LayerwiseSteps,
    steps: Steps,
    losses: FloatArray,
    measure: Callable[[str, Steps], FloatArray],
    should_stop: Callable[[], bool],
) -> tuple[str, Steps, FloatArray]:
    """The given step sizes, or KLD's where there are few bits, or multiples of the better of the two.

    KLD takes much time per channel and clips too much at many bits, so both stay as they are. Multiples are
    many, and the lowest loss of many is low by chance: they have to lower it by more than one standard error
    (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).

    Args:
        network: The network.
        layerwise: Gives the distributions.
        steps: Step sizes of all quantizers, by the parabola over p.
        losses: Their loss by sample, float64 [samples].
        measure: The loss by sample of a candidate, given its name.
        should_stop: Asked before every candidate; true leaves it and the others out.

    Returns:
        The name of the best, its step sizes for all quantizers, and its loss by sample.
    """
    coarse = _coarse(network)
    centre = "quadratic", steps, losses
    if not coarse or should_stop():
        return centre
    names = [name for kind in coarse.values() for name in kind if steps[name].ndim == 0]
    candidate = {**steps, **layerwise.chosen_by(kld_step_size, lambda done: None, names)}
    found = measure("kld", candidate)
    if _mean(found) < _mean(losses):
        centre = "kld", candidate, found
    best = centre
    for factors in _factors(coarse):
        if should_stop():
            break
        name = ", ".join(f"{kind} x {factor:g}" for kind, factor in factors.items())
        candidate = {**centre[1], **_multiples(layerwise, centre[1], coarse, factors)}
        found = measure(name, candidate)
        if _mean(found) < _mean(best[2]) and is_lower(found, centre[2]):
            best = name, candidate, found
    return best


def nearest_candidates(network: Network) -> int:
    """How many candidates `nearest_start` measures."""
    coarse = _coarse(network)
    return 1 + len(_factors(coarse)) if coarse else 0


def _coarse(network: Network) -> dict[str, list[str]]:
    """Names of the quantizers of few bits, by ``weights`` and ``activations``, where there are any."""
    names = {
        "weights": [name for name, layer in network.layers.items() if layer.grid.bits < _COARSE_BITS],
        "activations": [name for name, grid in network.grids.items() if grid.bits < _COARSE_BITS],
    }
    return {kind: some for kind, some in names.items() if some}


def _factors(coarse: Mapping[str, Sequence[str]]) -> list[dict[str, float]]:
    """All combinations of one factor for each kind of quantizer, but the identity."""
    combinations = product(*(_FACTORS[kind] for kind in coarse))
    return [dict(zip(coarse, chosen, strict=True)) for chosen in combinations if set(chosen) - {1.0}]


def _multiples(
    layerwise: LayerwiseSteps,
    steps: Steps,
    coarse: Mapping[str, Sequence[str]],
    factors: Mapping[str, float],
) -> Steps:
    """Step sizes of few bits times the factor of their kind, as far as their limits go."""
    return {
        name: np.minimum(steps[name] * factor, layerwise.limit(name))
        for kind, factor in factors.items()
        for name in coarse[kind]
    }


def _mean(losses: FloatArray) -> float:
    """Their mean; infinity where one is not finite."""
    return float(losses.mean()) if np.isfinite(losses).all() else math.inf
