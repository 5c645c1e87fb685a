"""Write a GELU that is spelled out as the operator that it is, from opset 20 on.

The product of ``x``, ``1 + erf(x / sqrt(2))`` and 0.5, in any order, becomes ``Gelu(x)``. Onnxruntime fuses
it at any opset; as one node nothing can come between its parts.
"""

import math

import onnx_ir as ir

from onnx_lapq.graph.attributes import constant
from onnx_lapq.graph.simplify.idioms.affine_steps import read_by_one, step_behind
from onnx_lapq.graph.simplify.idioms.changing import change_nodes, take_place_of
from onnx_lapq.graph.simplify.idioms.matching import is_number, made_by

__all__ = ["name_gelus"]

_GELU = 20


def name_gelus(model: ir.Model) -> bool:
    """Apply the rule, in place.

    Args:
        model: Its constants are initializers.

    Returns:
        Whether anything changed.
    """
    return change_nodes(model, "Mul", _name, since=_GELU)


def _name(graph: ir.Graph, product: ir.Node) -> bool:
    factors = _factors(product)
    halves = [factor for factor in factors if is_number(factor, 0.5)]
    gates = [factor for factor in factors if _gated(factor) is not None]
    if len(factors) != 3 or len(halves) != 1 or len(gates) != 1:
        return False
    x = _gated(gates[0])
    if x is None or not any(factor is x for factor in factors):
        return False
    gelu = ir.node("Gelu", [x], name=product.name)
    graph.insert_before(product, gelu)
    take_place_of(gelu, product)
    return True


def _factors(product: ir.Node) -> list[ir.Value]:
    """What is multiplied, also by a product that only this one reads."""
    found: list[ir.Value] = []
    for value in product.inputs:
        inner = made_by(value, "Mul")
        if inner is not None and value is not None and read_by_one(value):
            found += [factor for factor in inner.inputs if factor is not None]
        elif value is not None:
            found.append(value)
    return found


def _gated(gate: ir.Value) -> ir.Value | None:
    """x, where the gate is ``1 + erf(x / sqrt(2))`` and nobody else reads it."""
    add = made_by(gate, "Add")
    if add is None or not read_by_one(gate) or not any(is_number(value, 1) for value in add.inputs):
        return None
    erf = next((node for value in add.inputs if (node := made_by(value, "Erf")) is not None), None)
    step = None if erf is None else step_behind(erf.inputs[0])
    if step is None or step.offset.any() or step.factor.size != 1 or constant(step.source) is not None:
        return None
    return step.source if math.isclose(step.factor.item(), math.sqrt(0.5), rel_tol=1e-5) else None
