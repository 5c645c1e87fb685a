"""ACIQ: the clip value of least expected squared error under a fitted density (docs/method.md, "Baselines").

Banner et al., *Post training 4-bit quantization of convolutional networks for rapid-deployment*, section 3.
A density symmetric around zero is clipped at ``±c`` and its range cut into ``2^M`` steps, so that the
expected error is that of the clipped tails plus ``c² / (3 · 4^M)`` of rounding. The root of its derivative is
computed here, not read from a table. A rectified tensor is one side of such a density, over which all codes
are spread: the clip is that of one bit more.
"""

import math

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import erfc, lambertw  # type: ignore[import-untyped]

from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.clipping import reach, step_by_rule
from onnx_lapq.method.step_sizes.distribution import Distribution

__all__ = ["aciq_step_size", "gauss_clip", "laplace_clip"]

_BEYOND_ANY_CLIP = 40.0


def laplace_clip(bits: int) -> float:
    """``c / b`` of a Laplace density with scale ``b``: the root of ``exp(-c) = c / (3 · 4^M)``."""
    return float(lambertw(3 * 4**bits).real)


def gauss_clip(bits: int) -> float:
    """``c / sigma`` of a normal density: where the derivative of the expected squared error is zero."""

    def slope(clip: float) -> float:
        tails = clip * erfc(clip / math.sqrt(2)) - math.sqrt(2 / math.pi) * math.exp(-(clip**2) / 2)
        return float(tails + clip / (3 * 4**bits))

    return float(brentq(slope, 0.0, _BEYOND_ANY_CLIP))


def aciq_step_size(distribution: Distribution, grid: Grid) -> float:
    """The step size of the analytic clip, for the density that fits the values better.

    Both densities are fitted to the magnitudes by maximum likelihood (Laplace: their mean, Gauss: their root
    mean square); the one of higher likelihood is taken.

    Args:
        distribution: The tensor's values. Zeros and values on a side without codes do not count.
        grid: The codes. Where one side has most of them, as after a Relu, the clip is that of one bit more.

    Returns:
        Positive and finite, at most the min-max step.
    """
    bits = (2 * reach(grid)).bit_length()
    return step_by_rule(distribution, grid, lambda sizes: _clip(sizes, bits))


def _clip(sizes: Distribution, bits: int) -> float:
    """The clip value of some magnitudes."""
    mean = float(np.average(sizes.values, weights=sizes.counts))
    deviation = math.sqrt(float(np.average(sizes.values**2, weights=sizes.counts)))
    is_laplace = math.log(2 * mean) + 1 <= math.log(math.sqrt(2 * math.pi) * deviation) + 0.5
    return laplace_clip(bits) * mean if is_laplace else gauss_clip(bits) * deviation
