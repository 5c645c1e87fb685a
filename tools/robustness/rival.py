"""onnxruntime's own static quantization, as its documentation advises: preprocessing first, then QDQ."""

import logging
from contextlib import suppress
from pathlib import Path

from foreign import Feeds
from judging import open_model
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

__all__ = ["quantize_statically"]


class _Reader(CalibrationDataReader):
    def __init__(self, batches: list[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)


def quantize_statically(model: Path, output: Path, batches: list[Feeds]) -> None:
    """Write a model of 8 bits: min-max, weights in 7 bits and per channel where onnxruntime then loads it.

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
    source = prepared if prepared.exists() else model
    try:
        _quantize(source, output, batches, per_channel=True)
        open_model(output)
    except Exception:  # onnxruntime loads no scales per channel at opset 11, to which older models are raised
        _quantize(source, output, batches, per_channel=False)


def _quantize(source: Path, output: Path, batches: list[Feeds], *, per_channel: bool) -> None:
    quantize_static(
        str(source),
        str(output),
        _Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
