"""The options that give the bits of a run again, as flags to paste."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.placement.options import as_flags
from onnx_lapq.stages.promotion import Promotion

__all__ = ["bits_flags"]

_OTHERS = (
    *("per_channel", "group_size", "first_last", "float_outputs", "include", "exclude", "op_types"),
    *("placement", "target", "full_range", "fold_codes"),
)
"""Options that decide which tensors are quantized and how far, besides their bits."""

_DEFAULTS = QuantizationConfig()


def bits_flags(promotion: Promotion, options: Mapping[str, Any]) -> str:
    """Flags for the bits that were found, and for all that they are exceptions to.

    Args:
        promotion: What raised them.
        options: Those of the run, as its report has them.
    """
    asked = f"-w {options['weight_bits']} -a {options['activation_bits']}"
    others = [flag for name in _OTHERS for flag in _spelled(name, options[name])]
    flags = [f"--storage {options['storage']}", as_flags(promotion.bits), asked, *others]
    return " ".join(filter(None, flags))


def _spelled(name: str, value: Any) -> Iterator[str]:
    """An option as a shell takes it; nothing where it is the default."""
    flag = f"--{name.replace('_', '-')}"
    if value == getattr(_DEFAULTS, name):
        return
    if name == "per_channel":
        yield flag if value else "--per-tensor"
    elif value is True:
        yield flag
    elif isinstance(value, tuple | list):
        yield from (f"{flag} {shlex.quote(one)}" for one in value)
    else:
        yield f"{flag} {value}"
