"""Run a model as it stands, without optimisation, and compare what it gives."""

import numpy as np
import onnx
import onnxruntime as ort


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feeds)


def is_same(old: np.ndarray, new: np.ndarray) -> bool:
    if old.shape != new.shape:
        return False
    if old.dtype.kind != "f":
        return np.array_equal(old, new)
    return np.allclose(old, new, rtol=1e-6, atol=1e-6, equal_nan=True)
