"""Dataclasses and plain data: checked, read, written as JSON, described by a JSON Schema (msgspec).

Plain data is what JSON and TOML have: dicts, lists, texts, numbers, true and false, None.
"""

import inspect
import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from onnx_lapq.errors import ConfigError

__all__ = [
    "HOLDS",
    "annotations",
    "check",
    "decode",
    "documented",
    "first_sentence",
    "fit",
    "json_schema",
    "takes",
    "to_json",
    "to_plain",
]

HOLDS = "holds"
"""Key in the metadata of a field that is a dict: the dataclass that it was."""

_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text", NoneType: "None"}

_T = TypeVar("_T")


def check(record: object) -> None:
    """Refuse values of other types than annotated or beyond their limits: ``__post_init__`` of a dataclass.

    Lists may stand for tuples, integers for floats, numpy scalars for numbers; the record then holds what is
    annotated.

    Args:
        record: An instance of a dataclass.

    Raises:
        ConfigError: Names the field, its value and what it takes.
    """
    for name, hint in annotations(type(record)).items():
        value = getattr(record, name)
        try:
            fitting = value if is_dataclass(value) and isinstance(value, hint) else fit(value, hint)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name} is {value!r}; give {takes(hint)}") from error
        object.__setattr__(record, name, fitting)


def fit(value: Any, hint: Any) -> Any:
    """A value as the type that is annotated: a tuple for a list, a float for an integer.

    Raises:
        ValueError: It is of another type, beyond the limits, or not finite.
        TypeError: It is of a type that has no plain form.
    """
    plain = msgspec.to_builtins(value, enc_hook=_encoded)
    items = plain if isinstance(plain, list | tuple) else (plain,)
    if not all(math.isfinite(one) for one in items if isinstance(one, float)):
        raise ValueError(f"{value!r} is not finite")
    return _converted(plain, hint)


def decode(data: Any, kind: type[_T]) -> _T:
    """Build a dataclass, with those in its fields, from plain data.

    Args:
        data: As `to_plain` gives it; what the dataclass has no field for is left out.
        kind: A dataclass, or any type that annotations are made of.

    Raises:
        ValueError: The data does not fit; the message names the place, such as ``$.start.loss``.
    """
    try:
        return cast("_T", _converted(data, kind))
    except ConfigError as error:
        raise ValueError(str(error)) from error


def to_plain(value: Any) -> Any:
    """Plain data of a dataclass, or of anything made of dataclasses, numbers, texts and arrays.

    Arrays and tuples become lists, paths texts, and floats that are not finite None.
    """
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_encoded))


def to_json(value: Any) -> str:
    """Indented JSON of `to_plain`, with a newline at its end."""
    return json.dumps(to_plain(value), indent=2, ensure_ascii=False) + "\n"


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `to_plain` makes of a dataclass.

    Every field is required, more are allowed; a float that is not finite is null. Descriptions come from the
    docstrings.

    Raises:
        TypeError: It is no dataclass, or a field has a type that JSON cannot hold.
    """
    if not is_dataclass(kind):
        raise TypeError(f"{kind} is no dataclass")
    kinds = {one.__name__: one for one in _dataclasses(kind)}
    _, plain = msgspec.json.schema_components(
        kinds.values(), schema_hook=lambda _: {"type": "string"}, ref_template="#/$defs/{name}"
    )
    definitions = {name: _described(plain[name], kinds[name]) for name in kinds}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **definitions.pop(kind.__name__),
        "$defs": definitions,
    }


def annotations(kind: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, by name, with their limits (``Annotated`` with a ``Meta``)."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def takes(hint: Any) -> str:
    """What a field takes, in words, as ``an integer or None``."""
    items = get_args(hint)
    if get_origin(hint) is Annotated:
        return next((one.description for one in items[1:] if one.description), takes(items[0]))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(items)}"
    if get_origin(hint) is tuple:
        return f"a tuple, each {takes(items[0])}" if ... in items else f"a pair, each {takes(items[0])}"
    if items:
        return " or ".join(map(takes, items))
    return _NAMES.get(hint, f"a {hint.__name__}")


def documented(kind: type) -> dict[str, str]:
    """What a docstring's ``Attributes`` say, by field name; one line each, with single backticks."""
    _, _, rest = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    attributes, _, _ = rest.partition("\n\n")  # up to the next section
    texts: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(attributes).splitlines():
        if not line.startswith(" "):
            name, _, line = line.partition(": ")
        texts[name] = f"{texts.get(name, '')} {line.strip()}".strip().replace("``", "`")
    return texts


def first_sentence(text: str) -> str:
    """The first sentence of an entry, with its full stop."""
    return text.partition(". ")[0].rstrip(".") + "."


def _converted(plain: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(plain, hint, dec_hook=_decoded)
    except msgspec.ValidationError as error:  # a ValueError from msgspec 0.21 on
        raise ValueError(str(error)) from error


def _encoded(value: Any) -> Any:
    """What stands for a value that msgspec does not know: arrays and scalars of numpy, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, str | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no plain form")


def _decoded(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r} is no {kind.__name__}")


def _dataclasses(hint: Any) -> Iterator[type]:
    """A dataclass and those that its fields hold, each at least once."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
        for field in fields(hint):
            yield from _dataclasses(field.metadata.get(HOLDS))
        for inner in annotations(hint).values():
            yield from _dataclasses(inner)
    for argument in get_args(hint):
        yield from _dataclasses(argument)


def _described(schema: dict[str, Any], kind: type) -> dict[str, Any]:
    """The schema of a dataclass as this project means it."""
    texts = documented(kind)
    properties = {name: _with_null(one) for name, one in schema["properties"].items()}
    for field in fields(kind):
        held = field.metadata.get(HOLDS)
        if held is not None:
            reference = {"$ref": f"#/$defs/{held.__name__}"}
            optional = NoneType in get_args(annotations(kind)[field.name])
            properties[field.name] = {"anyOf": [reference, {"type": "null"}]} if optional else reference
        properties[field.name].pop("default", None)
        if field.name in texts:
            properties[field.name]["description"] = texts[field.name]
    return {
        "title": kind.__name__,
        "description": " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()),
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _with_null(schema: Any) -> Any:
    """The same schema, with null among the numbers: JSON has no NaN and no infinity."""
    if isinstance(schema, list):
        return [_with_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _with_null(one) for name, one in schema.items()}
    return inner | {"type": ["number", "null"]} if schema.get("type") == "number" else inner
