"""A detector: an image to boxes and scores. Writes detector.onnx, photos/, new_photos/.

Stands for a model of yours, such as a YOLO; its weights are random, and its photos are boxes on noise.
"""

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
detector (float[N, 3, 64, 64] image) => (float[N, 64, 9] found)
<int64[3] flat = {0, 0, -1}, float[1] cell = {8.0}> {
    stem = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(image, first, first_bias)
    edges = Relu(stem)
    deep = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(edges, second, second_bias)
    parts = Relu(deep)
    deeper = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(parts, third, third_bias)
    things = Relu(deeper)
    offsets = Conv(things, to_boxes, boxes_bias)
    logits = Conv(things, to_scores, scores_bias)
    offset_rows = Reshape(offsets, flat)
    logit_rows = Reshape(logits, flat)
    pixels = Mul(offset_rows, cell)
    scores = Sigmoid(logit_rows)
    both = Concat<axis = 1>(pixels, scores)
    found = Transpose<perm = [0, 2, 1]>(both)
}
"""
SHAPES = {
    **{"first": (8, 3, 3, 3), "first_bias": (8,), "second": (16, 8, 3, 3), "second_bias": (16,)},
    **{"third": (32, 16, 3, 3), "third_bias": (32,)},
    **{"to_boxes": (4, 32, 1, 1), "boxes_bias": (4,), "to_scores": (5, 32, 1, 1), "scores_bias": (5,)},
}


def draw(random: np.random.Generator, folder: str, count: int) -> None:
    """Bright boxes on noise."""
    Path(folder).mkdir(exist_ok=True)
    for number in range(count):
        pixels = random.integers(0, 120, (64, 64, 3))
        for left, top in random.integers(0, 48, (3, 2)):
            pixels[top : top + 14, left : left + 14] = random.integers(120, 256, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(Path(folder) / f"{number:03}.png")


def main() -> None:
    """Build and save."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, "detector.onnx")
    draw(random, "photos", 60)
    draw(random, "new_photos", 20)


if __name__ == "__main__":
    main()
