"""A segmenter: an image to a class for each pixel. Writes segmenter.onnx, scenes/, new_scenes/.

Stands for a model of yours, such as a U-Net; its weights are random, and its scenes are discs on noise.
"""

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
segmenter (float[N, 3, 64, 64] image) => (float[N, 4, 64, 64] classes)
<float[4] twice = {1.0, 1.0, 2.0, 2.0}> {
    stem = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(image, first, first_bias)
    edges = Relu(stem)
    deep = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(edges, second, second_bias)
    parts = Relu(deep)
    up = ConvTranspose<strides = [2, 2]>(parts, back, back_bias)
    wide = Relu(up)
    both = Concat<axis = 1>(wide, edges)
    mixed = Conv<pads = [1, 1, 1, 1]>(both, mix, mix_bias)
    fine = Relu(mixed)
    large = Resize<mode = "nearest">(fine, , twice)
    classes = Conv(large, to_classes, classes_bias)
}
"""
SHAPES = {
    **{"first": (8, 3, 3, 3), "first_bias": (8,), "second": (16, 8, 3, 3), "second_bias": (16,)},
    **{"back": (16, 8, 2, 2), "back_bias": (8,), "mix": (8, 16, 3, 3), "mix_bias": (8,)},
    **{"to_classes": (4, 8, 1, 1), "classes_bias": (4,)},
}


def draw(random: np.random.Generator, folder: str, count: int) -> None:
    """Bright discs on noise."""
    Path(folder).mkdir(exist_ok=True)
    rows, columns = np.mgrid[:64, :64]
    for number in range(count):
        pixels = random.integers(0, 120, (64, 64, 3))
        for x, y in random.integers(8, 56, (3, 2)):
            pixels[(rows - y) ** 2 + (columns - x) ** 2 < 80] = random.integers(120, 256, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(Path(folder) / f"{number:03}.png")


def main() -> None:
    """Build and save."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, "segmenter.onnx")
    draw(random, "scenes", 60)
    draw(random, "new_scenes", 20)


if __name__ == "__main__":
    main()
