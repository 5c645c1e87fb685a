"""Make inner values of a model its outputs, so that a run shows them."""

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["data_type", "only_outputs"]

_SPELLINGS = {"float": "FLOAT", "float16": "FLOAT16", "double": "DOUBLE", "bool": "BOOL", "string": "STRING"}


def only_outputs(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy of a model whose outputs are these values of its main graph, in this order."""
    observed = model.clone()
    values = ir.convenience.create_value_mapping(observed.graph, include_subgraphs=False)
    observed.graph.outputs[:] = [values[name] for name in names]
    return observed


def data_type(spelling: str) -> ir.DataType | None:
    """The type that onnxruntime calls, for example, ``tensor(float)``; None for what is no tensor."""
    if not spelling.startswith("tensor("):
        return None
    kind = spelling.removeprefix("tensor(").removesuffix(")")
    return ir.DataType[_SPELLINGS.get(kind, kind.upper())]
