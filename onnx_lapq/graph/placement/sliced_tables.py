"""Tables of which a run takes a slice, such as the positions of as many tokens as there are.

What a table holds is not known: embeddings of positions, sines of rotary ones, a mask. 16 bits are enough for
these, and half of the file's bytes. Whole numbers may be places of something, and very large ones stand for
infinity: both are left as they are.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from onnx_lapq.graph.attributes import constant

__all__ = ["sliced_tables"]

_LEAST_VALUES = 1024
"""Smaller tables would save less than the nodes that unpack them take."""
_LARGE = 1e4
"""What masks have in place of minus infinity is larger."""


def sliced_tables(nodes: Iterable[ir.Node]) -> Iterator[ir.Value]:
    """The constants of two or more axes that nodes take slices of, each once.

    Args:
        nodes: The Slice nodes of a prepared graph.
    """
    for value in dict.fromkeys(node.inputs[0] for node in nodes):
        tensor = constant(value)
        if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        fits = len(tensor.shape) >= 2 and tensor.size >= _LEAST_VALUES
        if fits and _is_rounded_well(tensor.numpy()):
            yield value


def _is_rounded_well(table: np.ndarray) -> bool:
    """Whether 16 bits are enough for what a table may hold."""
    return bool((np.abs(table) < _LARGE).all()) and not np.array_equal(table, np.rint(table))
