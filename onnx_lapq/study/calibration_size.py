"""What the number of calibration samples does to the quantized network (docs/method.md, "Landscape")."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.capture import by_sample, stacked
from onnx_lapq.calibration.samples import Samples, subset, take
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.method.combined_loss import AUTO, combine
from onnx_lapq.method.measures import top_shares
from onnx_lapq.network.bench import Bench, set_up
from onnx_lapq.network.float_network import float_runs
from onnx_lapq.network.padding import padding_mask
from onnx_lapq.progress import Clock, silent
from onnx_lapq.stages.found import Found
from onnx_lapq.stages.joint import search_jointly
from onnx_lapq.stages.start import find_start

__all__ = ["SizePoint", "hold_out", "measure_sizes"]

_HELD_OUT = 5
"""One of so many samples is held out where no test data is given."""


@dataclass(frozen=True)
class SizePoint:
    """A network made from some calibration samples, on samples that had no part in it.

    Attributes:
        weight_bits: Bits of the weights.
        activation_bits: Bits of the activations.
        samples: Number of calibration samples.
        loss: Mean loss on the held-out samples.
        accuracy: Share of them whose best class is the label; None without labels or class scores.
    """

    weight_bits: int
    activation_bits: int
    samples: int
    loss: float
    accuracy: float | None


def hold_out(samples: Samples) -> tuple[Samples, Samples]:
    """Split off every fifth sample: what is left, and what is held out."""
    positions = np.arange(len(samples))
    held = positions % _HELD_OUT == _HELD_OUT // 2
    return subset(samples, positions[~held]), subset(samples, positions[held])


def measure_sizes(
    prepared: ir.Model,
    pool: Samples,
    held_out: Samples,
    sizes: Sequence[int],
    config: QuantizationConfig,
    clock: Clock,
) -> list[SizePoint]:
    """Quantize with ever more samples of a pool: step sizes and joint step, nearest rounding.

    Args:
        prepared: The prepared float model.
        pool: Where the calibration samples come from, evenly over the classes.
        held_out: What every network is judged on.
        sizes: Numbers of samples.
        config: Options of the runs.
        clock: Told of progress.

    Raises:
        ConfigError: A size is larger than the pool, or not positive.
        InputError: The model or the samples are no good.
    """
    if not all(0 < size <= len(pool) for size in sizes):
        raise ConfigError(f"sizes are {list(sizes)}, but {len(pool)} samples are there to choose from")
    config = replace(config, rounding="nearest").resolved()
    points = []
    with clock.phase("sizes", len(sizes)) as tick:
        for size in sizes:
            bench = set_up(
                prepared, place(prepared, config.placement_options()), take(pool, size), config, Clock(silent)
            )
            points.append(_judge(bench, _quantized(bench), held_out, config))
            tick(len(points), min(point.loss for point in points))
    return points


def _quantized(bench: Bench) -> ir.Model:
    """The network after the joint step."""
    found = Found()
    for stage in (find_start, search_jointly):
        found = stage(bench, found, lambda found: None)
    return bench.network.written(bench.network.point(found.steps))


def _judge(bench: Bench, model: ir.Model, held_out: Samples, config: QuantizationConfig) -> SizePoint:
    """The loss on held-out samples; plain KL where the search took the softened one by itself."""
    reference = _outputs(bench, bench.network.model, held_out)
    outputs = _outputs(bench, model, held_out)
    plain = config.loss == AUTO
    parts = [
        replace(part, loss="kl") if plain and part.loss == "soft-kl" else part for part in bench.loss.parts
    ]
    wanted = dict(zip(bench.captured.names, reference, strict=True))
    loss = combine(parts, wanted, held_out.labels, padding_mask(held_out)).by_sample
    return SizePoint(
        config.weight_bits,
        config.activation_bits,
        len(bench.samples),
        float(loss(outputs, slice(0, len(held_out))).mean()),
        _accuracy(outputs, held_out.labels),
    )


def _outputs(bench: Bench, model: ir.Model, samples: Samples) -> list[np.ndarray]:
    """Outputs on all samples, in the order of the loss."""
    names, config = bench.captured.names, bench.config
    batch = min(bench.sizes.plain, len(samples))
    parts = [
        values for _, values in float_runs(model, samples, batch, config.threads, config.provider)(names)
    ]
    axes = bench.captured.axes
    return [stacked([by_sample(values[name], axes[name]) for values in parts]) for name in names]


def _accuracy(outputs: Sequence[np.ndarray], labels: np.ndarray | None) -> float | None:
    scores = outputs[0]
    if labels is None or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    if scores.ndim != 2 or scores.shape[1] < 2:
        return None
    return top_shares(scores, labels)[0]
