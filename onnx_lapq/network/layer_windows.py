"""Windows of what layers read, for compensated rounding, and what the float network makes of them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.common.scratch import Scratch
from onnx_lapq.graph.placement.operators import activation_inputs
from onnx_lapq.network.layers import Layer
from onnx_lapq.network.padding import PaddingMasks

__all__ = ["FloatOutputs", "LayerWindows", "rounded_layers"]

_WINDOWS = 32, 16384
"""Windows for each input of a layer, and at least."""
_FEWER, _FEWER_OF_NARROW, _LEAST_FEWER, _LEAST_OF_GROUPS = 8, 64, (4096, 8192), 1024
"""Where all tensors have 7 bits and more, and there is little to make up for: windows for each input, and at
least; these are so many for each input within bounds, of which the lower one is another for groups."""
_BY_ROWS = ("Gemm", "MatMul")
"""Products of which every window is a row of what they read: one position of a sequence."""
_LAYER_FLOATS = 32 << 20
"""Inputs of one layer that are looked at, and outputs, in float32 values of each."""
Parts = tuple[Float32Array, Float32Array]
"""Windows [groups, windows, ...] of samples outside and inside the guard."""


def rounded_layers(layers: Iterable[Layer]) -> list[Layer]:
    """The layers that compensated rounding gives codes to: products that alone read their weight."""
    return [
        layer
        for layer in layers
        if len(layer.site.layers) == 1 and layer.kind.is_product and 0 in activation_inputs(layer.kind.node)
    ]


class LayerWindows:
    """The windows of each layer: equally many of every sample, spread evenly, none of them padding.

    Args:
        samples: The calibration set.
        guard: Positions of the samples that choose among candidates instead of making them.
        few_bits: Whether a tensor has so few bits that there is much to make up for.
    """

    def __init__(self, samples: Samples, guard: npt.NDArray[np.intp], *, few_bits: bool) -> None:
        self._is_guard = np.isin(np.arange(len(samples)), guard)
        self._padding = PaddingMasks(samples)
        # Padding is among the windows looked at, and falls away: many are needed for enough to be left.
        self._many = few_bits or self._padding.has_any

    def inputs(self, layer: Layer, values: np.ndarray, at: slice) -> Parts:
        """What meets the weights of a layer, of its input on a batch of samples."""
        q = layer.kind.inputs(values, at.start, self._wanted(layer))
        return self._parts(q, self._real(layer, values, at), at)

    def _wanted(self, layer: Layer) -> int:
        """Windows per sample."""
        groups, outputs, width = layer.grouped.shape
        most = _LAYER_FLOATS // (groups * max(width, outputs))
        per_input, least = _WINDOWS
        if not self._many:
            low, high = _LEAST_FEWER
            if groups > 1:  # of few inputs each, as in a depthwise convolution
                low = _LEAST_OF_GROUPS
            per_input, least = _FEWER, int(np.clip(_FEWER_OF_NARROW * width, low, high))
        total = min(max(per_input * width, least), most)
        return max(int(total) // len(self._is_guard), 1)

    def _parts(self, windows: Float32Array, real: npt.NDArray[np.bool_] | bool, at: slice) -> Parts:
        is_guard, (groups, count, width) = self._is_guard[at], windows.shape
        # Whole samples, which is many times as fast for narrow windows.
        if real is True and count % len(is_guard) == 0:
            samples = windows.reshape(groups, len(is_guard), -1, width)
            search, held_out = (np.compress(chosen, samples, axis=1) for chosen in (~is_guard, is_guard))
            return search.reshape(groups, -1, width), held_out.reshape(groups, -1, width)
        guard = is_guard[np.arange(count) * len(is_guard) // count]
        return np.compress(~guard & real, windows, axis=1), np.compress(guard & real, windows, axis=1)

    def _real(self, layer: Layer, values: np.ndarray, at: slice) -> npt.NDArray[np.bool_] | bool:
        """Which of the windows looked at are no padding, of what a layer reads; True for all."""
        if layer.kind.node.op_type not in _BY_ROWS or (mask := self._padding.of(at)) is None:
            return True
        positions = values.shape[:-1]
        if positions not in (mask.shape, (mask.size,)):  # others, or in another order
            return True
        ones = mask.reshape(*positions, 1).astype(np.float32)
        real: npt.NDArray[np.bool_] = layer.kind.inputs(ones, at.start, self._wanted(layer))[0, :, 0] > 0
        return real


class FloatOutputs:
    """Outputs of the float network's layers at their windows, put aside while it runs over the samples.

    They are computed from what the layers read, without biases.

    Args:
        layers: Those that are rounded.
        windows: Where to look.
        memory: Bytes that may stay in memory; the others are in a temporary file.

    Attributes:
        layers: As given.
    """

    def __init__(self, layers: Sequence[Layer], windows: LayerWindows, memory: int) -> None:
        scratch = Scratch(memory)
        self.windows = windows
        self.layers = list(layers)
        self._shelves = {layer.site.name: (scratch.shelf(), scratch.shelf()) for layer in layers}

    @property
    def sources(self) -> list[str]:
        """Names of the values that the layers read."""
        return list(dict.fromkeys(_source(layer) for layer in self.layers))

    def look(self, values: Mapping[str, np.ndarray], at: slice) -> list[Parts]:
        """What each layer makes of its input on a batch of samples; any thread may ask."""
        return [self._outputs(layer, values[_source(layer)], at) for layer in self.layers]

    def append(self, found: Sequence[Parts]) -> None:
        """Put aside what `look` gave of the samples that come next."""
        for layer, parts in zip(self.layers, found, strict=True):
            for shelf, part in zip(self._shelves[layer.site.name], parts, strict=True):
                shelf.append(part)

    def of(self, layer: Layer) -> list[Float32Array]:
        """Copies of the outputs of a layer, [groups, windows, outputs], outside and inside the guard."""
        return [np.concatenate(list(shelf), axis=1) for shelf in self._shelves[layer.site.name]]

    def drop(self, layer: Layer) -> None:
        """Give back the memory of a layer's outputs."""
        for shelf in self._shelves[layer.site.name]:
            shelf.clear()

    def _outputs(self, layer: Layer, values: np.ndarray, at: slice) -> Parts:
        weights = np.swapaxes(layer.grouped, 1, 2)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # `capture` refuses such values
            search, held_out = self.windows.inputs(layer, values, at)
            return search @ weights, held_out @ weights


def _source(layer: Layer) -> str:
    value = layer.kind.node.inputs[0]
    assert value is not None
    assert value.name is not None
    return value.name
