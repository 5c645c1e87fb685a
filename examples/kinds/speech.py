"""A model of speech: sound to keywords. Writes keywords.onnx, sounds.npy, new_sounds.npy.

Stands for a model of yours; its Fourier transform and filter bank are real, all other weights are random.
"""

import numpy as np
import onnx

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
keywords (float[N, 4096] sound) => (float[N, 12] words)
<int64[1] one = {1}, int64[4] parts = {0, 2, 129, -1}, float floor = {1e-6}> {
    channel = Unsqueeze(sound, one)
    waves = Conv<strides = [128]>(channel, fourier)
    pairs = Reshape(waves, parts)
    squares = Mul(pairs, pairs)
    power = ReduceSum<keepdims = 0>(squares, one)
    steps = Transpose<perm = [2, 0, 1]>(power)
    bands = MatMul(steps, filters)
    above = Add(bands, floor)
    logs = Log(above)
    dense = MatMul(logs, widen)
    features = Relu(dense)
    states, last = GRU<hidden_size = 32>(features, of_input, of_state)
    state = Squeeze(last, first)
    words = Gemm(state, head, head_bias)
}
"""
SHAPES = {
    **{"widen": (40, 48), "of_input": (1, 96, 48), "of_state": (1, 96, 32)},
    **{"head": (32, 12), "head_bias": (12,)},
}


def fourier() -> np.ndarray:
    """Cosines and sines of 129 frequencies in a window of 256 values, [258, 1, 256]."""
    angles = 2 * np.pi * np.outer(np.arange(129), np.arange(256)) / 256
    return (np.concatenate([np.cos(angles), np.sin(angles)]) * np.hanning(256))[:, None]


def filters() -> np.ndarray:
    """40 triangles over the frequencies, the higher the wider, [129, 40]."""
    corners = np.geomspace(5, 133, 42) - 4
    at = np.arange(129)[:, None]
    up = (at - corners[:-2]) / np.diff(corners)[:-1]
    down = (corners[2:] - at) / np.diff(corners)[1:]
    return np.maximum(np.minimum(up, down), 0)


def sounds(random: np.random.Generator, count: int) -> np.ndarray:
    """Gliding tones of all loudnesses, in noise; [count, 4096]."""
    glide = np.linspace(0, random.uniform(200, 2000, (count, 1)), 4096, axis=1)[..., 0]
    tones = np.sin(np.cumsum(glide, axis=1) / 8000) * 10 ** random.uniform(-2, 0, (count, 1))
    return (tones + random.normal(0, 1e-3, tones.shape)).astype(np.float32)


def main() -> None:
    """Build and save."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    weights = {name: random.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in SHAPES.items()}
    weights |= {"fourier": fourier(), "filters": filters()}
    tensors = {name: values.astype(np.float32) for name, values in weights.items()}
    tensors["first"] = np.array([0])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(*pair[::-1]) for pair in tensors.items())
    onnx.save(model, "keywords.onnx")
    np.save("sounds.npy", sounds(random, 100))
    np.save("new_sounds.npy", sounds(random, 50))


if __name__ == "__main__":
    main()
