"""Outputs that hold minus infinity, such as scores of classes that a mask rules out."""

from collections.abc import Sequence

import numpy as np

from onnx_lapq.common.arrays import AnyArray

__all__ = ["lowest_where_masked", "unmasked"]


def lowest_where_masked(references: Sequence[AnyArray]) -> float | None:
    """The lowest finite value of an output; None where none of its values is minus infinity."""
    masked = [values == -np.inf for values in references if values.dtype.kind == "f"]
    if not any(where.any() for where in masked):
        return None
    finite = [values[~where].min(initial=np.inf) for values, where in zip(references, masked, strict=True)]
    return float(lowest) if np.isfinite(lowest := min(finite)) else 0.0


def unmasked(values: AnyArray, lowest: float | None) -> AnyArray:
    """The values with a number for minus infinity, which no loss can compute with."""
    if lowest is None:
        return values
    return np.where(values == -np.inf, values.dtype.type(lowest), values)
