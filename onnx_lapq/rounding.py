"""Compensated rounding of a whole network, layer by layer (METHOD.md section 10)."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.graph.attributes import integer
from onnx_lapq.graph.geometry import convolution_windows, is_plain_product, weight_from_rows
from onnx_lapq.graph.simulate import Segment
from onnx_lapq.layers import FixedCodes, Layer
from onnx_lapq.method.compensation import Moments, compensated_codes, output_error, ridge_target
from onnx_lapq.method.windows import convolution_inputs, matrix_inputs
from onnx_lapq.network import Network
from onnx_lapq.start import Steps

__all__ = ["Rounder"]

Windows = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

_RIDGES = (float("inf"), 0.3, 0.01)
_DAMPING = 0.01
_WINDOWS_PER_INPUT = 32
_MIN_WINDOWS = 4096
_LAYER_FLOATS = 16 << 20
_BLOCK_FLOATS = 96 << 20
"""Inputs of the float network that are held at a time, in float32 values."""


class Rounder:
    """Rounds the weights of a network so that each layer makes up for its own error and those before it.

    Args:
        network: The network; its encoder gets the codes.
        evaluator: Runs the network quantized so far.
        probes: Segments that end in the layers' inputs, by layer name.
        guard: Positions of the samples that choose among candidates instead of making them.
        inputs: Names of the layer inputs that were observed.
        run_float: Runs the float network up to given values; yields batches in sample order.
        samples: Number of calibration samples.
    """

    def __init__(
        self,
        network: Network,
        evaluator: SegmentEvaluator,
        probes: Mapping[str, Segment],
        guard: npt.NDArray[np.intp],
        inputs: Collection[str],
        run_float: Callable[[Sequence[str]], Iterator[tuple[slice, Mapping[str, np.ndarray]]]],
        samples: int,
    ) -> None:
        self._network = network
        self._evaluator = evaluator
        self._probes = probes
        self._is_guard = np.isin(np.arange(samples), guard)
        self._inputs = inputs
        self._run_float = run_float

    @property
    def layers(self) -> list[Layer]:
        """The layers that take part, in topological order."""
        return [layer for layer in self._network.layers.values() if _is_product(layer, self._inputs)]

    def round(self, steps: Steps, on_layer: Callable[[int], None]) -> None:
        """Fix the codes of all layers that have none yet, at given step sizes.

        Args:
            steps: Step sizes of all quantizers.
            on_layer: Called with the number of layers done so far.
        """
        left = [layer for layer in self.layers if layer.site.name not in self._network.encoder.fixed]
        done = len(self.layers) - len(left)
        for block in self._blocks(left):
            inputs = self._float_inputs(block)
            for layer in block:
                self._round_layer(layer, steps, inputs.pop(layer.site.name))
                done += 1
                on_layer(done)

    def _round_layer(self, layer: Layer, steps: Steps, x: Windows) -> None:
        point = self._network.point(steps)
        probe = self._probes[layer.site.layers[0]]
        q = _joined(
            self._evaluator.observe(probe, point, lambda values, at: self._windows(layer, values, at.start))
        )
        guard = np.repeat(self._is_guard, x.shape[1] // len(self._is_guard))
        search, held_out = Moments.of(x[:, ~guard], q[:, ~guard]), Moments.of(x[:, guard], q[:, guard])
        every = search + held_out
        weights = _grouped(layer, every)
        ridge = self._ridge(weights, search, held_out)
        codes = self._codes(layer, weights, steps[layer.site.name], ridge, every)
        self._network.encoder.fix(layer.site.name, _fixed(layer, weights, codes, every))

    @staticmethod
    def _ridge(weights: FloatArray, search: Moments, held_out: Moments) -> float:
        """The ridge whose target, made from the search samples, does best on the held-out ones."""
        if not held_out.count:
            return _RIDGES[0]
        return min(
            _RIDGES, key=lambda ridge: output_error(weights, ridge_target(weights, search, ridge), held_out)
        )

    @staticmethod
    def _codes(
        layer: Layer, weights: FloatArray, step: FloatArray, ridge: float, moments: Moments
    ) -> FloatArray:
        """Compensated codes, or the nearest ones should these do better."""
        channels = weights.shape[0] * weights.shape[1]
        scale = (
            np.broadcast_to(step.astype(np.float32), channels)
            .astype(np.float64)
            .reshape(*weights.shape[:2], 1)
        )
        nearest = np.clip(np.rint(weights / scale), layer.grid.qmin, layer.grid.qmax)
        if not np.isfinite(moments.covariance).all():
            return nearest
        codes = compensated_codes(ridge_target(weights, moments, ridge), scale, layer.grid, moments, _DAMPING)
        return min(codes, nearest, key=lambda some: output_error(weights, some * scale, moments))

    def _float_inputs(self, block: Sequence[Layer]) -> dict[str, Windows]:
        found: dict[str, list[Windows]] = {layer.site.name: [] for layer in block}
        for where, values in self._run_float(list(dict.fromkeys(_input(layer) for layer in block))):
            for layer in block:
                found[layer.site.name].append(self._windows(layer, values[_input(layer)], where.start))
        return {name: _joined(parts) for name, parts in found.items()}

    def _blocks(self, layers: Sequence[Layer]) -> Iterator[list[Layer]]:
        block: list[Layer] = []
        held = 0
        for layer in layers:
            size = self._wanted(layer) * len(self._is_guard) * _row_floats(layer)
            if block and held + size > _BLOCK_FLOATS:
                yield block
                block, held = [], 0
            block.append(layer)
            held += size
        if block:
            yield block

    def _wanted(self, layer: Layer) -> int:
        """Windows per sample."""
        width = layer.rows(layer.values).shape[1]
        total = min(max(_WINDOWS_PER_INPUT * width, _MIN_WINDOWS), _LAYER_FLOATS // _row_floats(layer))
        return max(int(total) // len(self._is_guard), 1)

    def _windows(self, layer: Layer, values: np.ndarray, first: int) -> Windows:
        if layer.node.op_type != "Conv":
            return matrix_inputs(values, first, self._wanted(layer))
        at = convolution_windows(layer.node, values.shape[2:])
        return convolution_inputs(
            values, at.kernel, at.strides, at.pads, at.dilations, at.groups, first, self._wanted(layer)
        )


def _is_product(layer: Layer, inputs: Collection[str]) -> bool:
    """Whether the layer is a matrix product with its weight on the right, read once."""
    node = layer.node
    if len(layer.site.layers) != 1 or node.inputs[0] is None or _input(layer) not in inputs:
        return False
    if node.op_type == "MatMul" and layer.values.ndim != 2:
        return False
    return node.op_type in ("Conv", "Gemm", "MatMul") and is_plain_product(node)


def _joined(parts: Sequence[Windows]) -> Windows:
    return np.concatenate(parts, axis=1)


def _grouped(layer: Layer, moments: Moments) -> FloatArray:
    rows = layer.rows(layer.values).astype(np.float64)
    groups = len(moments.x)
    return rows.reshape(groups, rows.shape[0] // groups, rows.shape[1])


def _fixed(layer: Layer, weights: FloatArray, codes: FloatArray, moments: Moments) -> FixedCodes:
    rows = codes.reshape(-1, codes.shape[-1])
    return FixedCodes(
        codes=weight_from_rows(layer.node, rows, layer.values.shape).astype(np.int8),
        wanted=np.einsum("gkj,gj->gk", weights, moments.mean_x).ravel(),
        given=np.einsum("gkj,gj->gk", codes, moments.mean_q).ravel(),
    )


def _row_floats(layer: Layer) -> int:
    groups = integer(layer.node, "group", 1) if layer.node.op_type == "Conv" else 1
    return int(layer.rows(layer.values).shape[1]) * groups


def _input(layer: Layer) -> str:
    value = layer.node.inputs[0]
    assert value is not None
    assert value.name is not None
    return value.name
