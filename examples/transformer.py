"""A transformer: tokens and a mask, one encoder block. Writes transformer.onnx and transformer.npz.

Stands for a model of yours; its weights are random. Quantize it from here, or with

    onnx-lapq transformer.onnx transformer.npz -o transformer_q.onnx
"""

import numpy as np
import onnx

from onnx_lapq import QuantizationConfig, quantize

GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
transformer (int64[N, L] tokens, float[N, 1, L] mask) => (float[N, 4] scores)
<float root = {4.0}, int64[1] positions = {1}> {
    x = Gather(embedding, tokens)
    q = MatMul(x, query)
    k = MatMul(x, key)
    v = MatMul(x, value)
    kt = Transpose<perm = [0, 2, 1]>(k)
    products = MatMul(q, kt)
    scaled = Div(products, root)
    masked = Add(scaled, mask)
    attention = Softmax<axis = -1>(masked)
    mixed = MatMul(attention, v)
    sum = Add(x, mixed)
    normal = LayerNormalization<axis = -1>(sum, gain, shift)
    wide = MatMul(normal, up)
    active = Gelu(wide)
    narrow = MatMul(active, down)
    block = Add(normal, narrow)
    pooled = ReduceMean<keepdims = 0>(block, positions)
    scores = MatMul(pooled, head)
}
"""
SHAPES = {
    **{"embedding": (100, 16), "query": (16, 16), "key": (16, 16), "value": (16, 16)},
    **{"up": (16, 32), "down": (32, 16), "head": (16, 4)},
}


def main() -> None:
    """Build, save, quantize."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    weights = {name: random.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in SHAPES.items()}
    weights |= {"gain": np.ones(16), "shift": np.zeros(16)}
    for name, values in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    lengths = random.integers(4, 17, 128)
    mask = np.where(np.arange(16) < lengths[:, None], 0.0, -1e4).astype(np.float32)[:, None]
    samples = {"tokens": random.integers(0, 100, (128, 16)), "mask": mask}
    onnx.save(model, "transformer.onnx")
    np.savez("transformer.npz", **samples)
    report = quantize(model, samples, QuantizationConfig(max_evaluations=20)).save("transformer_w8a8.onnx")
    print(
        f"{report.loss} {report.stages[-1].loss:.2e}; in float: {[node.op_type for node in report.in_float]}"
    )


if __name__ == "__main__":
    main()
