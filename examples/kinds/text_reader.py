"""A reader of text lines (CTC): an image to characters by column. Writes reader.onnx, lines/, new_lines/.

Stands for a model of yours, such as a CRNN; its weights are random, and its lines are noise with strokes.
"""

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
reader (float[N, 3, 32, 96] line) => (float[N, 24, 40] characters)
<int64[1] rows = {2}, int64[3] flat = {0, 0, -1}> {
    stem = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(line, first, first_bias)
    edges = Relu(stem)
    deep = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(edges, second, second_bias)
    strokes = Relu(deep)
    columns = ReduceMean<axes = [2], keepdims = 0>(strokes)
    steps = Transpose<perm = [2, 0, 1]>(columns)
    states = LSTM<hidden_size = 24, direction = "bidirectional">(steps, of_input, of_state)
    moved = Transpose<perm = [2, 0, 1, 3]>(states)
    joined = Reshape(moved, flat)
    scores = MatMul(joined, alphabet)
    biased = Add(scores, alphabet_bias)
    characters = Softmax<axis = -1>(biased)
}
"""
SHAPES = {
    **{"first": (16, 3, 3, 3), "first_bias": (16,), "second": (32, 16, 3, 3), "second_bias": (32,)},
    **{"of_input": (2, 96, 32), "of_state": (2, 96, 24), "alphabet": (48, 40), "alphabet_bias": (40,)},
}


def draw(random: np.random.Generator, folder: str, count: int) -> None:
    """Light lines with dark strokes."""
    Path(folder).mkdir(exist_ok=True)
    for number in range(count):
        pixels = random.integers(200, 256, (32, 96, 3))
        for left in random.integers(0, 92, 12):
            pixels[6:26, left : left + 3] = random.integers(0, 80)
        Image.fromarray(pixels.astype(np.uint8)).save(Path(folder) / f"{number:03}.png")


def main() -> None:
    """Build and save."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, "reader.onnx")
    draw(random, "lines", 60)
    draw(random, "new_lines", 20)


if __name__ == "__main__":
    main()
