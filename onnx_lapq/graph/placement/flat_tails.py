"""Where activation functions are flat, so that a quantizer in front of them need not reach further.

Below some value HardSwish and HardSigmoid are constant, and SiLU, GELU, Mish and Sigmoid nearly so. What a
convolution writes there may be cut off: the codes are spent on what the function tells apart.
"""

from collections.abc import Sequence

import onnx_ir as ir

__all__ = ["flat_below"]

_FLAT_BELOW = {
    "Gelu": -4.0,
    "Mish": -8.0,
    "Sigmoid": -8.0,
    "Softplus": -8.0,
    "Swish": -7.0,
}
"""Operators, and values below which they change by less than a hundredth."""


def flat_below(readers: Sequence[tuple[ir.Node, int]]) -> float:
    """The value below which all readers of a value compute nearly the same.

    Args:
        readers: Nodes, and the input at which each of them reads the value.

    Returns:
        Minus infinity where a reader is no activation function, or there is none.
    """
    return min((_limit(node, index) for node, index in readers), default=-float("inf"))


def _limit(node: ir.Node, index: int) -> float:
    if node.domain != "" or index < 0:
        return -float("inf")
    if node.op_type == "HardSigmoid":
        return -node.attributes.get_float("beta", 0.5) / node.attributes.get_float("alpha", 0.2)
    if node.op_type == "Mul":
        return _limit_of_product(node, index)
    return _FLAT_BELOW.get(node.op_type, -float("inf"))


def _limit_of_product(node: ir.Node, index: int) -> float:
    """Of a value times a function of itself that goes to zero, as in SiLU, HardSwish and Mish."""
    value, factor = node.inputs[index], node.inputs[1 - index]
    gate = None if factor is None else factor.producer()
    if gate is None or gate.domain != "":
        return -float("inf")
    if gate.op_type in ("HardSigmoid", "Sigmoid") and gate.inputs[0] is value:
        return _limit(gate, 0)
    inner = gate.inputs[0].producer() if gate.op_type == "Tanh" and gate.inputs[0] is not None else None
    is_mish = inner is not None and inner.op_type == "Softplus" and inner.inputs[0] is value
    return _FLAT_BELOW["Mish"] if is_mish else -float("inf")
