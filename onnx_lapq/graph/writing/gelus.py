"""Write a GELU as one node of onnxruntime.

Onnxruntime fuses a GELU that is spelled out when it loads a model, but not behind a quantizer: there every
reader gets a DequantizeLinear of its own, so that the parts of the function no longer read one value. Of the
GELUs with Tanh it knows two spellings only. So products of a value and what is computed from it by
elementwise operators are evaluated: where they have the values of GELU, in either form, one node takes the
place.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnx_lapq.common.arrays import FloatArray
from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.operator_sets import MICROSOFT

__all__ = ["fuse_gelus"]

_X = np.linspace(-6, 6, 97)

_erf = np.vectorize(math.erf, otypes=[np.float64])

_FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    "Add": np.add,
    "Div": np.divide,
    "Erf": _erf,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": np.power,
    "Sub": np.subtract,
    "Tanh": np.tanh,
}

_GELUS: Mapping[str, FloatArray] = {
    "Gelu": 0.5 * _X * (1 + _erf(_X / np.sqrt(2))),
    "FastGelu": 0.5 * _X * (1 + np.tanh(np.sqrt(2 / np.pi) * (_X + 0.044715 * _X**3))),
}
"""Operators of onnxruntime, and their values at `_X`; they differ by up to 5e-4."""

_CLOSE = 2e-5

_MOST_FACTORS = 8
"""A GELU is a product of four at most."""

_MOST_VALUES = 32
"""Values and constants looked at between a product and x; GELUs have up to 16."""


def fuse_gelus(model: ir.Model) -> None:
    """Replace what onnxruntime would not fuse by itself, in place; the parts are left without readers.

    Args:
        model: A written model; its constants are initializers.
    """
    for node in reversed(list(model.graph)):
        found = _gelu(node)
        if found is None or (found[0] == "Gelu" and not _is_dequantized(found[1])):
            continue
        op_type, x = found
        gelu = ir.node(op_type, [x], domain=MICROSOFT, name=f"{node.name}_{op_type}")
        old, new = node.outputs[0], gelu.outputs[0]
        new.shape, new.type = old.shape, old.type
        model.graph.insert_before(node, gelu)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name, old.name = old.name, f"{old.name}_in_parts"
        model.graph.opset_imports[MICROSOFT] = 1


def _is_dequantized(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _gelu(node: ir.Node) -> tuple[str, ir.Value] | None:
    """The operator that a product is, and what of."""
    if not _is_product(node):
        return None
    for x in _factors(node):
        values = _values(node.outputs[0], x)
        for op_type, wanted in _GELUS.items():
            if values is not None and np.allclose(values, wanted, rtol=0, atol=_CLOSE):
                return op_type, x
    return None


def _is_product(node: ir.Node) -> bool:
    return node.op_type == "Mul" and node.domain == ""


def _factors(node: ir.Node) -> list[ir.Value]:
    """The factors that are no constants, also those of products that are factors, nearest first."""
    found: dict[ir.Value, None] = {}
    products = [node]
    for product in products:
        for value in product.inputs:
            if value is None or value in found or constant(value) is not None or len(found) == _MOST_FACTORS:
                continue
            found[value] = None
            producer = value.producer()
            if producer is not None and _is_product(producer):
                products.append(producer)
    return list(found)


def _values(value: ir.Value, x: ir.Value) -> FloatArray | None:
    """Values of what is computed from x and single constants alone; None where it is more than that."""
    known: dict[ir.Value, FloatArray] = {x: _X}
    todo = [value]
    while todo:
        one = todo[-1]
        if one in known:
            todo.pop()
            continue
        operands = _operands(one)
        if operands is None or len(known) + len(todo) > _MOST_VALUES:
            return None
        unknown = [operand for operand in operands if operand not in known]
        todo += unknown
        if not unknown:
            known[one] = _computed(one, [known[operand] for operand in operands])
    return known[value]


def _operands(value: ir.Value) -> list[ir.Value] | None:
    """What a value is computed from, nothing where it is a single constant; None for other values."""
    tensor = constant(value)
    if tensor is not None:
        return [] if tensor.size == 1 else None
    producer = value.producer()
    if producer is None or producer.domain != "" or producer.op_type not in _FUNCTIONS:
        return None
    return [operand for operand in producer.inputs if operand is not None]


def _computed(value: ir.Value, operands: list[FloatArray]) -> FloatArray:
    producer, tensor = value.producer(), constant(value)
    if tensor is not None:
        number: FloatArray = tensor.numpy().astype(np.float64).reshape(())
        return number
    assert producer is not None
    with np.errstate(all="ignore"):
        result: FloatArray = _FUNCTIONS[producer.op_type](*operands)
    return result
