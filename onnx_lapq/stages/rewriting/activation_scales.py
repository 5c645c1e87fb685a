"""Make the inputs of layers easy to quantize: outlier channels move into the weights."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.arrays import Float32Array, FloatArray
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.layer_kinds import LayerKind
from onnx_lapq.graph.placement.sites import Placement, WeightSite
from onnx_lapq.graph.rewriting.activation_scales import Product, divide, products
from onnx_lapq.method.activation_scales import Matrix, best_divisors
from onnx_lapq.network.batching import small_batch, some_samples
from onnx_lapq.network.float_network import FloatRuns, float_runs
from onnx_lapq.stages.rewriting.observing import HELD_OUT, SAMPLES, held_out

__all__ = ["move_scales"]

_ROWS = 256
"""Rows that the outputs are compared on."""
_LEAST_ROWS = 16
"""Fewer rows tell nothing: divisors that suit them cut off what others hold."""
_GAIN, _GAIN_OF_A_NODE = 0.9, 0.5
"""Shares of the error that divisors have to leave at most: without cost, and where they take a Mul."""


def move_scales(model: ir.Model, placement: Placement, samples: Samples, config: QuantizationConfig) -> int:
    """Divide outlier channels of the inputs of layers where that lowers the error of their outputs.

    What the float network computes stays the same.

    Args:
        model: A prepared model; changed in place.
        placement: Its quantizers.
        samples: The calibration set.
        config: Options of the run.

    Returns:
        The number of values whose channels were divided.
    """
    found = products(model, placement)
    if not found:
        return 0
    few = some_samples(model, samples, SAMPLES)
    runs = float_runs(model, few, small_batch(model, few), config.threads, config.provider)
    ranges, rows = _observed(found, few, runs)
    moved = 0
    for product in found:
        name = product.value.name or ""
        if not _is_finite(ranges.get(name)) or not _is_finite(rows.get(name)):
            continue
        if rows[name].shape[1] < _LEAST_ROWS:
            continue
        matrices = [_matrix(*pair) for pair in zip(product.layers, product.weights, strict=True)]
        if any(matrix.values.shape[-2] != rows[name].shape[-1] for matrix in matrices):
            continue  # the layer does not fit its input, and onnxruntime does not load the model
        with np.errstate(over="ignore", invalid="ignore"):  # an error that overflows is no gain
            divisors, left = best_divisors(rows[name], ranges[name], matrices, product.bits)
        if left < (_GAIN if product.writers else _GAIN_OF_A_NODE):
            divide(model.graph, product, divisors)
            moved += 1
    return moved


def _is_finite(values: np.ndarray | None) -> bool:
    """Whether there are values, and none overflowed; the calibration refuses what did."""
    return values is not None and bool(np.isfinite(values).all())


def _observed(
    found: Sequence[Product], samples: Samples, run_float: FloatRuns
) -> tuple[dict[str, FloatArray], dict[str, Float32Array]]:
    """Largest absolute value of every channel, and some rows of samples that had no part in it."""
    ranges: dict[str, FloatArray] = {}
    rows: dict[str, list[Float32Array]] = {}
    by_name = {product.value.name or "": product for product in found}
    per_sample = -(-_ROWS * HELD_OUT // len(samples))
    for where, values in run_float(list(by_name)):
        judges = held_out(where)
        for name, batch in values.items():
            if batch.shape[:1] != judges.shape:
                continue
            product = by_name[name]
            if not judges.all():
                channels = np.moveaxis(batch[~judges], product.axis, 0)
                seen = np.abs(channels.reshape(len(channels), -1)).max(axis=1).astype(np.float64)
                ranges[name] = np.maximum(ranges.get(name, 0.0), seen)
            if judges.any():
                part = product.layers[0].inputs(batch[judges], where.start, per_sample)
                rows.setdefault(name, []).append(part)
    return ranges, {name: np.concatenate(parts, axis=1) for name, parts in rows.items()}


def _matrix(layer: LayerKind, site: WeightSite | None) -> Matrix:
    assert layer.weight is not None
    assert layer.weight.const_value is not None
    rows = layer.rows(layer.weight.const_value.numpy().astype(np.float32))
    values = rows.reshape(layer.groups, -1, rows.shape[1]).transpose(0, 2, 1)
    return Matrix(values, None if site is None else site.bits, site is not None and site.per_channel)
