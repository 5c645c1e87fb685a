"""Find where two models part that should compute the same.

Rounding grows on its way through a network, and a tie behind ArgMax makes much of little; so a value that
differs says nothing by itself. Each value is judged on its own instead: the user's model is cut at every
value that both models name, each piece reads what the *prepared* model computed before the cut, and what it
makes of that is compared with what the prepared model made of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnx_lapq.graph.observing import data_type, only_outputs
from onnx_lapq.runtime.session import Feeds, open_session, run

__all__ = ["Difference", "first_difference"]

_TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-3}
"""Bytes of a float to the rounding of one piece, as a share of a value and of the spread of all."""

_AGAIN = "__computed_again"
_RANDOM = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)


@dataclass(frozen=True)
class Difference:
    """The first value of the user's model that the prepared model computes otherwise."""

    value: str
    node: str
    op_type: str

    def __str__(self) -> str:
        return f"value {self.value!r} (node {self.node!r}, {self.op_type})"


def first_difference(given: ir.Model, prepared: ir.Model, feeds: Feeds) -> Difference | None:
    """Compare two models piece by piece.

    Args:
        given: The user's model; changed in place.
        prepared: The prepared model; left as it is.
        feeds: A batch, by input name.

    Returns:
        The first value in the user's order that differs by more than rounding; None where there is none.
    """
    common_passes.TopologicalSortPass()(given)
    types = _shared(given, prepared)
    computed = _computed(prepared, types, feeds)
    producers = {value.name: node for node in given.graph for value in node.outputs}
    again = _computed_again(given, types, {**feeds, **computed})
    for name, values in again.items():
        node = producers[name]
        if node.op_type not in _RANDOM and not _agree(computed[name], values):
            return Difference(name, node.name or "", node.op_type)
    return None


def _shared(given: ir.Model, prepared: ir.Model) -> dict[str, ir.DataType]:
    """Tensors that nodes of both main graphs compute, in the user's order, and their types."""
    there = {value.name for node in prepared.graph for value in node.outputs}
    names = [value.name for node in given.graph for value in node.outputs if value.name in there]
    session = open_session(only_outputs(given, [name for name in names if name]))
    types = {value.name: data_type(value.type) for value in session.get_outputs()}
    return {name: kind for name, kind in types.items() if kind is not None}


def _computed(model: ir.Model, names: Iterable[str], feeds: Feeds) -> dict[str, np.ndarray]:
    return dict(zip(names, run(open_session(only_outputs(model, names)), feeds), strict=True))


def _computed_again(
    model: ir.Model, types: Mapping[str, ir.DataType], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a model, cut in place at these values, makes of them."""
    _cut(model.graph, types)
    session = open_session(model)
    kinds = {value.name: data_type(value.type) for value in session.get_inputs()}
    feeds = {name: values[name].astype(kind.numpy()) for name, kind in kinds.items() if kind is not None}
    return dict(zip(types, run(session, feeds), strict=True))


def _cut(graph: ir.Graph, types: Mapping[str, ir.DataType]) -> None:
    """Make every value an input, and what the graph computes in its place an output."""
    computed = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
    graph.outputs.clear()
    for name, kind in types.items():
        value, fed = computed[name], ir.Value(name=name, type=ir.TensorType(kind))
        value.name, value.shape = f"{name}{_AGAIN}", None
        value.replace_all_uses_with(fed)
        graph.inputs.append(fed)
        graph.outputs.append(value)


def _agree(found: np.ndarray, wanted: np.ndarray) -> bool:
    if found.shape != wanted.shape:
        return False
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(found.astype(wanted.dtype), wanted))
    tolerance = _TOLERANCE.get(min(found.itemsize, wanted.itemsize), 0.0)
    finite = wanted[np.isfinite(wanted)].astype(np.float64)
    spread = finite.std() if finite.size else 0.0
    return bool(
        np.allclose(
            found.astype(np.float64),
            wanted.astype(np.float64),
            rtol=tolerance,
            atol=tolerance * spread,
            equal_nan=True,
        )
    )
