"""A run on record in MLflow: options, losses, sizes, scores and files, all from its report.

pip install mlflow; MLFLOW_TRACKING_URI=http://localhost:5000 python examples/mlflow_run.py
"""

import mlflow

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.calibration import Preprocessing

config = QuantizationConfig(
    weight_bits=4, samples=100, max_evaluations=20, preprocessing=Preprocessing(mean=(0.2860,), std=(0.3530,))
)
report = quantize("demo/model.onnx", "demo/calib", config).save("mlflow_w4a8.onnx")

with mlflow.start_run(run_name="mlflow_w4a8.onnx") as run:
    mlflow.log_params(report.options)
    for stage in report.stages:
        mlflow.log_metric("loss", stage.loss, step=stage.evaluations)
    sizes = {"bytes": report.output.bytes, "float_bytes": report.model.bytes}
    mlflow.log_metrics(sizes | {"seconds": sum(report.seconds.values())})
    for name, score in zip(("float", "quantized"), report.test, strict=False):
        mlflow.log_metric(f"{name}_top1", score.top1)
    mlflow.log_artifact("mlflow_w4a8.onnx")
    mlflow.log_artifact("mlflow_w4a8.onnx.report.json")
print("on record as run", run.info.run_id)
