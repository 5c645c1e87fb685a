"""Every option that flags, option files and the reference page share: the fields of the option classes.

A table here and the fields' docstrings are all that is said of an option. The first sentence of a docstring's
entry is the help of the flag.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import click

from onnx_lapq.calibration.preprocessing import PRESETS, Preprocessing
from onnx_lapq.cli.types import BYTES, CROP, NAMES, NUMBERS, RULE, SIZE
from onnx_lapq.common.records import annotations, documented, first_sentence
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.study.limits import Gate

__all__ = ["SECTIONS", "TABLES", "Field", "Section", "default_text", "flag", "in_flags", "text_type"]


@dataclass(frozen=True)
class Section:
    """A part of the help.

    Attributes:
        title: Its heading.
        common: Names of the options that most runs need.
        others: Names of those that only ``--help-all`` shows.
    """

    title: str
    common: tuple[str, ...]
    others: tuple[str, ...] = ()


SECTIONS = (
    Section(
        "Bits and nodes",
        ("weight_bits", "activation_bits", "size_budget", "bits", "exclude", "target"),
        (
            "per_channel",
            "group_size",
            "first_last",
            "float_outputs",
            "include",
            "op_types",
            "placement",
            "full_range",
            "fold_codes",
            "storage",
        ),
    ),
    Section(
        "Samples",
        ("samples", "preset", "mean", "std"),
        ("input_size", "resize", "crop", "scale", "color", "layout", "batch_axis", "set"),
    ),
    Section(
        "Search",
        ("max_minutes", "resume"),
        (
            *("loss", "max_evaluations", "guard", "method", "p", "percentile", "seed", "p_values"),
            *("equalize", "move_scales", "transform", "rounding", "optimizer", "bias_correction", "verify"),
        ),
    ),
    Section("Test set", ("test", "min_snr", "promote"), ("metric", "max_drop", "min_accuracy", "max_kl")),
    Section("Machine", (), ("workers", "memory", "executor", "provider")),
    Section("Record", ("config", "report", "as_json", "quiet"), ("log_format", "verbose")),
)
"""Options that commands share. Those of one command come before them."""

_SPELLINGS = {
    "weight_bits": ("-w", "--weight-bits"),
    "activation_bits": ("-a", "--activation-bits"),
    "per_channel": ("--per-channel/--per-tensor",),
    "move_scales": ("--move-scales/--keep-scales",),
    "p_values": ("--p-grid",),
    "max_evaluations": ("--max-evals",),
}
"""Flags that are not ``--name-of-the-field``, or ``--name-of-the-field/--no-name-of-the-field``."""

_TYPES: "dict[str, click.ParamType[Any]]" = {
    **{"bits": RULE, "resize": SIZE, "crop": CROP, "input_size": CROP, "memory": BYTES},
    "test": click.Path(),
}
"""How the text of an option is read, where its annotation does not say so."""


@dataclass(frozen=True)
class Field:
    """One option.

    Attributes:
        name: As the option class has it.
        hint: Its annotation.
        default: Its default.
        text: What its docstring says.
    """

    name: str
    hint: Any
    default: Any
    text: str


def _fields(kind: type) -> dict[str, Field]:
    texts, defaults = documented(kind), kind()
    return {
        name: Field(name, hint, getattr(defaults, name), texts[name])
        for name, hint in annotations(kind).items()
    }


_PRESET = Field(
    "preset",
    Literal[tuple(sorted(PRESETS))] | None,
    None,
    "Start from a known preprocessing. What else is set replaces its values.",
)
_RUN = _fields(QuantizationConfig)
_RUN.pop("preprocessing")

TABLES: Mapping[str, Mapping[str, Field]] = {
    "": _RUN,
    "preprocessing": {"preset": _PRESET, **_fields(Preprocessing)},
    "gate": _fields(Gate),
}
"""The options by the table of an option file that holds them; "" is its top."""


def flag(field: Field) -> click.Option:
    """The flag of an option; one that is not given is None, or () where it may be repeated."""
    kind = _kinds(field.hint)[0]
    name = field.name.replace("_", "-")
    usual = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
    spelling = _SPELLINGS.get(field.name, (usual,))
    text, shown = first_sentence(field.text).replace("`", ""), default_text(field)
    return click.Option(
        [*spelling, field.name],
        type=text_type(field),
        is_flag=kind is bool,
        multiple=get_args(kind)[:1] == (str,) and get_origin(kind) is tuple,
        default=None,
        help=f"{text} [default: {shown}]" if shown else text,
    )


def text_type(field: Field) -> "click.ParamType[Any] | None":
    """How the text of an option is read; None for true and false."""
    kind = _kinds(field.hint)[0]
    if field.name in _TYPES:
        return _TYPES[field.name]
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) is tuple:
        return NAMES if get_args(kind)[0] is str else NUMBERS
    plain: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, str: click.STRING}
    return plain.get(kind)


def in_flags(message: str, names: Collection[str]) -> str:
    """A message on options with their flags in it, where it has names of fields.

    These are names of several words, as ``max_kl``, wherever they stand outside of quotes and paths; and any
    name in front of its value, as in ``seed is -1``. What a flag takes is never ``None``.

    Args:
        message: Of an error.
        names: Options that were given as flags, or would be.
    """

    def spelled(match: re.Match[str]) -> str:
        return _FLAGS.get(match[0], match[0]) if match[0] in names else match[0]

    found = re.sub(r"^[a-z]+(?= is )|(?<![^ (])[a-z]+_[a-z_]+(?![^ ,;])", spelled, message)
    return found if found == message else found.removesuffix(" or None")


def default_text(field: Field) -> str:
    """A default as the help shows it; nothing where there is none, or where a flag is off."""
    value = field.default
    if value is None or value is False or value == ():
        return ""
    if value is True:
        return "on"
    if _TYPES.get(field.name) is BYTES:
        return f"{value >> 20}M"
    texts = [f"{one:g}" if isinstance(one, float) else str(one) for one in _as_tuple(value)]
    return ", ".join(texts) if len(texts) < 4 else f"{texts[0]} to {texts[-1]}"


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _kinds(hint: Any) -> list[Any]:
    """What a field takes besides None, without limits."""
    if get_origin(hint) is Annotated:
        return _kinds(get_args(hint)[0])
    if type(None) in get_args(hint):
        return [kind for one in get_args(hint) if one is not type(None) for kind in _kinds(one)]
    return [hint]


_FLAGS = {name: flag(field).opts[-1] for table in TABLES.values() for name, field in table.items()}
