"""onnxruntime's own static quantization, as its documentation advises: preprocessing first, then QDQ."""

import logging
from contextlib import suppress
from pathlib import Path

from foreign import Feeds
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

__all__ = ["quantize_statically"]


class _Reader(CalibrationDataReader):
    def __init__(self, batches: list[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)


def quantize_statically(model: Path, output: Path, batches: list[Feeds]) -> None:
    """Write a model of 8 bits: min-max, weights per channel and in 7 bits, as this tool has them by default.

    Raises:
        Exception: Of any kind.
    """
    logging.disable(logging.ERROR)
    prepared = output.with_suffix(".prepared.onnx")
    for skipped in (
        {},
        {"skip_symbolic_shape": True},
        {"skip_symbolic_shape": True, "skip_optimization": True},
    ):
        with suppress(Exception):
            quant_pre_process(str(model), str(prepared), **skipped)
            break
    quantize_static(
        str(prepared if prepared.exists() else model),
        str(output),
        _Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
