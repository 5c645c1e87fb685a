"""Bring the opset of a model into the range that can be quantized, and no higher."""

import threading

import onnx
import onnx_ir as ir
from onnxscript import version_converter

from onnx_lapq.errors import ModelError, first_line
from onnx_lapq.graph.simplify.legacy_operators import convert_after, convert_before

__all__ = ["NEWEST_OPSET", "ONNXSCRIPT", "lower_opset", "raise_opset"]

NEWEST_OPSET = 27
"""The newest whose QuantizeLinear onnxruntime has."""

ONNXSCRIPT = threading.Lock()
"""Held while onnxscript runs: its rewrite rules are shared objects that keep what they matched."""


def lower_opset(model: ir.Model) -> None:
    """Give a model of an opset that is too new the newest one, where its operators are the same in both.

    Args:
        model: Any model; changed in place.

    Raises:
        ModelError: An operator changed in between, or the opset is not known.
    """
    version = model.opset_imports.get("", 0)
    if version <= NEWEST_OPSET:
        return
    if version > onnx.defs.onnx_opset_version():
        raise ModelError(
            f"opset {version} is newer than the onnx package; export the model with opset {NEWEST_OPSET}"
        )
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain == "" and _changed_at(node.op_type) > NEWEST_OPSET:
            raise ModelError(
                f"node {node.name!r} ({node.op_type}): its opset, {version}, is newer than onnxruntime "
                f"quantizes; export the model with opset {NEWEST_OPSET}"
            )
    model.opset_imports[""] = NEWEST_OPSET


def _changed_at(op_type: str) -> int:
    """The opset that defined an operator as it is today; 0 for one that nobody knows."""
    try:
        return int(onnx.defs.get_schema(op_type).since_version)
    except onnx.defs.SchemaError:
        return 0


def raise_opset(model: ir.Model, least: int) -> None:
    """Convert a model of an older opset, in place.

    Args:
        model: Any model.
        least: The opset that it needs.

    Raises:
        ModelError: It cannot be converted.
    """
    version = model.opset_imports.get("", least)
    if version >= least:
        return
    try:
        with ONNXSCRIPT:
            convert_before(model, version)
            version_converter.convert_version(model, least, fallback=True)
            convert_after(model, version)
    except Exception as error:  # the C++ converter raises RuntimeError and friends of many kinds
        raise ModelError(f"opset {version} cannot be converted to {least}: {first_line(error)}") from error
    if model.opset_imports.get("", 0) < least:
        raise ModelError(
            f"opset {version} cannot be converted to {least}; export the model with a newer opset"
        )
