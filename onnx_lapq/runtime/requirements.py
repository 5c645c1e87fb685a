"""Which onnxruntime a model file needs: its opset, its IR version, and operators that came later.

The versions were measured: every minor release from 1.15 on was given small models
(docs/measurements/runtimes.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Requirement", "has_integer_minimum", "needed_onnxruntime"]

_OLDEST = (1, 15)
"""The oldest that was tried."""

_OPSETS = {20: (1, 17), 21: (1, 18), 22: (1, 21), 23: (1, 23), 24: (1, 24), 26: (1, 25), 27: (1, 32)}
"""Opsets to the release that brought them; those in between came with the one before."""

_IR_VERSIONS = {10: (1, 18), 11: (1, 23), 12: (1, 24), 14: (1, 32)}

_INTEGER_MINIMUM = (1, 24)

_SHORTS, _BYTES, _FOUR_BITS, _TWO_BITS = ({f"INT{bits}", f"UINT{bits}"} for bits in (16, 8, 4, 2))


@dataclass(frozen=True)
class Requirement:
    """The oldest onnxruntime that loads a model.

    Attributes:
        onnxruntime: Its version, such as ``1.24``.
        reason: What it brought that the model needs; empty where the oldest that was tried will do.
    """

    onnxruntime: str
    reason: str = ""


def has_integer_minimum(version: str) -> bool:
    """Whether this release of onnxruntime has kernels for Min of bytes."""
    return tuple(map(int, version.split(".")[:2])) >= _INTEGER_MINIMUM


def needed_onnxruntime(model: ir.Model) -> Requirement:
    """The oldest onnxruntime that loads a model.

    Args:
        model: A model as it lies in its file; of other domains only quantizers of 16 bits are looked at.
    """
    version, reason = max([(_OLDEST, ""), *_reasons(model)], key=lambda need: need[0])
    return Requirement(".".join(map(str, version)), reason)


def _reasons(model: ir.Model) -> Iterator[tuple[tuple[int, int], str]]:
    opset = model.opset_imports.get("", 0)
    yield _release(_OPSETS, opset), f"opset {opset}"
    yield _release(_IR_VERSIONS, model.ir_version), f"IR version {model.ir_version}"
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        types = {value.dtype.name for value in node.inputs if value is not None and value.dtype is not None}
        if node.op_type in ("Max", "Min") and types & _BYTES:
            yield _INTEGER_MINIMUM, f"{node.op_type} of integers in {node.name!r}"
        if types & _TWO_BITS:
            yield (1, 24), f"2-bit tensors in {node.name!r}"
        if node.domain and types & _SHORTS:
            yield (1, 17), f"16-bit {node.op_type} in {node.name!r}"
        if types & _FOUR_BITS:
            yield (1, 19 if node.op_type == "DequantizeLinear" else 23), f"4-bit tensors in {node.name!r}"


def _release(table: dict[int, tuple[int, int]], number: int) -> tuple[int, int]:
    """The release that brought a number, or the first of a table's entries above it."""
    return max((release for first, release in table.items() if first <= number), default=_OLDEST)
