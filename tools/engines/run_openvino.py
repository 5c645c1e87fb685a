"""Run the models of a folder in OpenVINO on the CPU, and print outputs and times as JSON.

python tools/engines/run_openvino.py FOLDER
"""

import sys

import openvino as ov
from engine_runs import run_folder


def open_model(path):
    """A function from inputs by name to a list of outputs."""
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()

    def run(feeds):
        found = request.infer(feeds)
        return [found[output] for output in compiled.outputs]

    return run


if __name__ == "__main__":
    run_folder(f"OpenVINO {ov.__version__.split('-')[0]}", sys.argv[1], ".onnx", open_model)
