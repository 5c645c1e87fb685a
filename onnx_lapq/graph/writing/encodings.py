"""The numbers that a quantizer writes into a graph."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.method.rounding.blocks import by_weight

__all__ = ["ActivationEncoding", "BiasEncoding", "WeightEncoding", "scale_by_weight"]


@dataclass(frozen=True)
class ActivationEncoding:
    """A per-tensor quantizer with codes 0 .. 2^bits - 1.

    Attributes:
        scale: Step size, float32, > 0.
        zero_point: The code of real zero.
        bits: 2 to 8, or 16.
        signed: Whether they are written as signed integers, less half of their number.
    """

    scale: float
    zero_point: int
    bits: int
    signed: bool = False

    @property
    def dtype(self) -> np.dtype[np.signedinteger | np.unsignedinteger]:
        """The type that codes are written in, of 8 or 16 bits."""
        return np.dtype(f"{'int' if self.signed else 'uint'}{max(self.bits, 8)}")


@dataclass(frozen=True, eq=False)
class BiasEncoding:
    """A bias as integer kernels add it: int32 codes in steps of input scale times weight scale.

    Attributes:
        values: What the network adds, float32, [output channels].
        codes: int32, [output channels]; None where the bias stays in float.
        scale: float32, a scalar array or [output channels]; None where the bias stays in float.
    """

    values: Float32Array
    codes: npt.NDArray[np.int32] | None = None
    scale: Float32Array | None = None


@dataclass(frozen=True, eq=False)
class WeightEncoding:
    """Integer codes of a constant tensor, and the bias that goes with them.

    Attributes:
        codes: int8, shape of the tensor.
        scale: float32, a scalar array, one value per output channel, or [output channels, blocks].
        axis: Output-channel axis of the tensor.
        biases: Biases of the layer by initializer name.
        zero_point: What is added to them as they are written: 128 makes them uint8; else int8.
        block: Inputs of a channel that share a scale, and codes are written as INT4; 0 for all of them.
    """

    codes: npt.NDArray[np.int8]
    scale: Float32Array
    axis: int
    biases: dict[str, BiasEncoding]
    zero_point: int = 0
    block: int = 0

    @property
    def values(self) -> Float32Array:
        """What DequantizeLinear makes of the codes: codes * scale in float32."""
        scale = scale_by_weight(self.scale, self.axis, self.block, self.codes.shape)
        return self.codes.astype(np.float32) * scale

    @cached_property
    def digest(self) -> bytes:
        """Hash of everything the network sees of this tensor."""
        state = hashlib.blake2b(digest_size=16)
        for array in (self.codes, self.scale, *(bias.values for bias in self.biases.values())):
            state.update(np.ascontiguousarray(array).data)
        return state.digest()


def scale_by_weight(scale: Float32Array, axis: int, block: int, shape: tuple[int, ...]) -> Float32Array:
    """The scale of a weight as an array that broadcasts against it.

    Args:
        scale: A scalar array, one value per output channel, or [output channels, blocks].
        axis: Output-channel axis of the weight; the last of two where there are blocks.
        block: Inputs of a channel that share a scale; 0 for all of them.
        shape: Of the weight.
    """
    if block:
        return by_weight(scale, block, shape[0]).T
    return scale.reshape([-1 if scale.ndim and at == axis else 1 for at in range(len(shape))])
