"""Loss-aware post-training quantization of ONNX models (LAPQ, Nahshan et al.)."""

import logging
from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# A wheel installs onnx_lapq.cli and onnx_lapq.calibration from folders beside this one; without this
# line `python -m pytest` run from the source tree would find this folder and not them.
__path__ = extend_path(__path__, __name__)

from onnx_lapq._version import __version__
from onnx_lapq.errors import (
    CalibrationError,
    CancelledError,
    ConfigError,
    GateError,
    InputError,
    LapqError,
    ModelError,
    OutputError,
    RunError,
)

if TYPE_CHECKING:
    from onnx_lapq.config import QuantizationConfig
    from onnx_lapq.pipeline import quantize
    from onnx_lapq.result import QuantizationResult

__all__ = [
    "CalibrationError",
    "CancelledError",
    "ConfigError",
    "GateError",
    "InputError",
    "LapqError",
    "ModelError",
    "OutputError",
    "QuantizationConfig",
    "QuantizationResult",
    "RunError",
    "__version__",
    "quantize",
]

_LATE = {"QuantizationConfig": "config", "QuantizationResult": "result", "quantize": "pipeline"}
"""What loads onnxruntime and more, and so only when it is asked for: the command must first mind signals."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)


logging.getLogger(__name__).addHandler(logging.NullHandler())
