"""Calibration data: files to samples to histograms."""

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
