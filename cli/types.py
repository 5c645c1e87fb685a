"""Types of the values that options take."""

from typing import Any

import click

__all__ = ["BITS", "BIT_PAIRS", "BYTES", "COUNTS", "NAMES", "NUMBERS", "SIZE"]


class _Bits(click.ParamType[int]):
    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if str(value) not in {"2", "3", "4", "5", "6", "7", "8", "32"}:
            self.fail(f"{value!r} is not a bit width; give 2 to 8, or 32 for float", param, ctx)
        return int(value)


class _BitPairs(click.ParamType[tuple[tuple[int, int], ...]]):
    name = "pairs"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        pairs = [part.split("/") for part in str(value).split(",") if part]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            self.fail(f"{value!r} is not a list of bit widths such as 8/8,4/4,32/4", param, ctx)
        return tuple((BITS.convert(w, param, ctx), BITS.convert(a, param, ctx)) for w, a in pairs)


class _Counts(click.ParamType[tuple[int, ...]]):
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


class _Numbers(click.ParamType[tuple[float, ...]]):
    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        parts = value if isinstance(value, tuple | list) else str(value).split(",")
        try:
            return tuple(float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 0.485,0.456,0.406", param, ctx)


class _Names(click.ParamType[tuple[str, ...]]):
    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple | list):
            return tuple(value)
        return tuple(part for part in str(value).split(",") if part)


class _Size(click.ParamType[int | tuple[int, int]]):
    """An int for "256", a pair (height, width) for "256x192"."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        parts = [str(part) for part in value] if isinstance(value, list) else str(value).lower().split("x")
        if not 1 <= len(parts) <= 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(
                f"{value!r} is not a size; give pixels, such as 256, or 256x192 (height x width)", param, ctx
            )
        return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class _Bytes(click.ParamType[int]):
    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper().removesuffix("B").removesuffix("I")
        unit = text[-1:] if text[-1:] in _UNITS else ""
        number = text.removesuffix(unit)
        if not number.replace(".", "", 1).isdecimal():
            self.fail(f"{value!r} is not an amount of memory such as 512M or 2G", param, ctx)
        return int(float(number) * _UNITS[unit])


BITS, BIT_PAIRS, BYTES, COUNTS = _Bits(), _BitPairs(), _Bytes(), _Counts()
NAMES, NUMBERS, SIZE = _Names(), _Numbers(), _Size()
