"""A recommender: two integer inputs, embedding tables, one logit; writes recommender.onnx, recommender.npz.

Stands for a model of yours; its weights are random. Quantize it from here, or with

    onnx-lapq recommender.onnx recommender.npz -o recommender_q.onnx
"""

import numpy as np
import onnx

from onnx_lapq import QuantizationConfig, quantize

GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
recommender (int64[N] user, int64[N] item) => (float[N, 1] score) {
    of_user = Gather(users, user)
    of_item = Gather(items, item)
    both = Concat<axis = 1>(of_user, of_item)
    hidden = Gemm(both, first, first_bias)
    active = Relu(hidden)
    score = Gemm(active, last, last_bias)
}
"""
SHAPES = {
    **{"users": (50, 16), "items": (80, 16)},
    **{"first": (32, 24), "first_bias": (24,), "last": (24, 1), "last_bias": (1,)},
}


def main() -> None:
    """Build, save, quantize."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        values = random.standard_normal(shape) / np.sqrt(shape[0])
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    samples = {
        "user": random.integers(0, 50, 400),
        "item": random.integers(0, 80, 400),
        "labels": random.integers(0, 2, 400).astype(np.float32),
    }
    onnx.save(model, "recommender.onnx")
    np.savez("recommender.npz", **samples)
    config = QuantizationConfig(loss="binary-cross-entropy", max_evaluations=40)
    report = quantize(model, samples, config).save("recommender_w8a8.onnx")
    print(f"{report.loss}: float {report.stages[0].loss:.4f}, quantized {report.stages[-1].loss:.4f}")


if __name__ == "__main__":
    main()
