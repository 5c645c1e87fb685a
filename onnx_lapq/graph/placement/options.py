"""What the user wants quantized."""

import glob
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onnx_lapq.errors import ConfigError

__all__ = [
    "ACTIVATION_BITS",
    "BLOCK_BITS",
    "FLOAT_BITS",
    "GLUE_BITS",
    "WIDE_BITS",
    "BitsRule",
    "PlacementOptions",
    "as_flags",
    "node_pattern",
    "parse_bits_rule",
]

FLOAT_BITS = 32

GLUE_BITS = 8
"""Those that integer kernels compute on."""

BLOCK_BITS = 4
"""Most bits of weights with a scale for every block of inputs, which onnxruntime has kernels for."""

WIDE_BITS = 16
"""Of activations that 8 bits are too few for. No search moves their step sizes: they clip nothing."""

ACTIVATION_BITS = (*range(2, 9), WIDE_BITS, FLOAT_BITS)

_WIDTHS = re.compile(r"w(?P<weights>\d+)|a(?P<activations>\d+)|w(?P<both_w>\d+)a(?P<both_a>\d+)|(?P<all>\d+)")


@dataclass(frozen=True)
class BitsRule:
    """Bits of the layers whose name or operator matches a glob; None leaves them as they are."""

    pattern: str
    weights: int | None
    activations: int | None

    def __str__(self) -> str:
        """The rule as `parse_bits_rule` reads it."""
        if self.weights == self.activations == FLOAT_BITS:
            return f"{self.pattern}={FLOAT_BITS}"
        widths = (("w", self.weights), ("a", self.activations))
        return f"{self.pattern}=" + "".join(f"{letter}{bits}" for letter, bits in widths if bits is not None)


@dataclass(frozen=True)
class PlacementOptions:
    """What the user asked for; 32 bits means "leave in float".

    Attributes:
        weight_bits: 2 to 8, or 32.
        activation_bits: 2 to 8, 16, or 32.
        per_channel: One weight scale per output channel instead of one per tensor.
        first_last: Bits of the first and last layers.
        policy: ``integer`` or ``paper``.
        include: Globs on node names and operators; where there are any, only nodes they match take part.
        exclude: Globs; nodes they match stay in float.
        op_types: Operators that take part; empty means all.
        bits: Exceptions to the bits above; the last rule that matches a layer holds, before `first_last`.
        adds_pairs: Whether a processor may add two products of 8-bit weights in 16 bits.
        rescales: Whether the target changes the scale of codes by a table.
        float_products: Leave products of two activations in float.
        float_narrow: Leave convolutions in float whose integer kernels take longer.
        float_outputs: Leave the graph's outputs in float where an integer kernel could write them.
        group_size: Inputs of an output channel that share a scale, where a matrix product reads float; 0 for
            all of them.
        chosen: Bits of single weights by initializer name, which hold before all else.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = False
    first_last: Literal["8", "float", "same"] = "8"
    policy: Literal["integer", "paper"] = "integer"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()
    bits: tuple[BitsRule, ...] = ()
    adds_pairs: bool = False
    rescales: bool = False
    float_products: bool = False
    float_narrow: bool = False
    float_outputs: bool = False
    group_size: int = 0
    chosen: Mapping[str, int] = field(default_factory=dict)


def parse_bits_rule(text: str) -> BitsRule:
    """Read ``PATTERN=BITS``, where BITS is ``8``, ``w4``, ``a8``, ``a16`` or ``w4a8``.

    Raises:
        ConfigError: The text has another form.
    """
    pattern, _, widths = text.rpartition("=")
    match = _WIDTHS.fullmatch(widths)
    if not pattern or match is None:
        raise ConfigError(f"--bits {text!r}: give PATTERN=BITS, such as 'layer4*=8' or 'Gemm=w4a8'")
    found = {name: int(value) for name, value in match.groupdict().items() if value is not None}
    weights = found.get("weights", found.get("both_w", found.get("all")))
    activations = found.get("activations", found.get("both_a", found.get("all")))
    if weights == WIDE_BITS:
        raise ConfigError(f"--bits {text!r}: weights have at most 8 bits; for activations give a16")
    for bits in found.values():
        if bits not in ACTIVATION_BITS:
            raise ConfigError(
                f"--bits {text!r}: {bits} is no bit width; give 2 to 8, {FLOAT_BITS} for float, or a16"
            )
    return BitsRule(pattern, weights, activations)


def node_pattern(name: str) -> str:
    """A glob that matches nodes of a name, and no operator of the same name."""
    return f"[{name[0]}]{glob.escape(name[1:])}" if name.isalpha() else glob.escape(name)


def as_flags(rules: Sequence[str]) -> str:
    """Rules for bits as a shell takes them."""
    return " ".join(f"--bits {shlex.quote(rule)}" for rule in rules)
