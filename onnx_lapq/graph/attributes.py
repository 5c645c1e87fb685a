"""Typed access to constants and attributes of onnx-ir nodes."""

import onnx_ir as ir

__all__ = ["constant", "integer", "integers"]


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value, where it is an initializer."""
    return value.const_value if value is not None and value.is_initializer() else None


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    return int(node.attributes.get_int(name, default))


def integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a list of integers, or its default."""
    return tuple(int(item) for item in node.attributes.get_ints(name, default))
