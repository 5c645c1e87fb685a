"""onnxruntime's own static quantization, as its documentation advises: preprocessing first, then QDQ."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnx_lapq.runtime.session import Feeds, open_file

__all__ = ["Reader", "quantize_statically"]


class Reader(CalibrationDataReader):
    """Batches, as onnxruntime asks for them."""

    def __init__(self, batches: Iterable[Feeds]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feeds | None:
        """The next batch; None behind the last one."""
        return next(self._batches, None)


def quantize_statically(model: Path, output: Path, batches: Iterable[Feeds]) -> None:
    """Write a model of 8 bits: min-max, weights in 7 bits and per channel where onnxruntime then loads it.

    Args:
        model: The float model.
        output: Where it is written.
        batches: The calibration set; may be gone through twice.

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
        open_file(output)
    except Exception:  # onnxruntime loads no scales per channel at opset 11, to which older models are raised
        _quantize(source, output, batches, per_channel=False)


def _quantize(source: Path, output: Path, batches: Iterable[Feeds], *, per_channel: bool) -> None:
    quantize_static(
        str(source),
        str(output),
        Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
