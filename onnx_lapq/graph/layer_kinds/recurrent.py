"""Recurrent operators: they compute in float, on two weights that are stored in codes.

An LSTM, a GRU or an RNN has a weight for its input, ``W`` [directions, gates * hidden, input], and one for
its state, ``R`` [directions, gates * hidden, hidden]. Every gate of every hidden value, in every direction,
is a row with a scale of its own.
"""

from math import prod

import numpy as np

from onnx_lapq.graph.layer_kinds.layer_kind import LayerKind, Shape

__all__ = ["InputWeight", "StateWeight"]


class _Recurrent(LayerKind):
    """What both weights share."""

    data_indices = ()
    in_float = True
    is_plain = False

    @property
    def stored_shape(self) -> Shape:
        """One matrix, the rows of all directions below each other."""
        *rows, width = self.shape
        return prod(rows), width

    @property
    def output_channels(self) -> int:
        """Those of all directions."""
        return self.stored_shape[0]

    def rows(self, values: np.ndarray) -> np.ndarray:
        """The stored matrix."""
        return values.reshape(self.stored_shape)

    def from_rows(self, rows: np.ndarray) -> np.ndarray:
        """The same way back."""
        return rows.reshape(self.stored_shape)


class InputWeight(_Recurrent):
    """The weight that meets the input."""

    weight_index = 1


class StateWeight(_Recurrent):
    """The weight that meets the state of the step before."""

    weight_index = 2
