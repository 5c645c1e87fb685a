"""Loss-aware post-training quantization of ONNX models (LAPQ, Nahshan et al.)."""

from pkgutil import extend_path

# A wheel installs onnx_lapq.cli and onnx_lapq.calibration from folders beside this one; without this
# line `python -m pytest` run from the source tree would find this folder and not them.
__path__ = extend_path(__path__, __name__)
