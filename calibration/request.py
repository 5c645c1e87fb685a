"""What samples are read for, and what the user says of how they are fed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from onnx_lapq.calibration.preprocessing import Preprocessing
from onnx_lapq.calibration.stored import InputSpec, OnProgress
from onnx_lapq.errors import ConfigError

__all__ = ["Feeding", "Request"]

_NO_AXIS = "none"


@dataclass(frozen=True)
class Request:
    """What the readers of files and of data in memory share.

    Attributes:
        inputs: The model's inputs, at least one.
        preprocessing: What is done to images, and to uint8 image arrays that feed a float input.
        limit: At most this many samples, evenly over the classes; None for all.
        progress: Called with the files, or the samples, that are read and those in all.
    """

    inputs: Sequence[InputSpec]
    preprocessing: Preprocessing
    limit: int | None = None
    progress: OnProgress | None = None

    @property
    def fed(self) -> list[InputSpec]:
        """The inputs that samples are for, which are those without a value of their own."""
        return [spec for spec in self.inputs if spec.value is None]

    def tell(self, done: int, total: int) -> None:
        """Tell of progress, where somebody asked for it."""
        if self.progress is not None:
            self.progress(done, total)


@dataclass(frozen=True)
class Feeding:
    """What the user says of inputs that are not a batch along their first axis.

    Attributes:
        axes: Axis of the samples by input name; None for an input that has none.
        values: The number that an input always has, by name.
    """

    axes: Mapping[str, int | None] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, axes: Sequence[str], values: Sequence[str]) -> Self:
        """Read ``state=1``, ``sr=none`` and ``sr=16000``.

        Raises:
            ConfigError: A text is not of this form.
        """
        return cls(dict(map(_axis, axes)), dict(map(_value, values)))

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """Refuse what does not fit the model.

        Raises:
            ConfigError: There is no such input, or it takes no such number.
        """
        specs = {spec.name: spec for spec in inputs}
        for option, given in (("batch_axis", self.axes), ("set", self.values)):
            for name in given:
                if name not in specs:
                    raise ConfigError(
                        f"{option} names an input {name!r}, but the model's are {', '.join(specs)}; "
                        "correct the name"
                    )
        for name, value in self.values.items():
            if any(size != 1 for size in specs[name].shape):
                raise ConfigError(
                    f"set gives a number to input {specs[name]}; only a single number can be set"
                )
            if not _holds(specs[name].dtype, value):
                raise ConfigError(f"set gives {value} to input {specs[name]}; give a number of that type")


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a type has a number: exactly, or as near as a float comes to it."""
    if dtype.kind not in "biuf" or (isinstance(value, float) and not math.isfinite(value)):
        return False
    if dtype.kind == "b":
        return value in (0, 1)
    if dtype.kind in "iu":
        return value == int(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    limits = np.finfo(dtype)
    return abs(value) <= float(limits.max) and math.isclose(
        float(dtype.type(value)), value, rel_tol=float(limits.eps)
    )


def _axis(text: str) -> tuple[str, int | None]:
    name, _, axis = text.rpartition("=")
    if not name or not (axis.isdecimal() or axis.lower() == _NO_AXIS):
        raise ConfigError(f"batch_axis is {text!r}; give INPUT=AXIS, such as state=1, or INPUT={_NO_AXIS}")
    return name, None if axis.lower() == _NO_AXIS else int(axis)


def _value(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, int(number) if number.lstrip("+-").isdecimal() else float(number)
    except ValueError:
        raise ConfigError(f"set is {text!r}; give INPUT=NUMBER, such as sr=16000") from None
