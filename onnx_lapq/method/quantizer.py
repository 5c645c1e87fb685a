"""The uniform quantizer: integer grids, codes and rounding.

docs/method.md, "The quantizer"; paper Eq. 1-3.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.errors import ConfigError
from onnx_lapq.method.pairs import pair_limits

__all__ = ["Grid", "fake_quantize", "nearest_codes"]


@dataclass(frozen=True)
class Grid:
    """The integer codes of a quantizer; the step size that stretches them is kept apart.

    Attributes:
        bits: Bit width M, from 2 to 8, or 16.
        signed: Codes from ``-2**(M-1)`` to ``2**(M-1) - 1`` if true, from 0 to ``2**M - 1`` otherwise.
        zero_point: The code that stands for the real number 0.
        apart: Of a weight, how far apart in a row two codes are that share what 16 bits hold
            (`onnx_lapq.method.pairs`); 0 where each may take all codes.

    Raises:
        ConfigError: The bit width or the zero point makes no sense.
    """

    bits: int
    signed: bool
    zero_point: int = 0
    apart: int = 0

    def __post_init__(self) -> None:
        if self.bits not in (*range(2, 9), 16):
            raise ConfigError(f"a quantizer of {self.bits} bits was asked for; choose 2 to 8 or 16 bits")
        if not self.qmin <= self.zero_point <= self.qmax:
            raise ConfigError(
                f"zero point {self.zero_point} lies outside the codes {self.qmin} to {self.qmax}; "
                "choose one inside"
            )

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The largest code."""
        return (1 << (self.bits - int(self.signed))) - 1

    @property
    def lowest(self) -> int:
        """The smallest real value in units of the step size, ``qmin - zero_point`` (<= 0)."""
        return self.qmin - self.zero_point

    @property
    def highest(self) -> int:
        """The largest real value in units of the step size, ``qmax - zero_point`` (>= 0)."""
        return self.qmax - self.zero_point


def nearest_codes(rows: Float32Array, steps: Float32Array, grid: Grid) -> Float32Array:
    """The codes that ONNX ``QuantizeLinear`` gives, less the zero point, as whole numbers of float32.

    Divides in float32, rounds half to even and saturates; of two codes that share 16 bits both give way.

    Args:
        rows: Values, float32; with ``grid.apart`` rows of a weight, [..., inputs of a channel].
        steps: Step sizes, float32, which broadcast against them.
        grid: The codes.
    """
    if not grid.apart:
        return _levels(rows, steps, grid)
    with np.errstate(over="ignore"):
        levels = np.divide(rows, steps, dtype=np.float32)
    codes: Float32Array = np.clip(np.rint(levels), *pair_limits(levels, grid.apart))
    return codes


def fake_quantize(x: Float32Array, scale: npt.ArrayLike, grid: Grid) -> Float32Array:
    """What ONNX ``DequantizeLinear`` makes of the codes of :func:`quantize`, to the bit: ``(q - z) * scale``.

    Args:
        x: Values, float32, any shape.
        scale: Step size, as in :func:`quantize`.
        grid: The codes.

    Returns:
        The nearest values on the grid, float32, of the broadcast shape.
    """
    step = np.asarray(scale, dtype=np.float32)
    levels = _levels(x, step, grid)
    levels += np.float32(0.0)  # an integer code has no negative zero
    return _scaled(levels, step)


def _levels(x: Float32Array, step: Float32Array, grid: Grid) -> Float32Array:
    """Codes without the zero point, float32, in an array of its own."""
    with np.errstate(over="ignore"):
        levels: Float32Array = np.asarray(np.divide(x, step, dtype=np.float32))
    np.maximum(levels, np.float32(grid.lowest), out=levels)
    np.minimum(levels, np.float32(grid.highest), out=levels)
    np.rint(levels, out=levels)
    return levels


def _scaled(levels: Float32Array, step: Float32Array) -> Float32Array:
    """``levels * step``, in place when the shapes allow it."""
    if np.broadcast_shapes(levels.shape, step.shape) != levels.shape:
        result: Float32Array = levels * step
        return result
    levels *= step
    return levels
