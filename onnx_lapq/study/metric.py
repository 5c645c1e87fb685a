"""A metric of the user's own: ``package.module:function``."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnx_lapq.calibration.capture import Block
from onnx_lapq.common.arrays import AnyArray
from onnx_lapq.errors import ConfigError, RunError, first_line
from onnx_lapq.report.pictures import FindBoxes

__all__ = ["Metric", "MetricFunction", "find_metric", "over_shapes"]

MetricFunction = Callable[[Mapping[str, AnyArray], Mapping[str, AnyArray], AnyArray | None], npt.ArrayLike]
"""Outputs of a model on samples of one shape by name, those of the first model, and the labels or None, to
one number for each sample, or to one for all."""


@dataclass(frozen=True)
class Metric:
    """A function that says how good outputs are; more is better.

    Attributes:
        name: As the user gave it.
        function: The function.
        find_boxes: The function of that name in the same module, which finds the boxes of one image.
    """

    name: str
    function: MetricFunction
    find_boxes: FindBoxes | None = None

    def of(
        self, outputs: Mapping[str, AnyArray], reference: Mapping[str, AnyArray], labels: AnyArray | None
    ) -> float:
        """The metric over samples of one shape; numbers for single samples are averaged.

        Args:
            outputs: Of a model, by name, [N, ...] each.
            reference: Of the first model.
            labels: One row for each sample, or None.

        Raises:
            RunError: The function failed.
            ConfigError: It gave something else than numbers.
        """
        try:
            found = self.function(outputs, reference, labels)
        except (Exception, SystemExit) as error:
            raise RunError(
                f"metric {self.name!r} failed: {type(error).__name__}: {first_line(error)}"
            ) from error
        count = len(next(iter(outputs.values())))
        try:
            values = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty((0, 0))
        if values.shape not in ((), (count,)) or not np.isfinite(values).all():
            raise ConfigError(
                f"metric {self.name!r} gave {_shown(found)} for {count} samples; return one finite number, "
                "or one for each sample"
            )
        return float(values.mean())


def over_shapes(
    metric: Metric, blocks: Sequence[Block], reference: Sequence[Block], labels: AnyArray | None
) -> float:
    """A metric over samples of several shapes; the function gets those of outputs of one shape at a time.

    Args:
        metric: What is called; its values are averaged by sample.
        blocks: Outputs of a model on consecutive samples.
        reference: Those of the first model on the same.
        labels: One row for each sample, or None.

    Raises:
        RunError: The function failed.
        ConfigError: It gave something else than numbers.
    """
    total, count = 0.0, blocks[-1].at.stop
    for _, alike in groupby(zip(blocks, reference, strict=True), _shapes):
        pairs = list(alike)
        at = slice(pairs[0][0].at.start, pairs[-1][0].at.stop)
        found, wanted = (_joined(side) for side in zip(*pairs, strict=True))
        value = metric.of(found, wanted, None if labels is None else labels[at].copy())
        total += (at.stop - at.start) / count * value
    return total


def _shapes(pair: tuple[Block, Block]) -> list[tuple[int, ...]]:
    return [values.shape[1:] for block in pair for values in block.outputs.values()]


def _joined(blocks: Sequence[Block]) -> dict[str, AnyArray]:
    """Copies of the outputs of blocks of one shape, which the function may work on in place."""
    return {name: np.concatenate([block.outputs[name] for block in blocks]) for name in blocks[0].outputs}


def find_metric(text: str) -> Metric:
    """Import the function that ``package.module:function`` names; the current folder is looked in first.

    Raises:
        ConfigError: It cannot be imported, or is no function.
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise ConfigError(f"metric is {text!r}; give package.module:function, such as boxes:mean_precision")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
        function = getattr(found, name)
    except (Exception, SystemExit) as error:
        is_missing = isinstance(error, ModuleNotFoundError) and error.name in (module, module.split(".")[0])
        advice = "the module has to lie in this folder or be installed" if is_missing else "correct it"
        raise ConfigError(f"metric {text!r} cannot be imported: {first_line(error)}; {advice}") from error
    if not callable(function):
        raise ConfigError(f"metric {text!r} is of type {type(function).__name__}; name a function")
    return Metric(text, function, getattr(found, "find_boxes", None))


def _shown(found: object) -> str:
    if isinstance(found, np.ndarray):
        return f"an array of shape {found.shape}"
    return f"{found!r}" if isinstance(found, float) else f"a {type(found).__name__}"
