"""A sentence encoder: tokens and a mask to one vector. Writes encoder.onnx, sentences.npz, new_sentences.npz.

Stands for a model of yours, such as MiniLM or BGE; its weights are random.
"""

import numpy as np
import onnx

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
encoder (int64[N, 16] input_ids, int64[N, 16] attention_mask) => (float[N, 32] sentence)
<float root = {5.657}, float one = {1.0}, float low = {-10000.0}, int64[1] last = {2}> {
    x = Gather(embedding, input_ids)
    is_token = Cast<to = 1>(attention_mask)
    is_padding = Sub(one, is_token)
    penalty = Mul(is_padding, low)
    mask = Unsqueeze(penalty, key_axis)
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
    bent = Relu(wide)
    narrow = MatMul(bent, down)
    block = Add(normal, narrow)
    weight = Unsqueeze(is_token, last)
    kept = Mul(block, weight)
    total = ReduceSum<keepdims = 0>(kept, key_axis)
    count = ReduceSum<keepdims = 0>(weight, key_axis)
    sentence = Div(total, count)
}
"""
SHAPES = {
    **{"embedding": (500, 32), "query": (32, 32), "key": (32, 32), "value": (32, 32)},
    **{"up": (32, 64), "down": (64, 32)},
}


def sentences(random: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Token numbers, padded with 0 to 16, and a mask that is 1 where there is a token."""
    mask = (np.arange(16) < random.integers(4, 17, count)[:, None]).astype(np.int64)
    return {"input_ids": random.integers(1, 500, (count, 16)) * mask, "attention_mask": mask}


def main() -> None:
    """Build and save."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    weights = {name: random.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in SHAPES.items()}
    weights |= {"gain": np.ones(32), "shift": np.zeros(32)}
    tensors = {name: values.astype(np.float32) for name, values in weights.items()}
    tensors["key_axis"] = np.array([1])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(*pair[::-1]) for pair in tensors.items())
    onnx.save(model, "encoder.onnx")
    np.savez("sentences.npz", **sentences(random, 128))
    np.savez("new_sentences.npz", **sentences(random, 64))


if __name__ == "__main__":
    main()
