"""What kinds of values the fields of an option class take, by their annotations."""

import math
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from onnx_lapq.errors import ConfigError

__all__ = ["check_kinds", "kinds"]

_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text", NoneType: "None"}


def kinds(options: type) -> dict[str, tuple[Any, ...]]:
    """The types of each field of a dataclass; of a union all of them."""
    hints = get_type_hints(options)
    return {
        field.name: get_args(hints[field.name])
        if get_origin(hints[field.name]) is UnionType
        else (hints[field.name],)
        for field in fields(options)
    }


def check_kinds(options: object) -> None:
    """Refuse options of other types than annotated; lists may stand for tuples, integers for floats.

    Args:
        options: An instance of a dataclass.

    Raises:
        ConfigError: Names the field and what it takes.
    """
    for name, wanted in kinds(type(options)).items():
        value = getattr(options, name)
        if not any(_is(value, kind) for kind in wanted):
            raise ConfigError(f"{name} is {value!r}; give {' or '.join(map(_name, wanted))}")


def _is(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if not isinstance(value, tuple | list) or (... not in items and len(value) != len(items)):
            return False
        return all(_is(item, items[0]) for item in value)
    if kind is float:
        return type(value) is not bool and isinstance(value, int | float) and not math.isnan(value)
    return isinstance(value, kind) and (kind is bool or type(value) is not bool)


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        item = _name(get_args(kind)[0])
        return f"a tuple, each {item}" if ... in get_args(kind) else f"a pair, each {item}"
    return _NAMES.get(kind, f"a {kind.__name__}")
