"""The loss of a quantized network around its layer-wise step sizes.

docs/method.md, "Landscape"; paper section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.method.hessian import Coupling, Hessian, coupling, evaluations, hessian, most_coupled
from onnx_lapq.method.landscape import Bends, Curvature, bends, curvature, surface
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit, most_losses
from onnx_lapq.method.step_sizes.lp_error import lp_errors
from onnx_lapq.network.bench import set_up
from onnx_lapq.network.step_sizes import LayerwiseSteps
from onnx_lapq.progress import Clock, counting
from onnx_lapq.stages.start import fit_over_p
from onnx_lapq.study.extent import Extent

__all__ = ["ErrorCurves", "View", "look"]


_SHOWN_P = (2.0, 3.0, 4.0)
_ERROR_POINTS = 80


@dataclass(frozen=True, eq=False)
class ErrorCurves:
    """L_p error of one tensor against its step size (Fig. 4).

    Attributes:
        steps: float64 [n], ascending.
        ps: Values of p, [k].
        errors: ``(mean |Q(x) - x|^p)^(1/p)``, float64 [k, n].
    """

    steps: FloatArray
    ps: tuple[float, ...]
    errors: FloatArray


@dataclass(frozen=True, eq=False)
class View:
    """What the loss looks like at one pair of bit widths, around the step sizes of the quadratic fit.

    Attributes:
        weight_bits: Bits of the weights.
        activation_bits: Bits of the activations.
        loss: Name of the loss.
        quantizers: The n searched quantizers, in topological order.
        step_sizes: Where the landscape is centred, float64 [n].
        fit: The losses against p, and the parabola through them.
        bends: The loss ahead and behind along every coordinate, in units of the step sizes.
        chosen: Positions of the k quantizers in the Hessian, ascending.
        hessian: Over the chosen coordinates, in units of the step sizes.
        coupling: What of it lies off the diagonal.
        curvature: Gaussian curvature over the k chosen coordinates.
        pair: Positions of the two quantizers of the surface.
        axis: Values of both, in units of their step sizes, float64 [grid].
        surface: Loss, float64 [grid, grid]; rows belong to the first quantizer.
        errors: L_p errors of the two.
        evaluations: Loss evaluations spent.
    """

    weight_bits: int
    activation_bits: int
    loss: str
    quantizers: tuple[str, ...]
    step_sizes: FloatArray
    fit: QuadraticFit
    bends: Bends
    chosen: npt.NDArray[np.intp]
    hessian: Hessian
    coupling: Coupling
    curvature: Curvature
    pair: tuple[int, int]
    axis: FloatArray
    surface: FloatArray
    errors: tuple[ErrorCurves, ErrorCurves]
    evaluations: int

    @property
    def name(self) -> str:
        """Such as ``w4a4``."""
        return f"w{self.weight_bits}a{self.activation_bits}"

    @property
    def chosen_names(self) -> list[str]:
        """The quantizers in the Hessian."""
        return [self.quantizers[position] for position in self.chosen]

    @property
    def pair_names(self) -> tuple[str, str]:
        """The two quantizers of the surface."""
        return self.quantizers[self.pair[0]], self.quantizers[self.pair[1]]


def look(
    prepared: ir.Model,
    samples: Samples,
    config: QuantizationConfig,
    extent: Extent,
    clock: Clock,
    like: View | None = None,
) -> View:
    """Measure the loss around the layer-wise optimum, with weights rounded to nearest.

    Args:
        prepared: The prepared float model.
        samples: The calibration set; all of it counts.
        config: Bits, placement and loss.
        extent: How far and how finely to look.
        clock: Told of progress.
        like: A view at other bits: where this network has all quantizers of its Hessian, they are taken here
            too, and its pair.

    Raises:
        ConfigError: A quantizer of the pair does not exist, or there are fewer than two.
        InputError: The model or the samples are no good.
    """
    config = replace(config, guard=0.0, rounding="nearest")
    bench = set_up(prepared, place(prepared, config.placement_options()), samples, config, clock)
    order = bench.order
    if like is not None and not {*like.chosen_names, *like.pair_names} <= set(order):
        like = None
    pair = _positions(extent.pair if like is None else like.pair_names, order)
    with clock.phase("step sizes", len(bench.layerwise.names)) as tick:
        candidates = bench.layerwise.for_p(bench.p_values, tick)
    with clock.phase("quadratic", 1 + most_losses(bench.p_values)) as tick:
        start = fit_over_p(bench, candidates, tick)
    size = min(extent.hessian, len(order))
    objective = bench.objective(start.steps)
    with clock.phase("landscape", _evaluations(len(order), size, extent)) as tick:
        loss, point = counting(objective.at_multiples, tick), np.ones(len(order))
        near = bends(loss, point, extent.distance)
        chosen = np.sort(np.argsort(-np.abs(near.curvature), kind="stable")[:size])
        if like is not None:
            chosen = np.sort([order.index(name) for name in like.chosen_names])
        bent = hessian(loss, point, extent.distance, chosen)
        if pair is None:
            first, second = most_coupled(bent.values)
            pair = int(chosen[first]), int(chosen[second])
        axis = np.linspace(1 - extent.span, 1 + extent.span, extent.grid)
        heights = surface(loss, point, pair, axis, axis)
    return View(
        weight_bits=config.weight_bits,
        activation_bits=config.activation_bits,
        loss=bench.loss.name,
        quantizers=tuple(order),
        step_sizes=objective.start,
        fit=start.fit,
        bends=near,
        chosen=chosen,
        hessian=bent,
        coupling=coupling(bent),
        curvature=curvature(bent.values, bent.gradient),
        pair=pair,
        axis=axis,
        surface=heights,
        errors=(_errors(bench.layerwise, order[pair[0]]), _errors(bench.layerwise, order[pair[1]])),
        evaluations=bench.evaluations,
    )


def _evaluations(count: int, size: int, extent: Extent) -> int:
    return 1 + 2 * count + evaluations(size) + extent.grid**2


def _positions(pair: tuple[str, str] | None, order: Sequence[str]) -> tuple[int, int] | None:
    if len(order) < 2:
        raise ConfigError("a landscape needs two quantizers or more, and this choice of nodes leaves one")
    if pair is None:
        return None
    for name in pair:
        if name not in order:
            raise ConfigError(f"there is no searched quantizer {name!r}; there are: {', '.join(order)}")
    if pair[0] == pair[1]:
        raise ConfigError(f"the surface was asked for over {pair[0]!r} twice; name two quantizers")
    return order.index(pair[0]), order.index(pair[1])


def _errors(layerwise: LayerwiseSteps, name: str) -> ErrorCurves:
    distribution, grid = layerwise.distribution(name)
    steps, errors = lp_errors(distribution, grid, _SHOWN_P, _ERROR_POINTS)
    return ErrorCurves(steps, _SHOWN_P, errors)
