"""A network on the bench: calibrated, and ready to be evaluated at any step sizes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.capture import Capture
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ModelError
from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.writing.segments import Simulation, simulate
from onnx_lapq.method.sample_loss import CustomLoss, SampleLoss, custom_loss, default_loss, make_loss
from onnx_lapq.network.float_network import calibrate, float_runs
from onnx_lapq.network.layers import Encoder, read_layers
from onnx_lapq.network.network import Network, search_order
from onnx_lapq.network.step_sizes import LayerwiseSteps, activation_grid
from onnx_lapq.progress import Clock
from onnx_lapq.stages.rounding import Rounder
from onnx_lapq.stages.search import Search

__all__ = ["Workbench", "set_up"]


@dataclass(frozen=True)
class Workbench:
    """What a search over step sizes works with.

    Attributes:
        network: The network.
        samples: The calibration set.
        captured: What the float network did on it.
        batch: Samples per session run.
        workers: Threads.
        provider: What runs the sessions.
        loss: Name of the loss.
        sample_loss: The loss itself.
        layerwise: Step sizes for any p.
        simulation: The network in segments.
        evaluator: Its loss at any point; counts.
    """

    network: Network
    samples: Samples
    captured: Capture
    batch: int
    workers: int
    provider: str
    loss: str
    sample_loss: SampleLoss
    layerwise: LayerwiseSteps
    simulation: Simulation
    evaluator: SegmentEvaluator

    @property
    def reference(self) -> list[np.ndarray]:
        """Outputs of the float network on all samples."""
        return list(self.captured.outputs.values())

    def search(self, config: QuantizationConfig) -> Search:
        """A search over the step sizes."""
        order = search_order(self.simulation.segments, self.network.placement)
        return Search(
            self.network, self.evaluator, self.layerwise, order, len(self.samples), self.loss, config
        )

    def rounder(self, search: Search) -> Rounder:
        """Compensated rounding of its weights."""
        return Rounder(
            self.network,
            self.evaluator,
            self.simulation.probes,
            search.guard,
            float_runs(self.network.model, self.samples, self.batch, self.workers, self.provider),
            len(self.samples),
        )


def set_up(
    prepared: ir.Model,
    placement: Placement,
    samples: Samples,
    config: QuantizationConfig,
    clock: Clock,
    loss: CustomLoss | None = None,
) -> Workbench:
    """Run the float network over the samples and make its quantized double ready.

    Args:
        prepared: The prepared float model.
        placement: Its quantizers.
        samples: The calibration set.
        config: Options.
        clock: Told of the phase ``calibrate``.
        loss: The caller's own, instead of ``config.loss``.

    Raises:
        InputError: A weight or an activation is not finite, or labels do not fit.
        RunError: A sample does not fit the model.
    """
    workers = config.threads
    with clock.phase("calibrate", len(samples)) as tick:
        captured, batch = calibrate(prepared, placement, samples, workers, tick, config.provider)
    network = _network(prepared, placement, captured, config)
    name, sample_loss = _loss(captured.outputs, samples.labels, config, loss)
    layerwise = LayerwiseSteps(
        placement.activations, network.grids, captured.histograms, network.layers, workers
    )
    simulation = simulate(network.written(network.point(layerwise.minmax())), placement)
    evaluator = _evaluator(simulation, list(captured.outputs), samples, sample_loss, batch, config)
    return Workbench(
        network,
        samples,
        captured,
        batch,
        workers,
        config.provider,
        name,
        sample_loss,
        layerwise,
        simulation,
        evaluator,
    )


def _evaluator(
    simulation: Simulation,
    outputs: list[str],
    samples: Samples,
    loss: SampleLoss,
    batch: int,
    config: QuantizationConfig,
) -> SegmentEvaluator:
    options: dict[str, Any] = {
        "batch_size": batch,
        "workers": config.threads,
        "memory": config.memory,
        "precise": config.runtime().needs_precise_kernels,
        "provider": config.provider,
    }
    if config.executor == "local":
        return SegmentEvaluator(simulation.segments, outputs, samples, loss, **options)
    from onnx_lapq.evaluation.ray_evaluator import RayEvaluator

    return RayEvaluator(simulation.segments, outputs, samples, loss, actors=config.workers, **options)


def _loss(
    reference: dict[str, np.ndarray],
    labels: np.ndarray | None,
    config: QuantizationConfig,
    function: CustomLoss | None,
) -> tuple[str, SampleLoss]:
    """Name of the loss of a run, and the loss."""
    if function is not None:
        return "custom", custom_loss(function, reference, labels)
    outputs = list(reference.values())
    soft = config.method == "lapq" and config.rounding == "nearest"
    name = default_loss(outputs, soft) if config.loss == "auto" else config.loss
    return name, make_loss(name, outputs, labels)


def _network(
    prepared: ir.Model, placement: Placement, captured: Capture, config: QuantizationConfig
) -> Network:
    target = config.runtime()
    layers = read_layers(prepared, placement.weights, captured.means if config.bias_correction else {})
    for name, layer in layers.items():
        if not np.isfinite(layer.values).all():
            raise ModelError(f"weight {name!r} holds NaN or infinity; export the model again")
    grids = {
        site.name: activation_grid(
            captured.histograms[site.value], site.bits, symmetric=target.signed_activations
        )
        for site in placement.activations
    }
    return Network(prepared, placement, grids, layers, Encoder(layers, target), target)
