"""The version of onnx-lapq, in one place."""

__version__ = "0.1.0"
