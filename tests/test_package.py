from importlib.metadata import entry_points, version
from importlib.resources import files

import onnx_lapq
from onnx_lapq._version import __version__


def test_version_is_the_installed_one():
    assert version("onnx-lapq") == __version__


def test_package_is_typed():
    assert files("onnx_lapq").joinpath("py.typed").is_file()


def test_mapped_folders_are_importable():
    from onnx_lapq import calibration, cli

    assert calibration.__name__ == "onnx_lapq.calibration"
    assert cli.__name__ == "onnx_lapq.cli"


def test_console_script_is_installed():
    (script,) = (entry for entry in entry_points(group="console_scripts") if entry.name == "onnx-lapq")
    assert script.value == "onnx_lapq.cli.entry:main"


def test_public_names():
    assert onnx_lapq.__all__ == [
        *("CalibrationError", "CancelledError", "ConfigError", "GateError", "InputError", "LapqError"),
        *("ModelError", "OutputError", "QuantizationConfig", "QuantizationResult", "RunError"),
        *("__version__", "quantize"),
    ]
