"""Types of the values that options take."""

from typing import TYPE_CHECKING, Any

import click

__all__ = ["BIT_PAIRS", "BYTES", "COUNTS", "CROP", "NAMES", "NUMBERS", "RULE", "SIZE"]

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # it takes no type parameter before click 8.4


class _BitPairs(_Type):
    name = "pairs"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        pairs = [part.split("/") for part in str(value).split(",") if part]
        if not pairs or not all(len(pair) == 2 and all(map(str.isdecimal, pair)) for pair in pairs):
            self.fail(f"{value!r} is not a list of bit widths such as 8/8,4/4,32/4", param, ctx)
        return tuple((int(weights), int(activations)) for weights, activations in pairs)


class _Counts(_Type):
    name = "counts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of counts such as 16,64,256", param, ctx)
        return tuple(int(part) for part in parts)


class _Numbers(_Type):
    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        parts = value if isinstance(value, tuple | list) else str(value).split(",")
        try:
            return tuple(float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.485,0.456,0.406", param, ctx)


class _Names(_Type):
    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple | list):
            return tuple(value)
        return tuple(part for part in str(value).split(",") if part)


class _Rule(_Type):
    """One text, whatever it holds; as a tuple, as those of `NAMES` are."""

    name = "rule"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else (str(value),)


class _Size(_Type):
    """A pair (height, width) for "256x192"; an int for "256", or with ``square`` a pair; "letterbox:640"."""

    name = "size"

    def __init__(self, *, square: bool = False) -> None:
        self._square = square

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str | tuple[int, int]:
        kind, colon, rest = str(value).lower().rpartition(":")
        if kind == "letterbox" and colon and not self._square:
            if rest != "model":
                self.convert(rest, param, ctx)
            return str(value).lower()
        parts = str(value).lower().split("x")
        if not 1 <= len(parts) <= 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            letterbox = "" if self._square else ", or letterbox:640"
            self.fail(
                f"{value!r} is not a size; give pixels, such as 256, or 256x192 (height x width){letterbox}",
                param,
                ctx,
            )
        if len(parts) == 1 and not self._square:
            return int(parts[0])
        return int(parts[0]), int(parts[-1])


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class _Bytes(_Type):
    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper().removesuffix("B").removesuffix("I")
        unit = text[-1:] if text[-1:] in _UNITS else ""
        number = text.removesuffix(unit)
        if not number.replace(".", "", 1).isdecimal():
            self.fail(f"{value!r} is not an amount of memory such as 512M or 2G", param, ctx)
        return int(float(number) * _UNITS[unit])


BIT_PAIRS, BYTES, COUNTS = _BitPairs(), _Bytes(), _Counts()
NAMES, NUMBERS, RULE, SIZE, CROP = _Names(), _Numbers(), _Rule(), _Size(), _Size(square=True)
