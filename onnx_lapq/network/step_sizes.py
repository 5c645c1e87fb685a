"""Layer-wise step sizes of the whole network: where the search starts.

docs/method.md, "Layer-wise step sizes".
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from onnx_lapq.calibration.histogram import StreamingHistogram
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.graph.placement.options import WIDE_BITS
from onnx_lapq.graph.placement.sites import MANY_BITS, ActivationSite
from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.rounding.blocks import in_blocks
from onnx_lapq.method.step_sizes.curve import Curve
from onnx_lapq.method.step_sizes.distribution import Distribution, distribution_of
from onnx_lapq.method.step_sizes.layerwise import (
    minmax_step_size,
    minmax_step_size_per_channel,
    step_sizes,
    step_sizes_per_channel,
)
from onnx_lapq.network.layers import Layer

__all__ = ["LayerwiseSteps", "Steps", "activation_grid"]

Steps = dict[str, FloatArray]
"""Step size of every quantizer by site name: scalar arrays, [output channels] per-channel, or [output
channels, blocks]."""

_TAIL, _RARE = 1e-4, 1e-6
"""Share of the values left out at each end of the range that decides a zero point: usually, and where rare
values may decide the outputs (docs/measurements/rounding.md, "Rare values"). 16 bits leave out nothing."""

_LEAST_SQUARES = 2.0
"""The p of the rows of a table."""

_LONG_ROW = 64
"""Values of a row of many bits of which nothing is worth cutting off, whatever the p."""


def activation_grid(
    histogram: StreamingHistogram,
    bits: int,
    *,
    symmetric: bool = False,
    curve: Curve | None = None,
    cuts_off: bool = True,
    keeps_rare: bool = False,
) -> Grid:
    """Unsigned codes whose zero point fits the observed range (docs/method.md, "The quantizer").

    Zero point 0 where nothing is negative; the middle of the codes where both sides reach equally far, or
    where symmetric codes are asked for.

    Args:
        histogram: The values.
        bits: Of the codes.
        symmetric: Whether the zero point is to be in the middle.
        curve: What the readers compute from the values, where that is flat towards an end.
        cuts_off: Whether the codes may end before the values do; those of 16 bits never do.
        keeps_rare: Whether codes of 7 bits and more leave out a millionth in place of a ten-thousandth.
    """
    if symmetric:
        return Grid(bits=bits, signed=False, zero_point=1 << (bits - 1))
    if histogram.minimum >= 0:
        return Grid(bits=bits, signed=False)
    share = _RARE if keeps_rare and bits >= MANY_BITS else _TAIL
    tail = share if cuts_off and bits < WIDE_BITS else 0.0
    lowest, highest = _ends(histogram, bits, curve)
    low = min(max(histogram.quantile(tail if np.isinf(lowest) else 0.0), lowest), 0.0)
    high = max(min(histogram.quantile(1 - tail if np.isinf(highest) else 1.0), highest), 0.0)
    top = (1 << bits) - 1
    below = -low / (high - low) if high > low else 0.5
    return Grid(bits=bits, signed=False, zero_point=int(np.clip(round(below * top), 1, top - 1)))


class LayerwiseSteps:
    """Step sizes of all quantizers for any p.

    Args:
        sites: Activation quantizers.
        grids: Their codes, by site name.
        histograms: Their distributions, by value name.
        layers: Weights, by initializer name.
        workers: Threads.
    """

    def __init__(
        self,
        sites: Sequence[ActivationSite],
        grids: Mapping[str, Grid],
        histograms: Mapping[str, StreamingHistogram],
        layers: Mapping[str, Layer],
        workers: int,
    ) -> None:
        self._workers = workers
        self._activations = {
            site.name: (_values_read(site, histograms[site.value]), grids[site.name]) for site in sites
        }
        self._limits = {site.name: site.maximum / grids[site.name].highest for site in sites}
        self._whole = {site.name for site in sites if site.is_wide or not site.cuts_off}
        self._given = {site.name: site.step for site in sites if site.step is not None}
        self._layers = dict(layers)
        self._tensors = {
            name: distribution_of(layer.values)
            for name, layer in layers.items()
            if not layer.site.per_channel
        }

    @property
    def names(self) -> list[str]:
        """All quantizers: activations, then weights."""
        return [*self._activations, *self._layers]

    def limit(self, name: str) -> float:
        """Largest step size that a quantizer may take; infinity but for absorbed Relu6."""
        return self._limits.get(name, float("inf"))

    def distribution(self, name: str) -> tuple[Distribution, Grid]:
        """The values and the codes of a quantizer; of a per-channel weight all channels together."""
        if name in self._activations:
            return self._activations[name]
        layer = self._layers[name]
        return self._tensors.get(name) or distribution_of(layer.values), layer.grid

    def minmax(self) -> Steps:
        """The smallest step sizes that clip nothing."""
        return {name: self._minmax(name) for name in self.names}

    def for_p(self, ps: Sequence[float], on_tensor: Callable[[int], None]) -> list[Steps]:
        """Step sizes that minimise the L_p error of each tensor, for every p.

        Args:
            ps: Values of p.
            on_tensor: Called with the number of tensors done so far.
        """
        found = self._each(lambda name: self._of(name, ps), on_tensor, self.names)
        return [{name: steps[index] for name, steps in found.items()} for index in range(len(ps))]

    def chosen_by(
        self,
        choose: Callable[[Distribution, Grid], float],
        on_tensor: Callable[[int], None],
        names: Sequence[str] | None = None,
    ) -> Steps:
        """Step sizes that a rule gives for the distribution and the codes of each tensor or channel.

        Args:
            choose: The rule.
            on_tensor: Called with the number of tensors done so far.
            names: Quantizers; None for all.
        """

        def step(name: str) -> FloatArray:
            if name in self._activations:
                return self._allowed(name, choose(*self._activations[name]))
            layer = self._layers[name]
            if _has_scaled_rows(layer):
                return _of_rows(layer)
            if layer.site.per_channel:
                steps = np.array([choose(distribution_of(row), layer.grid) for row in _channels(layer)])
                return _written(layer, steps)
            return _written(layer, choose(self._tensors[name], layer.grid))

        return self._each(step, on_tensor, self.names if names is None else names)

    def _each(
        self,
        steps_of: Callable[[str], FloatArray],
        on_tensor: Callable[[int], None],
        names: Sequence[str],
    ) -> Steps:
        found: Steps = {}
        with ThreadPoolExecutor(self._workers) as pool:
            for name, steps in zip(names, pool.map(steps_of, names), strict=True):
                found[name] = steps
                on_tensor(len(found))
        return found

    def _of(self, name: str, ps: Sequence[float]) -> FloatArray:
        if name in self._activations:
            distribution, grid = self._activations[name]
            if name in self._whole:
                return np.full(len(ps), self._minmax(name))
            return self._allowed(name, step_sizes(distribution, grid, ps))
        layer = self._layers[name]
        if _has_scaled_rows(layer):
            return np.tile(_of_rows(layer), (len(ps), 1))
        if layer.site.per_channel:
            return _of_channels(layer, ps)
        return _written(layer, step_sizes(self._tensors[name], layer.grid, ps))

    def _allowed(self, name: str, steps: FloatArray | float) -> FloatArray:
        """Step sizes of an activation within its limit, or the one that is given."""
        given = self._given.get(name)
        return np.minimum(steps, self.limit(name)) if given is None else np.full_like(steps, given)

    def _minmax(self, name: str) -> FloatArray:
        if name in self._activations:
            distribution, grid = self._activations[name]
            return self._allowed(name, minmax_step_size(distribution, grid))
        layer = self._layers[name]
        if layer.site.per_channel:
            return _written(layer, minmax_step_size_per_channel(_channels(layer), layer.grid))
        return _written(layer, minmax_step_size(self._tensors[name], layer.grid))


def _values_read(site: ActivationSite, histogram: StreamingHistogram) -> Distribution:
    """What a quantizer is to tell apart."""
    values, counts = histogram.points()
    if site.is_wide:  # the mean of the last bin lies many steps before the last value
        values = np.concatenate([[histogram.minimum], values, [histogram.maximum]])
        counts = np.concatenate([[0.0], counts, [0.0]])
    return Distribution(np.clip(values, *_ends(histogram, site.bits, site.curve)), counts)


def _ends(histogram: StreamingHistogram, bits: int, curve: Curve | None) -> tuple[float, float]:
    """Values beyond these count as these."""
    if curve is None:
        return -np.inf, np.inf
    low, high = histogram.quantile(_TAIL), histogram.quantile(1 - _TAIL)
    return curve.range_worth_codes(Distribution(*histogram.points()), low, high, (1 << bits) - 1)


def _has_scaled_rows(layer: Layer) -> bool:
    """Whether it is a table of which every row has a scale."""
    return layer.site.per_channel and not layer.kind.multiplies


def _of_rows(layer: Layer) -> FloatArray:
    """Step sizes of the rows of a table, [rows], by the least squared error.

    Nothing but the error of a row itself depends on them, and a table has many.
    """
    (steps,) = _of_channels(layer, [_LEAST_SQUARES])
    found: FloatArray = steps
    return found


def _of_channels(layer: Layer, ps: Sequence[float]) -> FloatArray:
    """Step sizes of all channels, for every p, [p, ...].

    Long rows of many bits take min-max. A short one has step sizes that fit its few values.
    """
    rows = _channels(layer)
    if layer.grid.bits >= MANY_BITS and rows.shape[1] >= _LONG_ROW:
        steps = np.tile(minmax_step_size_per_channel(rows, layer.grid), (len(ps), 1))
    else:
        steps = step_sizes_per_channel(rows, layer.grid, ps)
    return _written(layer, steps)


def _channels(layer: Layer) -> Float32Array:
    """The weight as [scales, weights of a scale]."""
    moved = np.moveaxis(layer.values, layer.site.axis, 0)
    rows = moved.reshape(moved.shape[0], -1)
    return in_blocks(rows, layer.site.block).reshape(-1, layer.site.block) if layer.site.block else rows


def _written(layer: Layer, steps: FloatArray | float) -> FloatArray:
    """Step sizes of the rows of `_channels`, as the layer may be written: [..., output channels, blocks]."""
    found = np.maximum(steps, layer.least_step())
    return found.reshape(*found.shape[:-1], layer.kind.output_channels, -1) if layer.site.block else found
