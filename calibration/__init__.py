"""Calibration data: files to samples to histograms."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_lapq.calibration.histogram import StreamingHistogram
    from onnx_lapq.calibration.preprocessing import PRESETS, Preprocessing, fit_to_model
    from onnx_lapq.calibration.ranges import implausible_range, input_range
    from onnx_lapq.calibration.samples import InputSpec, Samples, SampleSource, open_samples, subset, take

__all__ = [
    "PRESETS",
    "InputSpec",
    "Preprocessing",
    "SampleSource",
    "Samples",
    "StreamingHistogram",
    "fit_to_model",
    "implausible_range",
    "input_range",
    "open_samples",
    "subset",
    "take",
]

_HOMES = {
    "histogram": ("StreamingHistogram",),
    "preprocessing": ("PRESETS", "Preprocessing", "fit_to_model"),
    "ranges": ("implausible_range", "input_range"),
    "samples": ("InputSpec", "SampleSource", "Samples", "open_samples", "subset", "take"),
}
"""Names by module; loaded when they are asked for, since options need none of what reads files."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
