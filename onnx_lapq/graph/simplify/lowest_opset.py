"""Give a model the lowest opset and IR version that its operators need, for old runtimes.

Most definitions of an operator differ from the one before in the types that they allow, or in an attribute
that has a default. A node that uses nothing of that is a node of the older definition as well. So

1. each node is followed back through the definitions of its operator while they fit,
2. the opset becomes that of the newest definition that is left, and no less than asked for,
3. the IR version becomes that of the opset; domains that no node uses are dropped.
"""

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

__all__ = ["use_lowest_opset"]

_REWORDED = {
    *(("Add", 14), ("Sub", 14), ("Mul", 14), ("Div", 14), ("Identity", 14), ("PRelu", 16), ("Transpose", 21)),
    *(("Transpose", 25), ("ReduceMax", 20), ("ReduceMin", 20), ("Reshape", 14), ("Shape", 15), ("Split", 18)),
    *(("Cast", 19), ("Cast", 24), ("MaxPool", 22), ("AveragePool", 19), ("AveragePool", 22)),
}
"""Definitions with another text than the one before, that mean the same for a node that fits both."""

_ROUNDED_UP = "ceil_mode"
"""The attribute of pooling whose meaning changed."""


def use_lowest_opset(model: ir.Model, least: int) -> None:
    """Lower the opset and the IR version of a model as far as its nodes allow, in place.

    Args:
        model: A model without functions, whose types are inferred.
        least: The opset that it shall have at least.
    """
    common_passes.RemoveUnusedOpsetsPass()(model)
    version = model.opset_imports.get("", least)
    nodes = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.domain == ""]
    needed = max((_oldest(node, version, least) for node in nodes), default=least)
    if needed < version:
        for node in nodes:
            _drop_newer_attributes(node, needed)
        model.opset_imports[""] = needed
    imports = [onnx.helper.make_opsetid(domain, number) for domain, number in model.opset_imports.items()]
    model.ir_version = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True)


def _oldest(node: ir.Node, version: int, least: int) -> int:
    """The opset that first defined the operator in a way that fits the node, or what is least."""
    schema = _schema(node, version)
    if schema is None:
        return version
    while schema.since_version > least:
        older = _schema(node, schema.since_version - 1)
        if older is None or not _fits_both(node, older, schema):
            return int(schema.since_version)
        schema = older
    return least


def _schema(node: ir.Node, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, version)
    except onnx.defs.SchemaError:
        return None


def _fits_both(node: ir.Node, older: onnx.defs.OpSchema, newer: onnx.defs.OpSchema) -> bool:
    """Whether a node means the same by two definitions of its operator, one right after the other."""
    if older.deprecated or not _reads_alike(older, newer) or node.attributes.get_int(_ROUNDED_UP):
        return False
    shared = older.attributes.keys() & newer.attributes.keys()
    if shared != older.attributes.keys() or any(
        older.attributes[name].default_value != newer.attributes[name].default_value for name in shared
    ):
        return False
    if not all(_is_default(node, newer.attributes[name]) for name in newer.attributes.keys() - shared):
        return False
    return _takes(older, older.inputs, node.inputs) and _takes(older, older.outputs, node.outputs)


def _reads_alike(older: onnx.defs.OpSchema, newer: onnx.defs.OpSchema) -> bool:
    return (newer.name, newer.since_version) in _REWORDED or _text(older) == _text(newer)


def _text(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    """Everything that a definition says, but for types and default values."""
    attributes = {name: attribute.description for name, attribute in schema.attributes.items()}
    values = [(value.name, value.option) for value in (*schema.inputs, *schema.outputs)]
    return schema.doc, attributes, values


def _is_default(node: ir.Node, attribute: onnx.defs.OpSchema.Attribute) -> bool:
    given, default = node.attributes.get(attribute.name), attribute.default_value
    return given is None or (
        bool(default.name) and ir.serde.deserialize_attribute(default).value == given.value
    )


def _takes(
    schema: onnx.defs.OpSchema,
    formal: Sequence[onnx.defs.OpSchema.FormalParameter],
    values: Sequence[ir.Value | None],
) -> bool:
    """Whether parameters of an operator allow values of these numbers and types."""
    types = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    many = bool(formal) and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
    if len(values) > len(formal) and not many:
        return False
    return all(
        value is None or _type_name(value) in types.get(kind, [kind])
        for index, value in enumerate(values)
        for kind in [formal[min(index, len(formal) - 1)].type_str]
    )


def _type_name(value: ir.Value) -> str:
    """As definitions spell a type; empty for one that is not known."""
    return f"tensor({value.type.dtype.name.lower()})" if isinstance(value.type, ir.TensorType) else ""


def _drop_newer_attributes(node: ir.Node, version: int) -> None:
    """Leave out attributes that an older definition lacks; they have their default."""
    schema = _schema(node, version)
    for name in [name for name in node.attributes if schema is not None and name not in schema.attributes]:
        node.attributes.pop(name)
