"""Layers that nobody trained: the transforms with which a model of sound begins.

1. A short-time Fourier transform, written as a convolution of one input channel along one axis, or as a
   product with a matrix: every row of the weight is a sine or cosine in a window, which few neighbouring
   frequencies make up.
2. A mel filter bank, a product with a matrix: every row is one hump of positive values, all else is zero, and
   the humps stand in order.

Such a layer reads the wave or its power, whose loud parts are thousands of times as large as the quiet parts
that matter too: 8 bits for both are too few. The same holds of the first layer behind them, unless a
logarithm or a normalization stands in between.
"""

from collections.abc import Set

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from onnx_lapq.common.arrays import Float32Array
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.layer_kinds import LayerKind, kind_of, weights_of

__all__ = ["is_fixed_transform", "reads_a_spectrum"]

_LEAST_ROWS = 16
_LEAST_TAPS = 32
_BAND = 5
"""Neighbouring frequencies that make up a sine in a window, one between two frequencies included."""
_IN_BAND = 0.9
"""Share of the energy of a row that these have at least, in this share of the rows."""
_DISTINCT = 0.25
"""Share of the frequencies, or of the rows where these are fewer, that there are at least."""
_IN_HUMPS = 0.25
"""Share of a filter bank that is not zero, at most."""
_LEVELLING = frozenset(
    {
        *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Log"),
        *("LpNormalization", "MeanVarianceNormalization", "Sigmoid", "Softmax", "Tanh"),
    }
)
"""Operators behind which loud and quiet parts are near each other."""
_LEAST_POWER = 0.5
"""Exponents below it level too; this one makes a magnitude of a power."""


def is_fixed_transform(node: ir.Node) -> bool:
    """Whether a layer is one of these transforms, by the numbers of its weight."""
    layer = kind_of(node)
    if layer is None or node.op_type not in ("Conv", "Gemm", "MatMul") or not _reads_a_signal(layer):
        return False
    tensor = constant(layer.weight)
    assert tensor is not None
    rows = layer.rows(tensor.numpy())
    if len(rows) < _LEAST_ROWS or rows.shape[1] < _LEAST_TAPS:
        return False
    return _are_humps(rows) or (_are_sines(rows[:: len(rows) // _LEAST_ROWS]) and _are_sines(rows))


def reads_a_spectrum(node: ir.Node, transforms: Set[ir.Node]) -> bool:
    """Whether what a layer reads comes from one of these transforms, and nothing on the way levels it."""
    pending, seen = list(node.predecessors()), {node}
    while pending:
        before = pending.pop()
        if before in transforms:
            return True
        if before not in seen and not _levels(before) and not weights_of(before):
            pending.extend(before.predecessors())
        seen.add(before)
    return False


def _levels(node: ir.Node) -> bool:
    exponent = constant(node.inputs[1]) if node.op_type == "Pow" else None
    small = exponent is not None and bool((exponent.numpy() < _LEAST_POWER).all())
    return small or node.op_type in _LEVELLING


def _reads_a_signal(layer: LayerKind) -> bool:
    """Whether the weight meets all values of a vector, or windows along one axis of one channel."""
    if layer.weight is None:
        return False
    if layer.node.op_type != "Conv":
        return len(layer.shape) == 2
    channels, *taps = layer.shape[1:]
    long = sum(size > 1 for size in taps)
    return layer.groups == 1 and (long == 0 or (long == channels == 1))


def _are_sines(rows: Float32Array) -> bool:
    """Whether nearly every row that is not zero has few frequencies, and not all have the same."""
    rows = rows[:, rows.any(axis=0)]
    if rows.shape[1] < 2 * _BAND or not np.isfinite(rows).all():
        return False
    power = np.square(np.abs(np.fft.rfft(rows, axis=1)))
    energy = power.sum(axis=1)
    power = power[energy > 1e-6 * energy.max()]
    bands = sliding_window_view(power, _BAND, axis=1).sum(axis=2)
    narrow = bands.max(axis=1) >= _IN_BAND * power.sum(axis=1)
    distinct = len(np.unique(bands.argmax(axis=1))) / min(bands.shape)
    return bool(narrow.mean() >= _IN_BAND and distinct >= _DISTINCT)


def _are_humps(rows: Float32Array) -> bool:
    """Whether every row is positive in one piece, and their peaks ascend."""
    if not (rows >= 0).all() or (rows > 0).mean() > _IN_HUMPS:
        return False
    rows = rows[rows.any(axis=1)]
    if len(rows) < _LEAST_ROWS:
        return False
    starts = np.diff((rows > 0).astype(np.int8), axis=1, prepend=0) > 0
    return bool((starts.sum(axis=1) == 1).all() and (np.diff(rows.argmax(axis=1)) >= 0).all())
