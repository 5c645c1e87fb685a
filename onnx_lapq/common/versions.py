"""Versions of the libraries that a run used."""

from importlib import import_module

__all__ = ["library_version"]


def library_version(name: str) -> str:
    """The version that a library gives itself.

    The package that brought it is not asked: onnxruntime also comes as ``onnxruntime-gpu`` and
    ``onnxruntime-openvino``, and a user may not be allowed to read the folder of packages.

    Args:
        name: Of the package, such as ``onnx-ir``.
    """
    return str(import_module(name.replace("-", "_")).__version__)
