"""JSON Schema of the dataclasses that are written as JSON."""

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from onnx_lapq.common.docstrings import documented

__all__ = ["HOLDS", "json_schema"]

HOLDS = "holds"
"""Key in the metadata of a field that is a dict: the dataclass that it was."""

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},
    NoneType: {"type": "null"},
    Any: {},
}


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `dataclasses.asdict` makes of a dataclass.

    Every field is required, more are allowed; a float that is not finite is null. Descriptions come from the
    docstrings.

    Args:
        kind: A dataclass.
    """
    definitions: dict[str, Any] = {}
    root = _dataclass(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.__name__,
        **root,
        "$defs": definitions,
    }


def _dataclass(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, texts = get_type_hints(kind), documented(kind)
    properties = {}
    for field in fields(kind):
        properties[field.name] = _schema(_held(field, hints[field.name]), definitions)
        if field.name in texts:
            properties[field.name] = {**properties[field.name], "description": texts[field.name]}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _held(field: "Field[Any]", hint: Any) -> Any:
    """The type of a field; of a dict that was a dataclass, the dataclass."""
    held = field.metadata.get(HOLDS)
    if held is None:
        return hint
    return held | None if NoneType in get_args(hint) else held


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}
            definitions[hint.__name__] = _dataclass(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if origin is tuple and arguments[-1] is not Ellipsis:
        items = [_schema(argument, definitions) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (tuple, list):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    raise TypeError(f"{hint} has no JSON Schema")
