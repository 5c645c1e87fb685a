"""A small model taken through the pipeline's stages, for tests of the stages."""

from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
from small_models import feeds

from onnx_lapq import quantize
from onnx_lapq.calibration.capture import Capture
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.evaluation.evaluator import SegmentEvaluator
from onnx_lapq.evaluation.runner import Point
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.graph.writing.segments import Simulation, simulate
from onnx_lapq.job import checked, open_job, set_up_run
from onnx_lapq.method.combined_loss import combine
from onnx_lapq.method.losses import make_loss
from onnx_lapq.method.parts import Part
from onnx_lapq.network.batching import BatchSizes
from onnx_lapq.network.bench import Bench
from onnx_lapq.network.encoder import Encoder
from onnx_lapq.network.float_network import calibrate, float_runs
from onnx_lapq.network.layer_windows import FloatOutputs, LayerWindows, rounded_layers
from onnx_lapq.network.layers import read_layers, with_means
from onnx_lapq.network.network import Network
from onnx_lapq.network.step_sizes import LayerwiseSteps, Steps, activation_grid
from onnx_lapq.progress import Clock, silent
from onnx_lapq.stages.found import Attempt, Found
from onnx_lapq.stages.rounder import Rounder


@dataclass(frozen=True)
class Arrays:
    """Samples held as arrays."""

    feeds: dict[str, np.ndarray]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    @property
    def groups(self) -> tuple[int, ...]:
        return (len(self),)

    @property
    def axes(self) -> dict[str, int | None]:
        return {}

    def batch(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: np.ascontiguousarray(values[start:stop]) for name, values in self.feeds.items()}

    def describe(self) -> dict[str, object]:
        return {"kind": "test"}


@dataclass(frozen=True)
class Quantized:
    """A network that is ready to be evaluated."""

    network: Network
    simulation: Simulation
    samples: Arrays
    captured: Capture
    layerwise: LayerwiseSteps
    steps: Steps
    batches: BatchSizes
    config: QuantizationConfig

    @property
    def outputs(self) -> list[np.ndarray]:
        (block,) = self.captured.blocks
        return list(block.outputs.values())

    @property
    def placement(self) -> Placement:
        return self.network.placement

    def at_most(self, batch: int) -> int:
        """So many samples of a run, or as many as the network takes."""
        return min(batch, self.batches.plain)

    def evaluator(
        self,
        batch: int = 4,
        workers: int = 1,
        memory: int = 1 << 30,
        loss=None,
        provider: str = "CPUExecutionProvider",
    ) -> SegmentEvaluator:
        return SegmentEvaluator(
            self.simulation.segments,
            [value.name for value in self.network.model.graph.outputs if value.producer() is not None],
            self.samples,
            loss or make_loss("mse", self.outputs),
            batch_size=self.at_most(batch),
            workers=workers,
            memory=memory,
            precise=self.network.target.needs_precise_kernels,
            provider=provider,
        )

    def bench(self, batch: int = 4, workers: int = 1, guard: slice = slice(0)) -> Bench:
        """The network on the bench; a slice of the samples guards."""
        guarding = np.arange(len(self.samples))[guard]
        return Bench(
            network=self.network,
            samples=self.samples,
            captured=self.captured,
            outputs=self.layer_outputs(guarding),
            sizes=BatchSizes(self.at_most(batch), self.at_most(batch)),
            guard=guarding,
            loss=combine([Part(name, "mse") for name in self.captured.names], self.captured.largest.outputs),
            layerwise=self.layerwise,
            simulation=self.simulation,
            evaluator=self.evaluator(batch, workers, self.config.memory),
            config=replace(self.config, workers=workers),
            clock=Clock(silent),
        )

    def layer_outputs(self, guard: np.ndarray, batch: int | None = None) -> FloatOutputs:
        """What calibration leaves of the float network's layers."""
        size = batch or self.batches.observed
        windows = LayerWindows(self.samples, guard, few_bits=self.network.placement.has_few_bits)
        found = FloatOutputs(rounded_layers(self.network.layers.values()), windows, self.config.memory // 8)
        for at, values in float_runs(self.network.model, self.samples, size, 1)(found.sources):
            found.append(found.look(values, at))
        return found

    def rounded(self, batch: int = 8, workers: int = 1, guard: slice = slice(0, None, 5)) -> "Quantized":
        """The same with the codes of compensated rounding."""
        rounder = Rounder(self.bench(batch, workers, guard))
        attempt = rounder.round(Attempt(None, self.steps), lambda done, attempt: None)
        return replace(self, network=self.network.with_codes(attempt.codes), steps=attempt.steps)

    def point(self) -> Point:
        return self.network.point(self.steps)

    def written(self) -> onnx.ModelProto:
        return ir.to_proto(self.network.written(self.point()))

    def simulated_outputs(self) -> np.ndarray:
        """Outputs of the simulated network on all samples."""
        parts = {}

        def keep(outputs: list[np.ndarray], where: slice) -> np.ndarray:
            parts[where.start] = outputs[0].copy()
            return np.zeros(where.stop - where.start)

        self.evaluator(loss=keep).losses(self.point())
        return np.concatenate([parts[start] for start in sorted(parts)])


def quantized(model: onnx.ModelProto, feeds: dict[str, np.ndarray], p: float = 2.4, **options) -> Quantized:
    """Prepare, place, calibrate and give every quantizer its layer-wise step size."""
    config = QuantizationConfig(**options)
    target = config.runtime()
    prepared = prepare(ir.from_proto(model), least_opset=config.least_opset())
    placement = place(prepared, config.placement_options())
    samples = Arrays(feeds)
    captured, sizes = calibrate(prepared, placement, samples, 1, lambda done: None)
    layers = with_means(read_layers(prepared, placement.weights), captured.means)
    grids = {
        s.name: activation_grid(
            captured.histograms[s.value],
            s.bits,
            symmetric=target.signed_activations,
            curve=s.curve,
        )
        for s in placement.activations
    }
    network = Network(prepared, placement, grids, layers, Encoder(layers, target), target)
    layerwise = LayerwiseSteps(placement.activations, grids, captured.histograms, layers, 1)
    (steps,) = layerwise.for_p([p], lambda done: None)
    by_layer = not placement.has_few_bits  # as in a run
    simulation = simulate(network.written(network.point(layerwise.minmax())), placement, by_layer=by_layer)
    return Quantized(network, simulation, samples, captured, layerwise, steps, sizes, config)


def decibels_of_moving(model: onnx.ModelProto, count: int) -> tuple[float, float]:
    """SNR of the one output of a quantized model, with scales that are moved and without."""
    images = feeds(model, count)["image"]
    found = []
    for moves in (True, False):
        (output,) = quantize(model, images, QuantizationConfig(move_scales=moves)).report.outputs
        assert output.snr_db is not None
        found.append(output.snr_db)
    return found[0], found[1]


def bench_of(
    model: onnx.ModelProto,
    count: int = 20,
    *,
    samples: dict[str, np.ndarray] | None = None,
    **options: object,
) -> Bench:
    """A model on the bench, as a run of these options puts it there; random samples where none are given."""
    config = checked(QuantizationConfig(move_scales=False, **options))  # type: ignore[arg-type]
    job = open_job(model, samples or feeds(model, count), config, Clock(silent))
    return set_up_run(job, config, Found(), lambda found: None)[0]
