"""Compensated rounding of all layers, one after another (docs/method.md, "Compensated rounding")."""

from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.samples import batches
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.common.scratch import Scratch, Shelf
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.method.quantizer import nearest_codes
from onnx_lapq.method.rounding.blocks import in_blocks
from onnx_lapq.method.rounding.compensation import (
    RoundedWeights,
    best_target,
    compensated_codes,
    output_errors,
    steps_by_weight,
)
from onnx_lapq.method.rounding.moments import Moments, RunningMoments
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.encoder import FixedCodes
from onnx_lapq.network.layers import Layer
from onnx_lapq.network.padding import padding_masks
from onnx_lapq.stages.found import Attempt

__all__ = ["Rounder", "rounded_layers"]

_RIDGES = (0.3, 0.01)
_DAMPING = 0.01
_DAMPINGS_OF_BLOCKS = (0.01, 0.05, 0.2)
"""The one that does best on the held-out windows is taken."""
_SWEEPS = 2
"""Over codes and step sizes in blocks."""
_FACTORS = (0.85, 1.0, 1.15)
_FEW_BITS = 4
"""Weights of more bits keep their step sizes."""
_WINDOWS, _WINDOWS_OF_MANY_BITS = (32, 16384), (8, 8192)
"""Windows for each input of a layer, and at least; where all tensors have 7 bits and more there is little to
make up for."""
_BY_ROWS = ("Gemm", "MatMul")
"""Products of which every window is a row of what they read: one position of a sequence."""
_LAYER_FLOATS = 32 << 20
"""Inputs of one layer that are looked at, and outputs, in float32 values of each."""


class Rounder:
    """Rounds the weights of a network so that each layer makes up for its own error and those before it.

    It walks through the network once, layer by layer, over all samples: the evaluator keeps the values of
    the quantized network that are still needed, and one pass of the float network leaves all outputs.

    Args:
        bench: The network. Its guard samples choose among candidates instead of making them.

    Attributes:
        layers: Those that take part, in topological order.
    """

    def __init__(self, bench: Bench) -> None:
        self.layers = rounded_layers(bench)
        self._out_of_time = bench.out_of_time
        self._network = bench.network
        self._evaluator = bench.evaluator
        self._probes = bench.simulation.probes
        self._is_guard = np.isin(np.arange(len(bench.samples)), bench.guard)
        sizes = {bench.sizes.observed, bench.sizes.plain}
        blocks = [block for size in sizes for block in batches(bench.samples.groups, size)]
        masks = padding_masks(bench.samples, blocks)
        self._is_real = {(at.start, at.stop): mask for at, mask in zip(blocks, masks, strict=True)}
        # Padding is among the windows looked at, and falls away: many are needed for enough to be left.
        many = bench.has_few_bits or any(mask is not None for mask in masks)
        self._windows = _WINDOWS if many else _WINDOWS_OF_MANY_BITS
        self._run_float = bench.float_runs()
        self._scratch = Scratch(bench.config.memory // 4)
        self._outputs_of: dict[str, tuple[Shelf, Shelf]] = {}
        self._pool = ThreadPoolExecutor(bench.config.threads)

    def round(
        self, attempt: Attempt, on_layer: Callable[[int, Attempt], None], *, is_last: bool = True
    ) -> Attempt:
        """Give codes to all layers that have none yet, or to as many as there is time for.

        Args:
            attempt: Step sizes of all quantizers, and the codes that there are.
            on_layer: Called with the number of layers done so far and the attempt by then.
            is_last: Whether no other attempt is to be rounded, so that nothing is kept for it.

        Returns:
            The attempt with its codes; step sizes of the weights fit them.
        """
        layers = self.layers
        left = [layer for layer in layers if layer.site.name not in attempt.codes]
        if self._out_of_time():
            return attempt
        self._evaluator.forget()  # what it remembers is of other weights
        self._observe_float([layer for layer in left if layer.site.name not in self._outputs_of])
        unsettled = {layer.site.name for layer in left}
        for done, layer in enumerate(left, start=len(layers) - len(left) + 1):
            if self._out_of_time():
                break
            attempt = self._round_layer(layer, attempt, unsettled)
            unsettled.remove(layer.site.name)
            if is_last:
                for shelf in self._outputs_of.pop(layer.site.name):
                    shelf.clear()
            on_layer(done, attempt)
        return attempt

    def _round_layer(self, layer: Layer, attempt: Attempt, unsettled: Set[str]) -> Attempt:
        name = layer.site.name
        point = self._network.with_codes(attempt.codes).point(attempt.steps)
        step = _written_step(attempt.steps[name], point.weights[name].scale)
        # y = W x of the float network and q, the quantized input, are divided by powers of two, 2^of_y and
        # 2^of_q, so that products of float32 neither overflow nor vanish; W and the step size are rescaled to
        # fit (unit = 2^(of_y - of_q)), which rounds nothing.
        y = [np.concatenate(list(shelf), axis=1) for shelf in self._outputs_of[name]]
        of_y = max(map(_peak_exponent, y))
        for part in y:
            part *= np.float32(2.0**-of_y)
        search, held_out, of_q = self._moments(layer, point, y, unsettled)
        weights = np.ldexp(_grouped(layer), of_q - of_y)
        every = search + held_out
        target = weights
        if np.isfinite(every.covariance).all():
            target = best_target(weights, search, held_out if held_out.count else None, _RIDGES, self._pool)
        unit = 2.0 ** (of_y - of_q)
        damping = _best_damping(layer, weights, target, step / unit, search, held_out)
        del search, held_out
        rounded = _rounded(layer, weights, target, step / unit, every, damping)
        means = every.mean_y * 2.0**of_y, every.mean_q * 2.0**of_q
        return replace(
            attempt,
            steps={**attempt.steps, name: rounded.scale.reshape(step.shape) * unit},
            codes={**attempt.codes, name: _fixed(layer, rounded.codes, *means)},
        )

    def _moments(
        self, layer: Layer, point: Point, y: Sequence[Float32Array], unsettled: Set[str]
    ) -> tuple[Moments, Moments, int]:
        """Moments over the windows of the samples outside and inside the guard, inputs in a power of two.

        Returns:
            Both, and the exponent, which fits the first batch.
        """
        shape, about_mean = _grouped(layer).shape, _has_free_mean(layer)
        sums = [RunningMoments(shape, about_mean=about_mean, pool=self._pool) for _ in y]
        probe = self._probes[layer.site.layers[0]]
        batches = self._evaluator.observe(
            probe, point, lambda values, at: self._inputs(layer, values, at), unsettled
        )
        exponent, done = None, [0] * len(y)
        for parts in batches:
            if exponent is None:
                exponent = max(map(_peak_exponent, parts))
            for index, q in enumerate(parts):
                q *= np.float32(2.0**-exponent)
                sums[index].add(y[index][:, done[index] : done[index] + q.shape[1]], q)
                done[index] += q.shape[1]
        search, held_out = sums
        return search.total, held_out.total, exponent or 0

    def _observe_float(self, layers: Sequence[Layer]) -> None:
        """One pass of the float network: put aside the outputs of layers at the windows looked at.

        The session gives the outputs of all layers, also where few are wanted: which ones it gives decides
        what onnxruntime fuses, and so the last bits of their values. A resumed run has to find the same.
        """
        if not layers:
            return
        for layer in layers:
            self._outputs_of[layer.site.name] = self._scratch.shelf(), self._scratch.shelf()
        for where, values in self._run_float([_output(layer) for layer in self.layers]):
            for layer in layers:
                parts = self._outputs(layer, values[_output(layer)], where)
                for shelf, part in zip(self._outputs_of[layer.site.name], parts, strict=True):
                    shelf.append(part)

    def _wanted(self, layer: Layer) -> int:
        """Windows per sample."""
        outputs, width = layer.rows(layer.values).shape
        most = _LAYER_FLOATS // max(width * layer.kind.groups, outputs)
        per_input, least = self._windows
        total = min(max(per_input * width, least), most)
        return max(int(total) // len(self._is_guard), 1)

    def _inputs(self, layer: Layer, values: np.ndarray, at: slice) -> list[Float32Array]:
        """What meets the weights at the windows looked at, outside and inside the guard."""
        q = layer.kind.inputs(values, at.start, self._wanted(layer))
        return self._parts(q, self._real(layer, values, at), at)

    def _outputs(self, layer: Layer, values: np.ndarray, at: slice) -> list[Float32Array]:
        """Outputs of the layer at the same windows, without its bias."""
        y = layer.kind.outputs(values, at.start, self._wanted(layer))
        if layer.bias and layer.bias.inside:
            y = y - layer.bias.values.reshape(len(y), 1, -1)
        return self._parts(y, self._real(layer, values, at), at)

    def _parts(
        self, windows: Float32Array, real: npt.NDArray[np.bool_] | bool, at: slice
    ) -> list[Float32Array]:
        """Windows of a batch, [groups, windows, ...], that are no padding: outside and inside the guard."""
        guard = self._is_guard[at][np.arange(windows.shape[1]) * (at.stop - at.start) // windows.shape[1]]
        return [np.compress(part & real, windows, axis=1) for part in (~guard, guard)]

    def _real(self, layer: Layer, values: np.ndarray, at: slice) -> npt.NDArray[np.bool_] | bool:
        """Which of the windows looked at are no padding, of what a layer reads or writes; True for all."""
        mask = self._is_real[at.start, at.stop]
        positions = values.shape[:-1]
        if mask is None or layer.kind.node.op_type not in _BY_ROWS:
            return True
        if positions not in (mask.shape, (mask.size,)):  # others, or in another order
            return True
        ones = mask.reshape(*positions, 1).astype(np.float32)
        real: npt.NDArray[np.bool_] = layer.kind.inputs(ones, at.start, self._wanted(layer))[0, :, 0] > 0
        return real


def rounded_layers(bench: Bench) -> list[Layer]:
    """The layers that compensated rounding gives codes to, in topological order."""
    probes = bench.simulation.probes
    layers = bench.network.layers.values()
    return [layer for layer in layers if layer.site.layers[0] in probes and _is_product(layer)]


def _is_product(layer: Layer) -> bool:
    """Whether the layer is a matrix product, and alone reads its weight."""
    return len(layer.site.layers) == 1 and layer.kind.is_product


def _has_free_mean(layer: Layer) -> bool:
    """Whether a bias takes up what the codes do to the mean, or is not known and part of the outputs."""
    if layer.bias is None:
        return len(layer.kind.node.inputs) > 2
    return layer.bias.windows is not None


def _peak_exponent(values: Float32Array) -> int:
    """The power of two to divide windows by, which loses no bit, so that their squares fit float32."""
    peak = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    return int(np.clip(np.frexp(peak)[1], -126, 126))


def _grouped(layer: Layer) -> Float32Array:
    rows, groups = layer.rows(layer.values), layer.kind.groups
    return rows.reshape(groups, rows.shape[0] // groups, rows.shape[1])


def _written_step(step: FloatArray, scale: Float32Array) -> FloatArray:
    """The step size, raised as far as the encoder raises it for the bias to fit its codes."""
    return np.where(scale > step.astype(np.float32), scale, step)


def _best_damping(
    layer: Layer,
    weights: Float32Array,
    target: Float32Array,
    step: FloatArray,
    search: Moments,
    held_out: Moments,
) -> float:
    """Of the moments: with blocks the one of the least output error on held-out windows."""
    if not layer.site.block or not held_out.count:
        return _DAMPING
    if not all(np.isfinite(moments.covariance).all() for moments in (search, held_out)):
        return _DAMPING

    def error(damping: float) -> float:
        found = _rounded(layer, weights, target, step, search, damping)
        steps = steps_by_weight(found.scale, weights.shape, layer.site.block)
        return float(output_errors(found.codes * steps, held_out).sum())

    return min(_DAMPINGS_OF_BLOCKS, key=error)


def _rounded(
    layer: Layer,
    weights: Float32Array,
    target: Float32Array,
    step: FloatArray,
    moments: Moments,
    damping: float,
) -> RoundedWeights:
    """Compensated codes, or the nearest ones should these do better."""
    scale = np.atleast_1d(np.asarray(step, dtype=np.float64))
    block = layer.site.block
    steps = steps_by_weight(scale, weights.shape, block)
    codes = nearest_codes(weights, steps, layer.grid)
    nearest = RoundedWeights(codes, scale)
    if not np.isfinite(moments.covariance).all():
        return nearest
    factors = _FACTORS if layer.grid.bits <= _FEW_BITS else (1.0,)
    found = compensated_codes(target, scale, layer.grid, moments, damping, factors, block, _SWEEPS)
    fitted = steps_by_weight(found.scale, weights.shape, block)
    better = output_errors(found.codes * fitted, moments).sum() <= output_errors(codes * steps, moments).sum()
    return found if better else nearest


def _fixed(layer: Layer, codes: Float32Array, mean_y: FloatArray, mean_q: FloatArray) -> FixedCodes:
    rows, block = codes.reshape(-1, codes.shape[-1]), layer.site.block
    given = in_blocks(rows * mean_q, block).sum(axis=2) if block else np.einsum("gkj,gj->gk", codes, mean_q)
    return FixedCodes(
        codes=layer.kind.from_rows(rows).astype(np.int8),
        wanted=mean_y.ravel(),
        given=given if block else given.ravel(),
    )


def _output(layer: Layer) -> str:
    name = layer.kind.node.outputs[0].name
    assert name is not None
    return name
