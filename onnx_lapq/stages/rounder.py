"""Compensated rounding of all layers, one after another (docs/method.md, "Compensated rounding")."""

from collections.abc import Callable, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.method.quantizer import nearest_codes
from onnx_lapq.method.rounding.bias_correction import mean_of_codes
from onnx_lapq.method.rounding.compensation import (
    Feedback,
    RoundedWeights,
    best_pull,
    compensated_codes,
    feedback_of,
    output_errors,
    pulled,
    steps_by_weight,
)
from onnx_lapq.method.rounding.moments import Moments, RunningMoments, SplitMoments
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.encoder import FixedCodes
from onnx_lapq.network.layers import Layer
from onnx_lapq.stages.found import Attempt

__all__ = ["Rounder"]

_RIDGES = (0.3, 0.01)
_DAMPING, _DAMPING_OF_COARSE, _COARSE_BITS = 0.01, 0.1, 3
"""Codes of so few bits leave errors that are better not pushed on as far (docs/measurements/rounding.md)."""
_DAMPINGS_OF_BLOCKS = (0.01, 0.05, 0.2)
"""The one that does best on the held-out windows is taken."""
_SWEEPS = 2
"""Over codes and step sizes in blocks."""
_FACTORS = (0.85, 1.0, 1.15)
_FLOAT32_DIGITS = 24
_FEW_BITS = 4
"""Weights of more bits keep their step sizes."""


class Rounder:
    """Rounds the weights of a network so that each layer makes up for its own error and those before it.

    It walks through the network once, layer by layer, over all samples: the evaluator keeps the values of
    the quantized network that are still needed. Calibration has left the outputs of the float network.

    Args:
        bench: The network. Its guard samples choose among candidates instead of making them.

    Attributes:
        layers: Those that take part, in topological order.
    """

    def __init__(self, bench: Bench) -> None:
        assert bench.outputs is not None, "the options round to nearest"
        self._outputs = bench.outputs
        self.layers = [bench.network.layers[layer.site.name] for layer in bench.outputs.layers]
        self._out_of_time = bench.out_of_time
        self._network = bench.network
        self._evaluator = bench.evaluator
        self._probes = bench.simulation.probes
        self._pool = ThreadPoolExecutor(bench.config.threads)

    def round(
        self, attempt: Attempt, on_layer: Callable[[int, Attempt], None], *, is_last: bool = False
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
        unsettled = {layer.site.name for layer in left}
        for done, layer in enumerate(left, start=len(layers) - len(left) + 1):
            if self._out_of_time():
                break
            attempt = self._round_layer(layer, attempt, unsettled)
            unsettled.remove(layer.site.name)
            if is_last:
                self._outputs.drop(layer)
            on_layer(done, attempt)
        return attempt

    def _round_layer(self, layer: Layer, attempt: Attempt, unsettled: Set[str]) -> Attempt:
        name = layer.site.name
        point = self._network.with_codes(attempt.codes).point(attempt.steps)
        step = _written_step(attempt.steps[name], point.weights[name].scale)
        # y = W x of the float network and q, the quantized input, are divided by powers of two, 2^of_y and
        # 2^of_q, so that products of float32 neither overflow nor vanish; W and the step size are rescaled to
        # fit (unit = 2^(of_y - of_q)), which rounds nothing.
        y = self._outputs.of(layer)
        of_y = _peak_exponent(y)
        if layer.bias:  # beside which anything smaller is lost
            beside = np.median(np.abs(layer.bias.values))
            of_y = max(of_y, _peak_exponent([beside]) - _FLOAT32_DIGITS)
        for part in y:
            part *= np.float32(2.0**-of_y)
        moments, of_q = self._moments(layer, point, y, unsettled)
        weights = np.ldexp(layer.grouped, of_q - of_y)
        moments.find_covariances(self._pool)
        every, unit = moments.every, 2.0 ** (of_y - of_q)
        scale = np.atleast_1d(np.asarray(step / unit, dtype=np.float64))
        if np.isfinite(every.covariance).all():
            pull = best_pull(weights, moments, _RIDGES, self._pool)
            target = self._pool.submit(pulled, weights, every, pull)
            damping = _damping(layer, target, scale, moments, self._pool)
            del moments  # of search and guard samples, as large as those of all
            rounded = _rounded(layer, weights, target, scale, every, damping, self._pool)
        else:
            rounded = _nearest(layer, weights, scale)
        means = every.mean_y * 2.0**of_y, every.mean_q * 2.0**of_q
        return replace(
            attempt,
            steps={**attempt.steps, name: rounded.scale.reshape(step.shape) * unit},
            codes={**attempt.codes, name: _fixed(layer, rounded.codes, *means)},
        )

    def _moments(
        self, layer: Layer, point: Point, y: Sequence[Float32Array], unsettled: Set[str]
    ) -> tuple[SplitMoments, int]:
        """Moments over the windows of the samples outside and inside the guard, inputs in a power of two.

        Returns:
            These, and the exponent, which fits the first batch. Nothing is known where no window is, and
            where the network decides how many there are and the float network had more or fewer.
        """
        shape, about_mean = layer.grouped.shape, _has_free_mean(layer)
        sums = [RunningMoments(shape, about_mean=about_mean, pool=self._pool) for _ in y]
        probe = self._probes[layer.site.layers[0]]
        inputs = self._outputs.windows.inputs
        batches = self._evaluator.observe(
            probe, point, lambda values, at: inputs(layer, values, at), unsettled
        )
        exponent, done = None, [0] * len(y)
        for parts in batches:
            if exponent is None:
                exponent = _peak_exponent(parts)
            for index, q in enumerate(parts):
                q *= np.float32(2.0**-exponent)
                of_batch = y[index][:, done[index] : done[index] + q.shape[1]]
                if of_batch.shape[1] == q.shape[1]:
                    sums[index].add(of_batch, q)
                done[index] += q.shape[1]
        if done != [part.shape[1] for part in y] or not done[0]:
            return SplitMoments(Moments.unknown(shape), Moments.unknown(shape)), 0
        search, held_out = sums
        return SplitMoments(search.total, held_out.total), exponent or 0


def _has_free_mean(layer: Layer) -> bool:
    """Whether a bias takes up what the codes do to the mean."""
    return layer.bias is not None and layer.bias.windows is not None


def _peak_exponent(parts: Sequence[Float32Array]) -> int:
    """The power of two to divide windows by, which loses no bit, so that their squares fit float32."""
    peak = max(max(float(part.max(initial=0)), -float(part.min(initial=0))) for part in parts)
    return int(np.clip(np.frexp(peak)[1], -126, 126))


def _written_step(step: FloatArray, scale: Float32Array) -> FloatArray:
    """The step size, raised as far as the encoder raises it for the bias to fit its codes."""
    return np.where(scale > step.astype(np.float32), scale, step)


def _nearest(layer: Layer, weights: Float32Array, scale: FloatArray) -> RoundedWeights:
    steps = steps_by_weight(scale, weights.shape, layer.site.block)
    return RoundedWeights(nearest_codes(weights, steps, layer.grid), scale)


def _rounded(
    layer: Layer,
    weights: Float32Array,
    target: Future[Float32Array],
    scale: FloatArray,
    moments: Moments,
    damping: float,
    pool: Executor,
) -> RoundedWeights:
    """Compensated codes, or the nearest ones should these do better."""
    feedback = feedback_of(moments, damping)  # while a thread solves for the target
    found = _compensated(layer, target.result(), scale, moments, damping, pool, feedback)
    nearest = _nearest(layer, weights, scale)
    of_found, of_nearest = pool.map(partial(_error, layer, moments), (found, nearest))
    return found if of_found <= of_nearest else nearest


def _error(layer: Layer, moments: Moments, rounded: RoundedWeights) -> float:
    steps = steps_by_weight(rounded.scale, rounded.codes.shape, layer.site.block)
    return float(output_errors(rounded.codes * steps, moments).sum())


def _damping(
    layer: Layer, target: Future[Float32Array], scale: FloatArray, moments: SplitMoments, pool: Executor
) -> float:
    """By the bits; with blocks that of the least output error on held-out windows, should there be any."""
    search, held_out = moments.search, moments.held_out
    fixed = _DAMPING_OF_COARSE if layer.grid.bits <= _COARSE_BITS else _DAMPING
    if not layer.site.block or not held_out.count:
        return fixed
    if not all(np.isfinite(part.covariance).all() for part in (search, held_out)):
        return fixed

    def error(damping: float) -> float:
        return _error(layer, held_out, _compensated(layer, target.result(), scale, search, damping, pool))

    return min(_DAMPINGS_OF_BLOCKS, key=error)


def _compensated(
    layer: Layer,
    target: Float32Array,
    scale: FloatArray,
    moments: Moments,
    damping: float,
    pool: Executor,
    feedback: Feedback | None = None,
) -> RoundedWeights:
    factors = _FACTORS if layer.grid.bits <= _FEW_BITS else (1.0,)
    return compensated_codes(
        target, scale, layer.grid, moments, damping, factors, layer.site.block, _SWEEPS, pool, feedback
    )


def _fixed(layer: Layer, codes: Float32Array, mean_y: FloatArray, mean_q: FloatArray) -> FixedCodes:
    rows = codes.reshape(-1, codes.shape[-1]).astype(np.int8)
    return FixedCodes(
        codes=layer.kind.from_rows(rows),
        wanted=mean_y.ravel(),
        given=mean_of_codes(rows, mean_q, layer.site.block),
    )
