"""Run the models of a folder in onnxruntime, and print outputs and times as JSON; needs nothing else.

python tools/engines/run_onnxruntime.py FOLDER [SUFFIX]    # .onnx, or .ort for the format of edge builds
"""

import sys

import onnxruntime as ort
from engine_runs import run_folder


def open_model(path):
    """A function from inputs by name to a list of outputs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


if __name__ == "__main__":
    ort.set_default_logger_severity(4)
    suffix = sys.argv[2] if len(sys.argv) > 2 else ".onnx"
    name = "ORT format" if suffix == ".ort" else "onnxruntime"
    run_folder(f"{name} {ort.__version__}", sys.argv[1], suffix, open_model)
