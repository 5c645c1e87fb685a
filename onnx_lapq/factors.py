"""Factors for the step sizes of few bits: one for all weights, one for all activations."""

from collections.abc import Mapping
from itertools import product

from onnx_lapq.network import Network
from onnx_lapq.start import Steps

__all__ = ["coarse", "factor_choices", "scaled"]

_COARSE_BITS = 7
"""Tensors of fewer bits have step sizes that depend much on p; ``ort-x86`` gives 8-bit weights 7."""
_FACTORS = {"weights": (1.0, 1.1, 1.2, 1.35, 1.5), "activations": (0.7, 0.8, 0.9, 1.0, 1.1)}
"""Where the best factors lay, with room around them (measured: docs/results.md)."""


def coarse(network: Network) -> dict[str, list[str]]:
    """Names of the quantizers of few bits, by ``weights`` and ``activations``."""
    return {
        "weights": [name for name, layer in network.layers.items() if layer.grid.bits < _COARSE_BITS],
        "activations": [name for name, grid in network.grids.items() if grid.bits < _COARSE_BITS],
    }


def factor_choices(network: Network) -> list[dict[str, float]]:
    """All combinations of factors that change something, by the kinds that the network has."""
    kinds = [kind for kind, names in coarse(network).items() if names]
    combinations = product(*(_FACTORS[kind] for kind in kinds))
    return [dict(zip(kinds, chosen, strict=True)) for chosen in combinations if set(chosen) - {1.0}]


def scaled(network: Network, steps: Steps, factors: Mapping[str, float]) -> Steps:
    """Step sizes of all quantizers, those of few bits times the factor of their kind."""
    moved = dict(steps)
    for kind, names in coarse(network).items():
        for name in names:
            moved[name] = steps[name] * factors.get(kind, 1.0)
    return moved
