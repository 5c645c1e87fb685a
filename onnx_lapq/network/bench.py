"""A network on the bench: calibrated, and ready to be evaluated at any step sizes."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_lapq.calibration.balancing import evenly
from onnx_lapq.calibration.capture import Capture, as_given
from onnx_lapq.calibration.samples import Samples, batches
from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.evaluation.protocols import LossFunction
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.writing.segments import Simulation, simulate
from onnx_lapq.method.combined_loss import Loss, describe
from onnx_lapq.method.losses import CustomLoss
from onnx_lapq.method.parts import Part
from onnx_lapq.network.batching import BatchSizes
from onnx_lapq.network.encoder import Encoder, FixedCodes
from onnx_lapq.network.float_network import calibrate
from onnx_lapq.network.layer_windows import FloatOutputs, LayerWindows, rounded_layers
from onnx_lapq.network.layers import Layer, read_layers, with_means
from onnx_lapq.network.loss import compared_parts, has_rare_scores, run_loss
from onnx_lapq.network.network import Network, search_order
from onnx_lapq.network.objective import Objective
from onnx_lapq.network.step_sizes import LayerwiseSteps, Steps, activation_grid
from onnx_lapq.progress import Clock

__all__ = ["Bench", "set_up"]

logger = logging.getLogger(__name__)

_P_VALUES = {"compensated": (4, 1), "nearest": (6, 4)}
"""Values of p that are tried by the rounding that follows, at few bits and at many."""

_ENOUGH_SAMPLES, _ENOUGH_BATCHES, _LEAST_SHARE = 32, 8, 4
"""Where all tensors have many bits and losses decide little, stages are judged by about so many samples and
batches, or by one batch of so many if that is more."""

_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it lie evenly between 0 and 1 and have no rhythm that the guard could have."""


@dataclass(frozen=True)
class Bench:
    """What the stages of a run work with; none of them changes it.

    Attributes:
        network: The network.
        samples: The calibration set.
        captured: What the float network did on it.
        outputs: Outputs of its layers, for compensated rounding; None for nearest rounding.
        sizes: Samples per session run.
        guard: Positions of the samples that the joint step does not minimise, spread evenly.
        loss: What the search minimises.
        layerwise: Step sizes for any p.
        simulation: The network in segments.
        evaluator: Its loss at any point; counts.
        config: Options of the run.
        clock: Told of the phases; knows how long the run takes.
    """

    network: Network
    samples: Samples
    captured: Capture
    outputs: FloatOutputs | None
    sizes: BatchSizes
    guard: npt.NDArray[np.intp]
    loss: Loss
    layerwise: LayerwiseSteps
    simulation: Simulation
    evaluator: SegmentEvaluator
    config: QuantizationConfig
    clock: Clock

    @cached_property
    def reference_losses(self) -> FloatArray:
        """What the loss makes of the float network's own outputs on the judging samples, float64 [n]."""
        losses, axes = [], self.captured.axes
        for block in self.captured.blocks:
            for at in batches([block.at.stop - block.at.start], self.sizes.plain):
                outputs = [as_given(values[at], axes[name]) for name, values in block.outputs.items()]
                start = block.at.start
                losses.append(self.loss.by_sample(outputs, slice(start + at.start, start + at.stop)))
        return np.concatenate(losses)[self.judging]

    @property
    def order(self) -> list[str]:
        """Names of the searched quantizers, in topological order."""
        return search_order(self.simulation.segments, self.network.placement)

    @property
    def compared_parts(self) -> tuple[Part, ...]:
        """What to compare in the outputs of two models: what the loss would look at, had nobody named one."""
        return compared_parts(self.network.model, self.captured, self.samples, self.config.loss)

    @property
    def evaluations(self) -> int:
        """Loss evaluations of the run so far."""
        return self.evaluator.evaluations

    def with_codes(self, codes: Mapping[str, FixedCodes]) -> Self:
        """The same bench with the network of these codes."""
        return replace(self, network=self.network.with_codes(codes))

    @property
    def has_few_bits(self) -> bool:
        """Whether a tensor that the search moves has so few bits that the search pays.

        Where all have 7 bits and more it seldom gains anything (docs/measurements/search.md).
        """
        return self.network.placement.has_few_bits

    @property
    def searches_jointly(self) -> bool:
        """Whether the run has a joint step."""
        return _searches_jointly(self.config, self.network.placement)

    @property
    def p_values(self) -> tuple[float, ...]:
        """The p of the layer-wise step sizes that are tried, ascending."""
        of_few_bits, of_many_bits = _P_VALUES[self.config.rounding]
        count = of_few_bits if self.has_few_bits else of_many_bits
        return self.config.p_values or tuple(np.linspace(2, 4, count).tolist())

    def losses(self, steps: Steps) -> FloatArray:
        """Loss of every sample at step sizes of all quantizers, float64 [samples]; one evaluation."""
        return self.evaluator.losses(self.network.point(steps))

    @cached_property
    def judging(self) -> npt.NDArray[np.intp]:
        """Positions of the samples that stages are judged by: of all, or of some where these tell enough."""
        return np.concatenate([np.arange(at.start, at.stop) for at in self._judging_batches.values()])

    def stage_losses(self, steps: Steps) -> FloatArray:
        """Losses of the judging samples at step sizes of all quantizers, float64 [n]; one evaluation."""
        if len(self._judging_batches) == len(self.evaluator.batches):
            return self.losses(steps)
        return self.evaluator.some_losses(self.network.point(steps), list(self._judging_batches))

    @cached_property
    def _judging_batches(self) -> dict[int, slice]:
        """Batches of the evaluator by index: a share, and the first of every shape of samples."""
        batches, share = self.evaluator.batches, 1.0
        is_rounded_only = self.config.rounding == "compensated" and not self.searches_jointly
        if is_rounded_only and not self.has_few_bits and self.config.executor == "local":
            enough = min(len(self.samples) / _ENOUGH_SAMPLES, len(batches) / _ENOUGH_BATCHES)
            share = 1 / float(np.clip(enough, 1, _LEAST_SHARE))
        firsts = np.cumsum([0, *self.samples.groups])[:-1]
        return {
            index: at for index, at in enumerate(batches) if index * _GOLDEN % 1 < share or at.start in firsts
        }

    def objective(self, steps: Steps, *, guarded: bool = True) -> Objective:
        """The loss as a function of the searched step sizes, which start at the given ones.

        Args:
            steps: Step sizes of all quantizers.
            guarded: Leave the guard samples out of the loss.
        """
        order = self.order
        limits = np.array([self.layerwise.limit(name) for name in order])
        guard = self.guard if guarded else np.empty(0, dtype=np.intp)
        return Objective(self.network, self.evaluator, steps, order, limits, guard)

    def out_of_time(self) -> bool:
        """Whether the run has had its minutes: every stage asks before each piece of its work."""
        return self.clock.is_past(self.config.max_minutes)


def set_up(
    prepared: ir.Model,
    placement: Placement,
    samples: Samples,
    config: QuantizationConfig,
    clock: Clock,
    loss: CustomLoss | None = None,
    evaluations: int = 0,
) -> Bench:
    """Run the float network over the samples and make its quantized double ready.

    Args:
        prepared: The prepared float model.
        placement: Its quantizers.
        samples: The calibration set.
        config: Options.
        clock: Told of the phase ``calibrate``.
        loss: The caller's own, instead of ``config.loss``.
        evaluations: Loss evaluations that the run has spent already.

    Raises:
        InputError: A weight or an activation is not finite, or labels do not fit.
        RunError: A sample does not fit the model.
    """
    guard = evenly(len(samples), int(len(samples) * config.guard))
    layers = read_layers(prepared, placement.weights, shifts=config.runtime().shifted_weights)
    outputs, joint = None, _searches_jointly(config, placement)
    if config.rounding == "compensated":
        windows = LayerWindows(samples, guard, few_bits=placement.has_few_bits)
        outputs = FloatOutputs(rounded_layers(layers.values()), windows, config.memory // (4 if joint else 2))
    with clock.phase("calibrate", len(samples)) as tick:
        captured, sizes = calibrate(
            prepared, placement, samples, config.threads, tick, config.provider, outputs
        )
    keeps_rare = has_rare_scores(prepared, captured, samples)
    network = _network(prepared, placement, layers, captured, config, keeps_rare=keeps_rare)
    chosen = run_loss(prepared, captured, samples, config, loss)
    logger.info("loss: %s", describe(chosen.parts))
    layerwise = LayerwiseSteps(
        placement.activations,
        network.grids,
        captured.histograms,
        network.layers,
        config.threads,
    )
    simulation = simulate(network.written(network.point(layerwise.minmax())), placement, by_layer=not joint)
    memory = config.memory if joint else config.memory // 2
    evaluator = _evaluator(
        simulation, captured, samples, chosen.by_sample, sizes.plain, config, evaluations, memory
    )
    return Bench(
        network=network,
        samples=samples,
        captured=captured,
        outputs=outputs,
        sizes=sizes,
        guard=guard,
        loss=chosen,
        layerwise=layerwise,
        simulation=simulation,
        evaluator=evaluator,
        config=config,
        clock=clock,
    )


def _searches_jointly(config: QuantizationConfig, placement: Placement) -> bool:
    """Whether there is a joint step, which comes back to values that are remembered more than any other."""
    optimizer = config.optimizer
    return optimizer != "none" and (optimizer != "auto" or placement.has_few_bits)


def _evaluator(
    simulation: Simulation,
    captured: Capture,
    samples: Samples,
    loss: LossFunction,
    batch: int,
    config: QuantizationConfig,
    evaluations: int,
    memory: int,
) -> SegmentEvaluator:
    options: dict[str, Any] = {
        "batch_size": batch,
        "workers": config.threads,
        "memory": memory,
        "precise": config.runtime().needs_precise_kernels,
        "provider": config.provider,
        "evaluations": evaluations,
    }
    outputs = captured.names
    if config.executor == "local":
        return SegmentEvaluator(simulation.segments, outputs, samples, loss, **options)
    from onnx_lapq.evaluation.ray_evaluator import RayEvaluator

    return RayEvaluator(simulation.segments, outputs, samples, loss, actors=config.workers, **options)


def _network(
    prepared: ir.Model,
    placement: Placement,
    layers: Mapping[str, Layer],
    captured: Capture,
    config: QuantizationConfig,
    *,
    keeps_rare: bool,
) -> Network:
    target = config.runtime()
    if config.bias_correction:
        layers = with_means(layers, captured.means)
    grids = {
        site.name: activation_grid(
            captured.histograms[site.value],
            site.bits,
            symmetric=target.signed_activations,
            curve=site.curve,
            cuts_off=site.cuts_off,
            keeps_rare=keeps_rare,
        )
        for site in placement.activations
    }
    return Network(prepared, placement, grids, layers, Encoder(layers, target), target)
